"""The policy of a server with authentication: scopes become a decision and a clause (docs/access.md).

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from fhir_server.fhir.outcome import Forbidden
from fhir_server.search.query import EVERYTHING, NOTHING, And, Clause, Or
from fhir_server.security.policy import Grant, Permission, Principal
from fhir_server.security.scopes import ANY_TYPE, ResourceScope

Pairs = tuple[tuple[str, str], ...]
Needs = Mapping[str, str]
"""Resource type (ANY_TYPE: that of the URL, or every type) → the permissions that an operation needs on it."""

LABELS: Pairs = tuple(
    ("_security:not", f"http://terminology.hl7.org/CodeSystem/v3-Confidentiality|{code}") for code in ("R", "V")
)
"""What a resource matches that is neither restricted nor very restricted: others need a scope that names the label."""

DIRECTORY = frozenset(
    {"Endpoint", "HealthcareService", "Location", "Medication", "Organization", "Practitioner", "PractitionerRole"}
    | {"Schedule", "Slot"}
    | {"CodeSystem", "CompartmentDefinition", "ConceptMap", "NamingSystem", "OperationDefinition", "Questionnaire"}
    | {"SearchParameter", "StructureDefinition", "ValueSet"}
)
"""Types outside the Patient compartment that a `patient/` scope lets read and search, and never write."""

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


class ScopePolicy:
    """What the scopes of a principal's grant allow; a principal without a grant is the server itself.

    `needs`: by operation code, what it reads and writes for its caller. `parse`: (type, search pairs) → clause.
    `enclose`: (type, patient's id) → the clause of the patient's compartment, None for a type outside of it.
    """

    def __init__(
        self,
        needs: Mapping[str, Needs],
        parse: Callable[[str, Pairs], Clause],
        enclose: Callable[[str, str], Clause | None],
    ) -> None:
        self._needs, self._parse, self._enclose = needs, parse, enclose
        self._build = functools.lru_cache(maxsize=4096)(self._build_restriction)

    def authorise(self, principal: Principal, interaction: str, type: str | None, id: str | None) -> None:
        """Raise Forbidden unless a scope allows the interaction on some resource of the type."""
        grant = principal.grant
        if grant is None or interaction in _OF_ANYBODY:
            return
        if interaction.startswith("$"):
            for each, letters in self._needs[interaction[1:]].items():
                wanted = type or ANY_TYPE if each == ANY_TYPE else each
                for letter in letters:
                    _require(grant, wanted, letter)
        elif interaction == "search-compartment" or type is None:
            _require(grant, None, _NEEDED[interaction])
        else:
            _require(grant, type, _NEEDED[interaction])

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
            _require(principal.grant, type, "s")

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

    def _build_restriction(self, grant: Grant, type: str, permissions: str) -> Clause:
        # scopes that differ in their letters alone say the same here
        alike = {
            (scope.level, scope.query): scope for scope in reversed(grant.scopes) if scope.covers(type, permissions)
        }
        clauses = [
            clause
            for scope in reversed(alike.values())
            if (clause := self._build_scope(scope, grant, type, permissions)) is not None
        ]
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
        pairs = scope.query
        if not any(name.partition(":")[0] == "_security" for name, _ in pairs):
            pairs = (*pairs, *LABELS)
        parts.append(self._parse(type, pairs))
        return parts[0] if len(parts) == 1 else And(tuple(parts))


def _require(grant: Grant, type: str | None, letters: str) -> None:
    """Raise Forbidden unless some scope has one of the letters for the type; for None, for any type."""
    for scope in grant.scopes:
        if any(letter in scope.permissions for letter in letters) and (
            type is None or scope.type == ANY_TYPE or scope.type == type
        ):
            return
    wanted = f"{type or ANY_TYPE}.{letters[0]}"
    raise Forbidden(
        f"The token has no scope for this: it needs `user/{wanted}`, `system/{wanted}` or `patient/{wanted}`.",
        headers=(("WWW-Authenticate", f'Bearer error="insufficient_scope", scope="user/{wanted}"'),),
    )
