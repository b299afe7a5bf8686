"""The interface for audit events: the dispatcher reports each interaction once it is answered."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Event(NamedTuple):
    """One answered interaction; never a resource's content. `query`: the names of its parameters, never their values.

    `client`, `user`, `patient`: those of the token, "" where it names none.
    """

    principal: str
    interaction: str
    type: str | None
    id: str | None
    status: int
    request_id: str
    query: tuple[str, ...] = ()
    client: str = ""
    user: str = ""
    patient: str = ""


class Audit(Protocol):
    """Where audit events go."""

    def __call__(self, event: Event) -> None:
        """Take the event; must not block."""
        ...

    async def settle(self) -> None:
        """Return once every event that was taken is durable. Raises OSError where it cannot be made so."""
        ...
