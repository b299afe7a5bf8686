"""The interface for access policies: one decision in the dispatcher, and a clause that every search inherits.

`AllowAll` is the policy of a server without authentication; `scope_policy.ScopePolicy` that of one with.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import astuple, dataclass, replace
from typing import Literal, NamedTuple, Protocol

from fhir_server.search.query import EVERYTHING, Clause
from fhir_server.security.scopes import ResourceScope


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """What a token allows; two are never equal, so that what follows from one is remembered at little cost.

    `patient`: the id of the patient whom its `patient/` scopes speak of; "" for none. `user`: a reference to the person
    who is logged in, such as `Practitioner/quill`; "" for none.
    """

    scopes: tuple[ResourceScope, ...]
    patient: str = ""
    user: str = ""
    client: str = ""


class Emergency(NamedTuple):
    """Why somebody reads what the scopes hide: `purpose` is a code of v3-ActReason such as `ETREAT`."""

    purpose: str
    reason: str


@functools.lru_cache(maxsize=1024)
def _compute_fingerprint(name: str, grant: Grant) -> str:
    text = "\n".join((name, grant.patient, *sorted(map(str, grant.scopes))))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes the request. `partner`: whose message it is, by the name of the partner's file; "" for a request.

    `grant`: what its token allows; None for the server itself, and for everybody where no token is needed.
    `operation`: the code of the operation that is carried out for it; "" for an interaction.
    `emergency`: why `grant` says more than the token does, for this request.
    """

    name: str = "anonymous"
    partner: str = ""
    grant: Grant | None = None
    operation: str = ""
    emergency: Emergency | None = None

    def compute_fingerprint(self) -> str:
        """A short text that differs between two principals who may see different things; "" without a grant."""
        return "" if self.grant is None else _compute_fingerprint(self.name, self.grant)

    def may_the_same(self, other: Principal) -> bool:
        """Whether they differ in nothing: two grants are never equal, but may say the same."""
        if self.grant is None or other.grant is None:
            return self == other
        return replace(other, grant=self.grant) == self and astuple(self.grant) == astuple(other.grant)


ANONYMOUS = Principal()

Permission = Literal["c", "u", "d"]
"""create, update, delete, as the letters of SMART scopes."""


class Policy(Protocol):
    """What a principal may do. Called once per interaction, bundle entries included."""

    def authorise(self, principal: Principal, interaction: str, type: str | None, id: str | None) -> None:
        """Raise Forbidden for what the principal may not do."""
        ...

    def restricts(self, principal: Principal) -> bool:
        """Whether anything is hidden from the principal; False spares all reads the search for restrictions."""
        ...

    def restriction(self, principal: Principal, type: str) -> Clause:
        """The clause that every visible resource of `type` matches; no chains, one Or of Has or one Every at most.

        `search.query.EVERYTHING` hides nothing, `NOTHING` the whole type. `access.Reader` applies it to every read.
        """
        ...

    def search_restriction(self, principal: Principal, type: str) -> Clause:
        """The clause that every resource of `type` matches that the principal may search for; see `restriction`."""
        ...

    def criteria_restriction(self, principal: Principal, type: str) -> Clause:
        """The clause that every resource of `type` matches that criteria of a conditional write may find."""
        ...

    def check_link(self, principal: Principal, type: str) -> None:
        """Raise Forbidden where a search may lead through no resource of `type`."""
        ...

    def write_restriction(self, principal: Principal, type: str, permission: Permission) -> Clause:
        """The clause that a resource of `type` matches, before and after, that the principal may write so."""
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

    def search_restriction(self, principal: Principal, type: str) -> Clause:
        """Whatever can be read."""
        return self.restriction(principal, type)

    def criteria_restriction(self, principal: Principal, type: str) -> Clause:
        """Whatever can be read."""
        return self.restriction(principal, type)

    def check_link(self, principal: Principal, type: str) -> None:
        """Allow."""

    def write_restriction(self, principal: Principal, type: str, permission: Permission) -> Clause:
        """No restriction."""
        return EVERYTHING
