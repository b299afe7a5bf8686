"""How often one principal may ask: so many requests a minute, in each process of the server (RFC 6585, section 4)."""

from __future__ import annotations

from math import ceil

from fhir_server.fhir.outcome import TooManyRequests
from fhir_server.security.policy import Principal
from fhir_server.store.protocol import Clock

MOST_PRINCIPALS = 10_000
"""Principals that are counted; the one that has not asked for longest is forgotten first, and begins anew."""

_MINUTE = 60_000_000


class RequestRate:
    """Every principal has an allowance of `per_minute` requests, which fills again evenly; 0: without end."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._left: dict[str, tuple[float, int]] = {}
        """Name → the allowance that was left, and when (µs)."""

    def check(self, principal: Principal) -> None:
        """Count a request with a token. Raises TooManyRequests."""
        if not self._per_minute or principal.grant is None:
            return
        now = self._clock()
        left, then = self._left.pop(principal.name, (float(self._per_minute), now))
        left = min(self._per_minute, left + max(0, now - then) * self._per_minute / _MINUTE)
        allowed = left >= 1
        self._left[principal.name] = (left - 1 if allowed else left, now)
        if len(self._left) > MOST_PRINCIPALS:
            del self._left[next(iter(self._left))]
        if not allowed:
            seconds = max(1, ceil((1 - left) * 60 / self._per_minute))
            raise TooManyRequests(
                f"There were more than {self._per_minute:,} requests a minute with tokens of this one (setting "
                f"`request_rate`); ask again after {seconds} seconds.",
                headers=(("Retry-After", str(seconds)),),
            )
