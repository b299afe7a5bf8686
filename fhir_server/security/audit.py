"""The interface for audit events: the dispatcher reports each interaction once it is answered."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Event(NamedTuple):
    """One answered interaction; never a resource's content."""

    principal: str
    interaction: str
    type: str | None
    id: str | None
    status: int
    request_id: str


class Audit(Protocol):
    """Where audit events go."""

    def __call__(self, event: Event) -> None:
        """Take the event; must not block."""
        ...
