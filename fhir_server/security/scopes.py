"""SMART scopes: what a token lets its bearer read and write, read from their text.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html; the forms of version 1 are taken as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import parse_qsl

Level = Literal["patient", "user", "system"]

ANY_TYPE = "*"
PERMISSIONS = "cruds"
"""create, read, update, delete, search: the letters of version 2, in the order in which a scope has them."""

BREAK_GLASS = "break-glass:"
"""What a scope of a role begins with that counts in an emergency alone; elsewhere it says nothing."""

_VERSION_1 = {"read": "rs", "write": "cud", "*": PERMISSIONS}
_SCOPE = re.compile(r"(patient|user|system)/(\*|[A-Z][A-Za-z]{1,63})\.(read|write|\*|c?r?u?d?s?)(?:\?(.+))?")
_LONGEST = 500
MOST_SCOPES = 200
"""Scopes that one token may have."""

PLACEHOLDERS = frozenset({"patient", "fhirUser", "organization"})
"""What stands in braces in the search parameters of a role's scopes, and is filled in for who has the role."""
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

MOST_QUERIES = 10_000
"""Characters of the search parameters of a token's scopes; those of `*` count 25 times: they are of every type."""
_WEIGHT_OF_ANY = 25


class WrongScope(ValueError):
    """A text is no scope; str says why."""


@dataclass(frozen=True, slots=True)
class ResourceScope:
    """What one scope allows: `permissions` (letters of PERMISSIONS) on resources of `type` (or ANY_TYPE).

    `query`: the search parameters that the resources match. At the level `patient` they are those in the compartment of
    the patient of the launch.
    """

    level: Level
    type: str
    permissions: str
    query: tuple[tuple[str, str], ...] = ()

    def covers(self, type: str, permissions: str) -> bool:
        """Whether it allows one of the permissions on resources of the type, or on some of them."""
        return self.type in (type, ANY_TYPE) and any(letter in self.permissions for letter in permissions)

    def __str__(self) -> str:
        query = "&".join(f"{name}={value}" for name, value in self.query)
        return f"{self.level}/{self.type}.{self.permissions}" + (f"?{query}" if query else "")


def parse_scope(text: str) -> ResourceScope:
    """One resource scope, such as `patient/Observation.rs?category=laboratory`. Raises WrongScope."""
    match = _SCOPE.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None or not match[3]:
        raise WrongScope(
            f"`{text[:_LONGEST]}` is no scope; write one such as `user/Observation.rs`, `patient/*.read` or "
            "`system/Patient.cruds`, the letters in this order."
        )
    level, type, letters, query = match.groups()
    pairs = tuple(parse_qsl(query, keep_blank_values=True)) if query else ()
    if query and not pairs:
        raise WrongScope(f"`{query}` in the scope `{text}` has no search parameter.")
    return ResourceScope(level, type, _VERSION_1.get(letters, letters), pairs)  # type: ignore[arg-type]


def parse_scopes(text: str) -> tuple[ResourceScope, ...]:
    """The resource scopes in a list separated by spaces; others, such as `openid`, allow nothing here and are left out.

    Raises WrongScope for one that begins like a resource scope and is none.
    """
    words = text.split()
    if len(words) > MOST_SCOPES:
        raise WrongScope(f"More than {MOST_SCOPES} scopes are more than a token may have.")
    scopes = tuple(dict.fromkeys(parse_scope(word) for word in words if "/" in word and not _is_other(word)))
    size = sum(
        (len(name) + len(value)) * (_WEIGHT_OF_ANY if scope.type == ANY_TYPE else 1)
        for scope in scopes
        for name, value in scope.query
    )
    if size > MOST_QUERIES:
        raise WrongScope(
            f"The search parameters of the scopes have {size:,} characters together, those of `*` counted "
            f"{_WEIGHT_OF_ANY} times; a token may have {MOST_QUERIES:,}."
        )
    return scopes


def _is_other(word: str) -> bool:
    """Whether a scope with a slash speaks of no resources: a launch context or a URL of another system."""
    return word.startswith(("launch/", BREAK_GLASS)) or "://" in word.partition("?")[0]


def check_placeholders(scope: ResourceScope) -> None:
    """Raise WrongScope for a scope of a role with braces around anything but PLACEHOLDERS."""
    unknown = {name for _, value in scope.query for name in _PLACEHOLDER.findall(value)} - PLACEHOLDERS
    if unknown:
        known = ", ".join(f"`{{{name}}}`" for name in sorted(PLACEHOLDERS))
        raise WrongScope(f"`{{{min(unknown)}}}` in the scope `{scope}` is none of {known}.")


def fill_scopes(scopes: Iterable[ResourceScope], values: Mapping[str, str]) -> tuple[ResourceScope, ...]:
    """A role's scopes for one of its holders. `values`: by placeholder, "" where the holder has none.

    A scope with a placeholder for which there is nothing is left out: it would be about nobody, or about everybody.
    """
    return tuple(filled for scope in scopes if (filled := _fill_scope(scope, values)) is not None)


def _fill_scope(scope: ResourceScope, values: Mapping[str, str]) -> ResourceScope | None:
    needed = {name for _, value in scope.query for name in _PLACEHOLDER.findall(value)}
    if not needed:
        return scope
    if not all(values.get(name) for name in needed):
        return None
    query = ((name, _PLACEHOLDER.sub(lambda match: values[match[1]], value)) for name, value in scope.query)
    return replace(scope, query=tuple(query))
