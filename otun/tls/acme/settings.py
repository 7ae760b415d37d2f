"""Where certificates come from."""

from pathlib import Path
from typing import Final

import attrs

LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"


@attrs.frozen(kw_only=True)
class AcmeSettings:
    """A certificate authority, and what it may be told.

    *directory* is the https URL of its directory (RFC 8555, section 7.1.1), and *ca* a file of certificates with which
    its own HTTPS is verified instead of the public ones.  Whoever uses automatic certificates agrees to the authority's
    terms of service: the account is made with that agreement.  *email* is given to the authority as the account's
    contact.

    *dns_hook* is a program that changes the DNS; without it there are no wildcard certificates.  It is run without a
    shell, as ``HOOK add NAME VALUE`` and ``HOOK remove NAME VALUE``, where NAME is the whole name of a TXT record
    (``_acme-challenge.example.org``) and VALUE its text.  A name may have several values at a time.  ``add`` ends when
    the record can be seen from outside; exit code 0 means done, and each call has `dns_hook.HOOK_LIMIT` seconds.
    """

    directory: str = LETS_ENCRYPT
    ca: Path | None = None
    email: str | None = None
    dns_hook: str | None = None
