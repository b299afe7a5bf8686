"""The policy of a server with authentication: scopes become a decision and a clause (docs/access.md).

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping

from fhir_server.fhir.outcome import Forbidden
from fhir_server.search.query import EVERYTHING, NOTHING, And, Clause, Every, Has, Not, Or, Present, Scope
from fhir_server.security.bounded_cache import BoundedCache
from fhir_server.security.check import weigh_clause
from fhir_server.security.policy import Grant, Permission, Principal
from fhir_server.security.scopes import ANY_TYPE, ResourceScope

Pairs = tuple[tuple[str, str], ...]
Needs = Mapping[str, str]
"""Resource type (ANY_TYPE: that of the URL, or every type) → the permissions that an operation needs on it."""

_CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
LABELS: Pairs = tuple(("_security:not", f"{_CONFIDENTIALITY}|{code}") for code in ("R", "V"))
"""What a resource matches that is neither restricted nor very restricted: others need a scope that names the label."""

DIRECTORY = frozenset(
    {"Endpoint", "HealthcareService", "Location", "Medication", "Organization", "Practitioner", "PractitionerRole"}
    | {"Schedule", "Slot"}
    | {"CodeSystem", "CompartmentDefinition", "ConceptMap", "NamingSystem", "OperationDefinition", "Questionnaire"}
    | {"SearchParameter", "StructureDefinition", "ValueSet"}
)
"""Types outside the Patient compartment that a `patient/` scope lets read and search, and never write."""

PEOPLE = frozenset({"Practitioner", "PractitionerRole"})
"""Those of DIRECTORY that hold people's data: of these only what a visible resource refers to."""

WHATEVER_TARGET = ("target:missing", "false")
"""In a scope for Provenance: whatever its targets are. Others show those alone whose targets are all visible."""

_ROLE_OF = ("PractitionerRole", "Practitioner")
_TELLING_OF_OTHERS = frozenset({"AuditEvent", "Provenance"})
"""Types whose references make nobody visible: they may be about what is hidden."""

_NEEDED: Mapping[str, str] = {
    "read": "r",
    "vread": "r",
    "history-instance": "r",
    "history-type": "s",
    "history-system": "s",
    "search-type": "s",
    "search-system": "s",
    "search-compartment": "s",
    "create": "c",
    "update": "uc",
    "patch": "u",
    "delete": "d",
}
"""Interaction → the permissions of which one is needed; whether an update creates is known later."""
_OF_ANYBODY = frozenset({"capabilities", "batch", "transaction"})


_MOST_REMEMBERED, _MOST_WEIGHT = 4096, 200_000
"""Clauses that are remembered, and what they consist of together."""


class ScopePolicy:
    """What the scopes of a principal's grant allow; a principal without a grant is the server itself.

    `needs`: by operation code, what it reads and writes for its caller. `parse`: (type, search pairs) → clause.
    `enclose`: (type, patient's id) → the clause of the patient's compartment, None for a type outside of it.
    `list_referrers`: type → (type, search parameter) of what may refer to its resources. `types`: all that are served.
    `by_name`: those of which a scope of every type says nothing.
    """

    def __init__(
        self,
        needs: Mapping[str, Needs],
        parse: Callable[[str, Pairs], Clause],
        enclose: Callable[[str, str], Clause | None],
        list_referrers: Callable[[str], Iterable[tuple[str, str]]],
        types: Iterable[str],
        by_name: frozenset[str] = frozenset(),
    ) -> None:
        self._needs, self._parse, self._enclose, self._list_referrers = needs, parse, enclose, list_referrers
        self._types, self._by_name = tuple(types), by_name
        self._clauses = BoundedCache[Clause](_MOST_REMEMBERED, _MOST_WEIGHT, weigh_clause)
        self._allows = functools.lru_cache(maxsize=1024)(_allows)

    def authorise(self, principal: Principal, interaction: str, type: str | None, id: str | None) -> None:
        """Raise Forbidden unless a scope allows the interaction on some resource of the type."""
        grant = principal.grant
        if grant is None or interaction in _OF_ANYBODY:
            return
        if interaction.startswith("$"):
            for each, letters in self._needs[interaction[1:]].items():
                wanted = type or ANY_TYPE if each == ANY_TYPE else each
                for letter in letters:
                    self._require(grant, wanted, letter)
        elif interaction == "search-compartment" or type is None:
            self._require(grant, None, _NEEDED[interaction])
        else:
            self._require(grant, type, _NEEDED[interaction])

    def restricts(self, principal: Principal) -> bool:
        """Whether the principal comes with a token."""
        return principal.grant is not None

    def restriction(self, principal: Principal, type: str) -> Clause:
        """What a scope lets read or search."""
        return EVERYTHING if principal.grant is None else self._build(principal.grant, type, "rs")

    def search_restriction(self, principal: Principal, type: str) -> Clause:
        """What a scope lets search."""
        return EVERYTHING if principal.grant is None else self._build(principal.grant, type, "s")

    def criteria_restriction(self, principal: Principal, type: str) -> Clause:
        """What a scope lets search; all of the types that an operation writes beside what it is called for."""
        if principal.operation and not self._is_called_for(principal, type):
            return EVERYTHING
        return self.search_restriction(principal, type)

    def check_link(self, principal: Principal, type: str) -> None:
        """Raise Forbidden where no scope lets search the type."""
        if principal.grant is not None:
            self._require(principal.grant, type, "s")

    def _is_called_for(self, principal: Principal, type: str, letters: str = "cud") -> bool:
        needs = self._needs[principal.operation]
        return any(letter in needs.get(type, needs.get(ANY_TYPE, "")) for letter in letters)

    def write_restriction(self, principal: Principal, type: str, permission: Permission) -> Clause:
        """What a scope lets write; what an operation writes beside what it is called for is not the principal's."""
        if principal.grant is None:
            return EVERYTHING
        if principal.operation and not self._is_called_for(principal, type, permission):
            return EVERYTHING
        return self._build(principal.grant, type, permission)

    def _build(self, grant: Grant, type: str, permissions: str) -> Clause:
        make = functools.partial(self._build_restriction, grant, type, permissions)
        return self._clauses.find((grant, type, permissions), make)

    def _build_restriction(self, grant: Grant, type: str, permissions: str) -> Clause:
        # scopes that differ in their letters alone say the same here
        alike = {
            (scope.level, scope.query): scope
            for scope in reversed(grant.scopes)
            if scope.covers(type, permissions) and (scope.type == type or type not in self._by_name)
        }
        built = [(scope, self._build_scope(scope, grant, type, permissions)) for scope in reversed(alike.values())]
        clauses = [clause for _, clause in built if clause is not None]
        if type == "Provenance" and set(permissions) <= set("rs"):
            free = [clause for scope, clause in built if clause is not None and WHATEVER_TARGET in scope.query]
            about = [And((clause, self._build_targets(grant))) for clause in clauses if clause not in free]
            clauses = [*free, *about]
        if not clauses:
            return NOTHING
        return EVERYTHING if EVERYTHING in clauses else clauses[0] if len(clauses) == 1 else Or(tuple(clauses))

    def _build_scope(self, scope: ResourceScope, grant: Grant, type: str, permissions: str) -> Clause | None:
        """What one scope allows of a type; None for nothing."""
        parts: list[Clause] = []
        if scope.level == "patient":
            inside = self._enclose(type, grant.patient) if grant.patient else None
            if inside is not None:
                parts.append(inside)
            elif type not in DIRECTORY or not set(permissions) <= set("rs") or not grant.patient:
                return None
            elif type in PEOPLE:
                parts.append(self._build_referred(grant, type))
        pairs = tuple(pair for pair in scope.query if (type, pair) != ("Provenance", WHATEVER_TARGET))
        if not names_label(pairs):
            # the labels as one criterion, which is asked of each resource that is found
            pairs = (*pairs, ("_security:not", ",".join(label for _, label in LABELS)))
        parts.append(self._parse(type, pairs))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _build_targets(self, grant: Grant) -> Clause:
        """Every target is there and visible. A Provenance is none; an identifier may stand for what is hidden."""

        def build() -> Clause:
            wheres = {type: self._build(grant, type, "rs") for type in self._types if type != "Provenance"}
            scopes = tuple(Scope(type, where) for type, where in wheres.items() if where != NOTHING)
            return And((Present("target"), Not(Present("target:identifier")), Every("target", scopes)))

        return self._clauses.find((grant, "Provenance", "targets"), build)

    def _build_referred(self, grant: Grant, type: str) -> Clause:
        """Some visible resource refers to it by a search parameter; the role of a visible one may, nobody else's."""
        visible: dict[str, Clause] = {}
        links: list[Clause] = []
        for source, parameter in self._list_referrers(type):
            if source in _TELLING_OF_OTHERS or (source in PEOPLE and (source, type) != _ROLE_OF):
                continue
            where = visible.setdefault(source, self._build(grant, source, "rs"))
            if where != NOTHING:
                links.append(Has(source, parameter, where))
        return Or(tuple(links))

    def _require(self, grant: Grant, type: str | None, letters: str) -> None:
        """Raise Forbidden unless some scope has one of the letters for the type; for None, for any type."""
        if self._allows(grant, type, letters, type in self._by_name):
            return
        wanted = f"{type or ANY_TYPE}.{letters[0]}"
        raise Forbidden(
            f"The token has no scope for this: it needs `user/{wanted}`, `system/{wanted}` or `patient/{wanted}`.",
            headers=(("WWW-Authenticate", f'Bearer error="insufficient_scope", scope="user/{wanted}"'),),
        )


def names_label(pairs: Pairs) -> bool:
    """Whether the search parameters of a scope say themselves which security labels are meant."""
    return any(name.partition(":")[0] == "_security" for name, _ in pairs)


def _allows(grant: Grant, type: str | None, letters: str, by_name: bool) -> bool:
    return any(
        any(letter in scope.permissions for letter in letters)
        and (type is None or (scope.type == ANY_TYPE and not by_name) or scope.type == type)
        for scope in grant.scopes
    )
