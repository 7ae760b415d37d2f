"""When to renew, and when to try again.  No clock is read here: times are seconds, jitter lies between 0 and 1."""

import math
from typing import Final

import attrs

_HOUR: Final = 3600.0

RENEWAL_POINT: Final = 2 / 3
"""The part of its lifetime after which a certificate is renewed: a month is left of Let's Encrypt's three."""

RENEWAL_JITTER: Final = 1 / 24
"""The part of the lifetime over which renewals spread: certificates made together are not renewed together."""

FIRST_PAUSE: Final = 60.0
"""Seconds after a first failure."""

LONGEST_PAUSE: Final = 6 * _HOUR
"""Seconds after many failures: four attempts a day cost an authority little, and a mended name soon has its turn."""

PAUSE_JITTER: Final = 0.2
"""The part by which a pause may be longer."""

MAX_FAILED_VALIDATIONS: Final = 5
"""Failed validations of a name in an hour: what Let's Encrypt allows."""

LONGEST_RETRY_AFTER: Final = 7 * 24 * _HOUR
"""Seconds that an authority can make a name wait: the longest window of Let's Encrypt's limits."""


def renewal_time(not_before: float, not_after: float, jitter: float) -> float:
    """Return when a certificate that is valid between these times is to be renewed."""
    return not_before + (not_after - not_before) * (RENEWAL_POINT + RENEWAL_JITTER * jitter)


def earliest_renewal(obtained: float, not_before: float, not_after: float) -> float:
    """Return the time before which a certificate that was *obtained* just now is not renewed, come what may.

    It matters when the clock is so wrong that a new certificate looks old: renewals must not follow one another.
    """
    return obtained + (not_after - not_before) * (1 - RENEWAL_POINT)


def pause(failures: int, jitter: float) -> float:
    """Return the seconds between the last of so many failures in a row and the next attempt."""
    doublings = min(failures - 1, 32)  # More would be over the longest, too.
    return min(FIRST_PAUSE * 2.0**doublings, LONGEST_PAUSE) * (1 + PAUSE_JITTER * jitter)


@attrs.frozen
class Attempts:
    """How the attempts for one name (or with one authority) have gone since the last success.

    *rejections* counts the failed validations among the *failures*, *recent_rejections* are the times of those that an
    hourly limit still counts.  No attempt is made before *not_before*.
    """

    failures: int = 0
    rejections: int = 0
    recent_rejections: tuple[float, ...] = ()
    not_before: float = -math.inf

    def failed(self, now: float, jitter: float, *, is_rejection: bool = False, retry_after: float = 0.0) -> "Attempts":
        """Return what is so after one more failure.  *is_rejection*: the authority did look, and found no answer."""
        recent = tuple(time for time in self.recent_rejections if time > now - _HOUR)
        if is_rejection:
            recent = (*recent, now)
        not_before = now + max(pause(self.failures + 1, jitter), min(retry_after, LONGEST_RETRY_AFTER))
        if len(recent) >= MAX_FAILED_VALIDATIONS:
            not_before = max(not_before, recent[-MAX_FAILED_VALIDATIONS] + _HOUR)
        return Attempts(self.failures + 1, self.rejections + is_rejection, recent, not_before)

    def postponed(self, now: float) -> "Attempts":
        """Return what is so after an attempt that failed for no fault of the name's."""
        return attrs.evolve(self, not_before=now + FIRST_PAUSE)
