"""HTTP as the `acme` package does it, with limits of its own and failures in words."""

import email.utils
import io
import ssl
import time
from pathlib import Path
from typing import Final

import acme.errors
import acme.messages
import requests
import urllib3.exceptions
from acme.client import ClientNetwork
from josepy.interfaces import JSONDeSerializable
from josepy.jwa import ES256
from josepy.jwk import JWK
from requests.adapters import HTTPAdapter
from urllib3.response import BaseHTTPResponse

from .failures import AccountUnknown, AcmeFailure, AuthorityUnavailable, OrderFailed, RateLimited
from .wording import one_line

TIMEOUT: Final = 30
"""Seconds in which an authority must begin to answer a request, and then go on."""

MAX_BODY: Final = 1024 * 1024
"""Octets of an answer: a certificate chain has less than 20,000."""

NONCE_ATTEMPTS: Final = 10
"""Times that a request is sent again because of its nonce, each time twice: half of them may be refused."""


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


class _BoundedAdapter(HTTPAdapter):
    """Reads answers whole, up to `MAX_BODY`; ends when the work has been abandoned."""

    is_abandoned = False

    def send(  # type: ignore[no-untyped-def]  # The arguments are requests' own affair.
        self, request: requests.PreparedRequest, *arguments, **options
    ) -> requests.Response:
        if self.is_abandoned:
            raise Abandoned
        response = super().send(request, *arguments, **options)
        raw: BaseHTTPResponse = response.raw
        try:
            body = raw.read(MAX_BODY + 1, decode_content=True)
        except urllib3.exceptions.ReadTimeoutError as error:
            raise requests.exceptions.ReadTimeout(error) from error
        except urllib3.exceptions.HTTPError as error:
            raise requests.exceptions.ConnectionError(error) from error
        if len(body) > MAX_BODY:
            raw.close()
            raise requests.exceptions.ConnectionError(f"an answer had more than {MAX_BODY:,} octets")
        raw.release_conn()
        response.raw = io.BytesIO(body)
        return response


class Network(ClientNetwork):
    """Signs requests with *key*, verifies the authority's own HTTPS by *ca*, and repeats what had a bad nonce.

    For one thread at a time.  To be closed.
    """

    def __init__(self, key: JWK, *, ca: Path | None) -> None:
        super().__init__(key, alg=ES256, user_agent="otun", timeout=TIMEOUT)
        if ca is not None:
            self.verify_ssl = str(ca)  # type: ignore[assignment]  # It is handed to requests, which takes a path, too.
        self._adapter = _BoundedAdapter()
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, self._adapter)
        self.last_response: requests.Response | None = None
        self.session.hooks["response"].append(self._note)

    def abandon(self) -> None:
        """Have a thread that is in here end before its next request."""
        self._adapter.is_abandoned = True

    def close(self) -> None:
        """Close the connections."""
        self.session.close()

    def _note(self, response: requests.Response, **options: object) -> None:
        self.last_response = response

    def post(self, url: str, obj: JSONDeSerializable | None, **options: str | None) -> requests.Response:
        """Send *obj* signed, again and again while the authority finds fault with the nonce (RFC 8555, section 6.5)."""
        for _ in range(NONCE_ATTEMPTS):
            try:
                return super().post(url, obj, **options)
            except acme.messages.Error as error:
                if error.code != "badNonce":
                    raise
        raise AuthorityUnavailable(f"refused {2 * NONCE_ATTEMPTS} nonces, one after another")

    def failure(self, error: acme.messages.Error) -> AcmeFailure:
        """Return what a problem document in the last answer means."""
        text = problem_text(error)
        status = self.last_response.status_code if self.last_response is not None else 0
        if error.code == "accountDoesNotExist":
            return AccountUnknown(text)
        if status == 429 or error.code == "rateLimited":
            return RateLimited(text, retry_after=self.retry_after())
        if status >= 500:
            return AuthorityUnavailable(f"has trouble: {text}", retry_after=self.retry_after())
        return OrderFailed(text, retry_after=self.retry_after())

    def failure_without_words(self) -> AcmeFailure:
        """Return what a last answer means that is not ACME."""
        if self.last_response is None:
            return AuthorityUnavailable("did not answer in a way that makes sense")
        status = self.last_response.status_code
        text = f"status {status}, without a reason" if status >= 400 else "its answer is not ACME"
        if self.account is None or not 400 <= status < 500:
            return AuthorityUnavailable(f"makes no sense: {text}", retry_after=self.retry_after())
        kind = RateLimited if status == 429 else OrderFailed
        return kind(text, retry_after=self.retry_after())

    def retry_after(self) -> float:
        """Return the seconds that the last answer asks us to wait (RFC 9110, section 10.2.3), 0 when it does not."""
        if self.last_response is None:
            return 0.0
        value = self.last_response.headers.get("Retry-After", "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:12])
        try:
            when = email.utils.parsedate_to_datetime(value).timestamp()
        except (ValueError, OverflowError):  # The latter for years that no clock has.
            return 0.0
        return max(when - time.time(), 0.0)


def problem_text(error: acme.messages.Error) -> str:
    """Return what a problem document says (RFC 7807), on one line."""
    for text in (error.detail, error.title, error.typ):
        if isinstance(text, str) and text != "about:blank" and (line := one_line(text)):
            return line
    return "no reason given"


def explain(error: OSError) -> str:
    """Return why there was no answer."""
    if isinstance(error, requests.exceptions.Timeout):
        return f"did not answer within {TIMEOUT} seconds"
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and cause not in seen:
        seen.append(cause)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"has a certificate that cannot be trusted: {one_line(cause.verify_message)}"
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, requests.RequestException):
            return f"cannot be reached: {one_line(cause.strerror)}"
        nested = [part for part in cause.args if isinstance(part, BaseException)]
        reason = getattr(cause, "reason", None)
        if isinstance(reason, BaseException):
            nested.append(reason)
        cause = cause.__cause__ or (nested[0] if nested else cause.__context__)
    return f"cannot be reached: {one_line(str(error))}"
