"""The interface for access policies: one decision in the dispatcher, and a clause that every search inherits.

There is no authentication yet; `AllowAll` is the policy of a server that listens on loopback only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fhir_server.search.query import EVERYTHING, Clause


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes the request. `partner`: whose message it is, by the name of the partner's file; "" for a request."""

    name: str = "anonymous"
    partner: str = ""


ANONYMOUS = Principal()


class Policy(Protocol):
    """What a principal may do. Called once per interaction, bundle entries included."""

    def authorise(self, principal: Principal, interaction: str, type: str | None, id: str | None) -> None:
        """Raise Forbidden for what the principal may not do."""
        ...

    def restricts(self, principal: Principal) -> bool:
        """Whether anything is hidden from the principal; False spares all reads the search for restrictions."""
        ...

    def restriction(self, principal: Principal, type: str) -> Clause:
        """The clause that every visible resource of `type` matches; it has no chains.

        `search.query.EVERYTHING` hides nothing, `NOTHING` the whole type. `access.Reader` applies it to every read.
        """
        ...


class AllowAll:
    """Everybody may do everything."""

    def authorise(self, principal: Principal, interaction: str, type: str | None, id: str | None) -> None:
        """Allow."""

    def restricts(self, principal: Principal) -> bool:
        """Nothing is hidden."""
        return False

    def restriction(self, principal: Principal, type: str) -> Clause:
        """No restriction."""
        return EVERYTHING
