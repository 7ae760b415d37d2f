"""Why an attempt to obtain a certificate came to nothing.

Each text is one line that goes on from ``certificate for NAME:``, and that of `AuthorityUnavailable` from ``the CA at
URL``.
"""

from ...errors import OtunError


class AcmeFailure(OtunError):
    """An attempt has failed; another may be made later.  *retry_after* are the seconds that the authority asked for."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AuthorityUnavailable(AcmeFailure):
    """The authority cannot be reached, or serves nobody at present: no other name would fare better."""


class OrderFailed(AcmeFailure):
    """The authority refuses this order, or it could not be carried out."""


class RateLimited(OrderFailed):
    """The authority has had too many requests for this name or from this account."""


class ValidationFailed(OrderFailed):
    """The authority looked for our answer to a challenge, and did not find it."""


class AccountUnknown(AcmeFailure):
    """The authority does not know our account (any more): it is to be made again, with the same key."""
