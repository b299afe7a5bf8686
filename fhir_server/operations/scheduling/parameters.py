"""The parameters of the scheduling operations, from the query or a Parameters body (IHE Scheduling names them)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from fhir_server.fhir.datetimes import parse_interval
from fhir_server.fhir.outcome import Invalid, Issue
from fhir_server.fhir.resource import parse
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request
from fhir_server.search.parse import NOT_SEARCHED
from mappers.scheduling.clashes import OVERRIDES
from mappers.scheduling.elements import Resource, list_codings, target_of


@dataclass(frozen=True, slots=True)
class Parameters:
    """The values of each parameter in their order: text, numbers, JSON objects of FHIR types, resources, parts."""

    operation: str
    values: Mapping[str, list[Any]]

    def find(self, name: str) -> Any:
        """The only value, or None. Raises Invalid for several."""
        values = self.values.get(name, [])
        if len(values) > 1:
            raise Invalid(f"`{name}` may be given once.", code="value", expression=(name,))
        return values[0] if values else None

    def text(self, name: str) -> str:
        """The only value as text; empty without one."""
        value = self.find(name)
        if isinstance(value, dict | list):
            raise Invalid(f"`{name}` needs a simple value.", code="value", expression=(name,))
        return "" if value is None else str(value)

    def resource(self, name: str, type: str) -> Resource | None:
        """The resource of a parameter. Raises Invalid for another type."""
        value = self.find(name)
        if value is not None and (not isinstance(value, dict) or value.get("resourceType") != type):
            raise Invalid(f"`{name}` needs {_with_article(type)} in `resource`.", code="value", expression=(name,))
        return value

    def references(self, name: str) -> list[str]:
        """`Type/id` of each value, written as text or as a Reference; each once."""
        return list(dict.fromkeys(self._reference(name, value) for value in self.values.get(name, [])))

    def reference(self, name: str) -> str:
        """The only value as `Type/id`; empty without one."""
        value = self.find(name)
        return "" if value is None else self._reference(name, value)

    def _reference(self, name: str, value: Any) -> str:
        found = target_of({"reference": value} if isinstance(value, str) else value)
        if not found:
            raise Invalid(f"`{name}` needs a reference such as `Practitioner/1`.", code="value", expression=(name,))
        return found

    def codes(self, name: str) -> list[frozenset[str]]:
        """`system|code` of each value; text without a system is `|code` and stands for any system."""
        found = []
        for value in self.values.get(name, []):
            concept = value if isinstance(value, dict) and "coding" in value else {"coding": [value]}
            codings = list_codings(concept) if isinstance(value, dict) else [value if "|" in value else f"|{value}"]
            found.append(frozenset(codings))
        return found

    def instant(self, name: str, zone: tzinfo, end: bool = False) -> int | None:
        """µs of a dateTime; a day without time is taken in the zone, as an `end` up to its last instant."""
        text = self.text(name)
        if not text:
            return None
        try:
            low, high = parse_interval(text, zone)
        except ValueError as error:
            raise Invalid(f"`{name}`: {error}", code="value", expression=(name,)) from None
        return high + 1 if end and "T" not in text else low

    def number(self, name: str) -> int | None:
        """A whole number of at least 1."""
        text = self.text(name)
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) > 0):
            raise Invalid(
                f"`{name}` must be a whole number of at least 1, not `{text}`.", code="value", expression=(name,)
            )
        return int(text)

    def flag(self, name: str) -> bool:
        """A boolean; false without one."""
        text = self.text(name).lower()
        if text not in ("", "true", "false"):
            raise Invalid(f"`{name}` is `true` or `false`.", code="value", expression=(name,))
        return text == "true"

    def parts(self, name: str) -> Parameters | None:
        """The parts of a parameter."""
        value = self.find(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise Invalid(f"`{name}` consists of parts.", code="value", expression=(name,))
        return Parameters(name, _collect(value))

    def override(self) -> tuple[frozenset[str], str]:
        """(kinds, reason). Raises Invalid for an unknown kind, or without a reason."""
        kinds, reason = frozenset(map(str, self.values.get("override", []))), self.text("reason")
        issues = []
        if kinds - OVERRIDES.keys():
            text = f"`{min(kinds - OVERRIDES.keys())}` cannot be overridden; there are {', '.join(OVERRIDES)}."
            issues.append(Issue("error", "value", text, ("override",)))
        if kinds and not reason.strip():
            issues.append(Issue("error", "required", "An override needs a reason; say why in `reason`.", ("reason",)))
        if issues:
            raise Invalid(issues=issues)
        return kinds, reason


def _with_article(type: str) -> str:
    return f"an {type}" if type[0] in "AEIO" else f"a {type}"


def read_parameters(context: Context, request: Request, names: Iterable[str]) -> Parameters:
    """The parameters of a request. Raises Invalid for one that the operation does not have."""
    operation = request.path[-1]
    values: dict[str, list[Any]] = {}
    for name, value in request.query:
        if name not in NOT_SEARCHED:
            values.setdefault(name, []).append(value)
    if request.method == "POST" and request.body:
        tree = parse(request.body).tree
        if tree.get("resourceType") != "Parameters":
            raise Invalid("The body of an operation has to be a Parameters resource.", code="structure")
        issues = [each for each in context.validator.find_issues(tree) if not _is_inside(each)]
        if issues:
            raise Invalid(issues=issues)
        for name, found in _collect(tree.get("parameter", [])).items():
            values.setdefault(name, []).extend(found)
    known = set(names)
    unknown = sorted(values.keys() - known)
    if unknown:
        listed = ", ".join(f"`{each}`" for each in sorted(known) if not each.startswith("__"))
        text = f"`{operation}` has no parameter `{unknown[0]}`; it has {listed}."
        raise Invalid(text, code="not-supported", expression=(unknown[0],))
    return Parameters(operation, values)


def _is_inside(issue: Issue) -> bool:
    """Whether an issue is about a resource that is still to be completed and is checked when it is written."""
    return any(".resource." in f"{path}." for path in issue.expression)


def _collect(parts: Iterable[Resource]) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {}
    for part in parts:
        value = next((value for name, value in part.items() if name.startswith("value")), None)
        if value is None:
            value = part.get("resource", part.get("part"))
        if value is None:
            raise Invalid(f"The parameter `{part['name']}` has no value.", code="value", expression=(part["name"],))
        values.setdefault(part["name"], []).append("true" if value is True else "false" if value is False else value)
    return values


def zone_of(context: Context) -> tzinfo:
    """The practice's zone, in which days are read."""
    return UTC if context.settings.time_zone == "UTC" else ZoneInfo(context.settings.time_zone)
