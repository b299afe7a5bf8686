"""A change is applied to the resource as it is: what the message does not speak of stays.

Rules of `docs/mappers/hl7v2.md`: identifiers are added to; entries of a list that came from the same field of the same
partner are replaced; an absent field changes nothing; two quotes delete.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from mappers.hl7v2.changes import Change, Resource, find_choice
from mappers.hl7v2.rows import find_source

WHOLE = frozenset({"coding", "reference", "value", "text", "display"})
"""Members by which an object is one value; other objects, such as periods, are completed member by member."""


CONTRADICTED = {
    "value": ("component", "dataAbsentReason"),
    "component": ("value", "dataAbsentReason"),
    "dataAbsentReason": ("value", "component"),
}
"""An Observation has one value, several as components, or a reason why it has none."""


def apply_change(current: Resource, change: Change) -> Resource:
    """The resource after the change; the same object where nothing differs."""
    result = dict(current)
    for path in change.delete:
        result = _delete(result, path)
    sources = frozenset(change.sources)
    for name, value in change.resource.items():
        if name in ("resourceType", "id"):
            continue
        _drop_other_choices(result, name, change.resource)
        _drop_contradicted(result, name)
        result[name] = _join(result.get(name), value, name, change, sources)
    for name in [name for name, value in result.items() if isinstance(value, list) and name not in change.resource]:
        _set(result, name, [each for each in result[name] if not _is_of(each, sources)])
    return current if is_same(result, current) else result


def is_same(one: Any, other: Any) -> bool:
    """Whether two JSON trees say the same; a number of one may be a Decimal and of the other a float."""
    if one == other:  # nearly always, and quickly told
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if _are_numbers(one, other):
        return Decimal(str(one)) == Decimal(str(other))
    return False


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(each, int | float | Decimal) and not isinstance(each, bool) for each in values)


DELETION = re.compile(r"([\w.]+)(?:\{(.*)\}|\|(.*))?")


def _delete(tree: Resource, path: str) -> Resource:
    """A copy without what a path of `rows.write_deletion` names; identifiers are never taken away."""
    found = DELETION.fullmatch(path)
    if not found or found[1] == "identifier":
        return tree
    names, url, source = found.groups()
    name, _, rest = names.partition(".")
    result = dict(tree)
    present = result.get(name)
    if rest:
        if isinstance(present, dict):
            _set(result, name, _delete(present, path[len(name) + 1 :]))
    elif url is not None and isinstance(present, list):
        _set(result, name, [each for each in present if each.get("url") != url])
    elif source and isinstance(present, list):
        _set(result, name, [each for each in present if find_source(each) != source])
    else:
        _set(result, name, None)
    return result


def _set(result: Resource, name: str, value: Any) -> None:
    if value:
        result[name] = value
    else:
        result.pop(name, None)
        result.pop(f"_{name}", None)


def _is_of(entry: Any, sources: frozenset[str]) -> bool:
    source = find_source(entry)
    return bool(source) and source in sources


def _drop_other_choices(result: Resource, name: str, addition: Resource) -> None:
    if choice := find_choice(name):
        for other in [each for each in result if find_choice(each.lstrip("_")) == choice and each not in addition]:
            del result[other]


def _drop_contradicted(result: Resource, name: str) -> None:
    """What an element of an Observation that is told now leaves no room for (obs-6 and obs-7 of R4)."""
    if result["resourceType"] == "Observation":
        for gone in CONTRADICTED.get("value" if name.startswith("value") else name, ()):
            for other in [each for each in result if each.lstrip("_").startswith(gone)]:
                del result[other]


def _join(present: Any, value: Any, name: str, change: Change, sources: frozenset[str]) -> Any:
    if present is None:
        return value
    if isinstance(value, list) and isinstance(present, list):
        return _join_lists(present, value, name, change, sources)
    if isinstance(value, dict) and isinstance(present, dict) and not value.keys() & WHOLE:
        joined = dict(present)
        for inner, each in value.items():
            _drop_other_choices(joined, inner, value)
            joined[inner] = _join(joined.get(inner), each, inner, change, sources)
        return joined
    return value


def _join_lists(present: list[Any], value: list[Any], name: str, change: Change, sources: frozenset[str]) -> list[Any]:
    if name == "identifier":
        return _join_identifiers(present, value)
    if name == "extension":
        return _join_extensions(present, value)
    mode = change.lists.get(name, "replace")
    if mode in ("add", "remove"):
        keys = {_find_key(each) for each in value}
        others = [each for each in present if _find_key(each) not in keys]
        return others if mode == "remove" else [*others, *value]
    if any(find_source(each) for each in value):
        return [each for each in present if not _is_of(each, sources)] + value
    return value


def _join_extensions(present: list[Resource], value: list[Resource]) -> list[Resource]:
    """The extensions told take the place of those with their URL; the others stay where they are."""
    told: dict[str, list[Resource]] = {}
    for each in value:
        told.setdefault(each["url"], []).append(each)
    urls = set(told)
    joined = []
    for each in present:
        joined += told.pop(each["url"], []) if each["url"] in urls else [each]
    return joined + [each for rest in told.values() for each in rest]


def _join_identifiers(present: list[Resource], value: list[Resource]) -> list[Resource]:
    """The identifiers told take the place of those that they are; a number that a merge retired stays retired."""
    uses = {_name(each): each.get("use") for each in present}
    told = {_name(each) for each in value}
    others = [each for each in present if _name(each) not in told]
    return others + [{"use": "old", **each} if uses.get(_name(each)) == "old" else each for each in value]


def _name(identifier: Resource) -> tuple[str | None, str | None]:
    return identifier.get("system"), identifier.get("value")


def _find_key(entry: Any) -> str:
    """By what a participant, Slot or service of an appointment is the same."""
    if isinstance(entry, dict):
        reference = entry.get("reference") or entry.get("actor", {}).get("reference")
        return str(reference or entry)
    return str(entry)
