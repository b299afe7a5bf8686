"""What a transport offers to the worker that delivers: bytes out, with a result that says how far they came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

Endpoint = Mapping[str, str]
"""Where a partner is reached: the keys are the transport's own, such as `out` of a folder or `host` and `port`."""


class DeliveryResult(NamedTuple):
    """How far one payload came.

    `outcome`: `delivered` (it arrived; `answer` holds what came back, which may be an acknowledgement that refuses),
    `refused` (the other side took none of it, and will not), `unsent` (no byte left this machine, so it may go again
    later), `unanswered` (it may have arrived). `reason`: a full sentence, for all but `delivered`.
    """

    outcome: Literal["delivered", "refused", "unsent", "unanswered"]
    answer: bytes = b""
    reason: str = ""


class Transport(Protocol):
    """One way out. It knows no FHIR, and raises nothing for what the network or a disk does."""

    @property
    def repeats(self) -> bool:
        """Whether what went unanswered is sent again under the same control number; a folder never does."""
        ...

    async def deliver(self, endpoint: Endpoint, control_number: str, payload: bytes) -> DeliveryResult:
        """Send the payload once. Whoever is cancelled here has sent it or not: the item stays sent-unanswered."""
        ...

    async def find_delivered(self, endpoint: Endpoint, control_number: str) -> bool:
        """Whether a payload with this control number is at the endpoint. Asked only where `repeats` is False."""
        ...
