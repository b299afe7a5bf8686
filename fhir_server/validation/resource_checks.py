"""Invariants that compare parts of a resource with each other, which no schema of one object can tell.

Each resource is looked at as JSON text first: most have neither a local reference, nor a narrative, nor a period whose
ends are out of order, and cost one pass over their bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from fhir_server.fhir.datetimes import parse_interval
from fhir_server.validation import narrative

_PAIR = re.compile(rb'"start":"([^"\\]+)","end":"([^"\\]+)"')
_REFERENCE = re.compile(rb'"reference":"#([^"\\]+)"')
_LOCAL = re.compile(rb'"#([^"\\]*)"')
_PERIOD = frozenset({"start", "end", "_start", "_end", "id", "extension"})
_RANGE = frozenset({"low", "high", "id", "extension"})

Node = Mapping[str, Any]


class Break(NamedTuple):
    """A rule that does not hold: its key, the FHIRPath of the object it is about, and what is wrong."""

    key: str
    path: str
    sentence: str


def find_breaks(resource: Any) -> Iterator[Break]:
    """What is broken in a resource that is right in its structure; resources inside a Bundle are looked at as well."""
    type = resource["resourceType"]
    if type == "Bundle":
        yield from _check_bundle(resource)
        return
    text = orjson.dumps(resource)
    if b'"#' in text or "contained" in resource:
        yield from _check_local_references(resource, type, text)
    if b'"div":' in text:
        yield from _walk(resource, type, _check_narrative)
    if not _are_periods_ordered(text):
        yield from _walk(resource, type, _check_period)
    if b'"low":{' in text and b'"high":{' in text:
        yield from _walk(resource, type, _check_range)
    if type in _BY_TYPE:
        yield from _BY_TYPE[type](resource)


def _walk(value: Any, path: str, check: Callable[[Node, str], Iterator[Break]]) -> Iterator[Break]:
    """What a check says of each object, by its path. The depth is bounded, as that of each body."""
    if isinstance(value, dict):
        yield from check(value, path)
        for key, member in value.items():
            if isinstance(member, dict | list):
                yield from _walk(member, f"{path}.{key}", check)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict | list):
                yield from _walk(item, f"{path}[{index}]", check)


def _check_local_references(resource: Node, type: str, text: bytes) -> Iterator[Break]:
    """ref-1 and dom-3: a local reference leads to a contained resource, and each of these is referred to."""
    contained: Sequence[Node] = resource.get("contained", ())
    ids = {each.get("id") for each in contained}
    references = {each.decode() for each in _REFERENCE.findall(text)}
    named = {each.decode() for each in _LOCAL.findall(text)}
    if references <= ids and ids <= named:
        return

    def check(node: Node, path: str) -> Iterator[Break]:
        reference = node.get("reference")
        if isinstance(reference, str) and reference[:1] == "#" and len(reference) > 1 and reference[1:] not in ids:
            yield Break("ref-1", f"{path}.reference", f"`{reference[:80]}` names no contained resource")

    yield from _walk(resource, type, check)
    for index, each in enumerate(contained):
        refers_back = b'"#"' in orjson.dumps(each)
        if each.get("id") not in named and not refers_back:
            path = f"{type}.contained[{index}]"
            yield Break("dom-3", path, "nothing in the resource refers to it by `#` and its id")


def _check_narrative(node: Node, path: str) -> Iterator[Break]:
    div = node.get("div")
    if isinstance(div, str) and "status" in node and (fault := narrative.find_fault(div)):
        yield Break(fault[0], f"{path}.div", f"the narrative {fault[1]}")


def _are_periods_ordered(text: bytes) -> bool:
    """Whether all that ends stands beside its start and is not before it, as far as the text alone tells."""
    ends = text.count(b'"end":"')
    if not ends:
        return True
    pairs = _PAIR.findall(text)
    return len(pairs) == ends and all(_is_before(start, end) for start, end in pairs)


def _is_before(start: bytes, end: bytes) -> bool:
    """Whether two dates are in order: as text where they have one form and one offset."""
    if len(start) == len(end) and start[19:] == end[19:]:
        return start <= end
    return not _is_after(start.decode(), end.decode())


def _is_after(first: Any, second: Any) -> bool:
    """Whether a date is certainly later than another one."""
    try:
        return parse_interval(first)[0] > parse_interval(second)[1]
    except (ValueError, TypeError):
        return False


def _check_period(node: Node, path: str) -> Iterator[Break]:
    if "start" in node and "end" in node and node.keys() <= _PERIOD and _is_after(node["start"], node["end"]):
        yield Break("per-1", path, f"the period ends ({node['end']}) before it starts ({node['start']})")


def _check_range(node: Node, path: str) -> Iterator[Break]:
    if "low" not in node or not node.keys() <= _RANGE or "referenceRange" in path.rpartition(".")[2]:
        return
    low, high = node["low"], node.get("high")
    if not isinstance(low, dict) or not isinstance(high, dict) or "value" not in low or "value" not in high:
        return
    units = [(each.get("system"), each.get("code", each.get("unit"))) for each in (low, high)]
    if units[0] == units[1] and low["value"] > high["value"]:
        yield Break("rng-2", path, "`low` is above `high`")


def _check_observation(resource: Node) -> Iterator[Break]:
    """obs-7: a component repeats the code of an Observation only where that has no value."""
    components = resource.get("component", ())
    if not components or not any(key.startswith("value") for key in resource):
        return
    own = resource["code"].get("coding", ())
    for index, component in enumerate(components):
        if any(coding in own for coding in component.get("code", {}).get("coding", ())):
            path = f"Observation.component[{index}].code"
            yield Break("obs-7", path, "it is the code of the Observation, which has a value of its own")


def _check_order(earlier: str, later: str, key: str) -> Callable[[Node], Iterator[Break]]:
    def check(resource: Node) -> Iterator[Break]:
        if earlier in resource and later in resource and _is_after(resource[earlier], resource[later]):
            path = f"{resource['resourceType']}.{later}"
            yield Break(key, path, f"it is before `{earlier}`")

    return check


def _check_questionnaire(resource: Node) -> Iterator[Break]:
    """que-2: each linkId stands once."""
    yield from _check_distinct(resource, "Questionnaire", "item", "linkId", "que-2")


def _check_code_system(resource: Node) -> Iterator[Break]:
    """csd-1: each code stands once."""
    yield from _check_distinct(resource, "CodeSystem", "concept", "code", "csd-1")


def _check_distinct(resource: Node, path: str, members: str, name: str, key: str) -> Iterator[Break]:
    seen: set[object] = set()
    waiting = [(resource, path)]
    while waiting:
        node, path = waiting.pop()
        for index, member in enumerate(node.get(members, ())):
            value, place = member.get(name), f"{path}.{members}[{index}]"
            if value is not None and value in seen:
                yield Break(key, f"{place}.{name}", f"`{value}` stands more than once")
            seen.add(value)
            waiting.append((member, place))


def _check_bundle(bundle: Node) -> Iterator[Break]:
    """bdl-7, bdl-11 and bdl-12, and each resource by itself."""
    entries: Sequence[Node] = bundle.get("entry", ())
    seen: set[tuple[str, object]] = set()
    for index, entry in enumerate(entries):
        path, resource = f"Bundle.entry[{index}]", entry.get("resource")
        version = resource.get("meta", {}).get("versionId") if resource else None
        if "fullUrl" in entry and bundle["type"] != "history":
            named = entry["fullUrl"], version
            if named in seen:
                yield Break("bdl-7", f"{path}.fullUrl", "it stands more than once for one version")
            seen.add(named)
        for each in find_breaks(resource) if resource else ():
            _, dot, rest = each.path.partition(".")
            yield each._replace(path=f"{path}.resource{dot}{rest}")
    first = entries[0].get("resource", {}).get("resourceType") if entries else None
    for kind, type, key in (("document", "Composition", "bdl-11"), ("message", "MessageHeader", "bdl-12")):
        if bundle["type"] == kind and first != type:
            yield Break(key, "Bundle.entry[0].resource", f"a {kind} begins with a {type}")


_BY_TYPE: Mapping[str, Callable[[Node], Iterator[Break]]] = {
    "Observation": _check_observation,
    "Task": _check_order("authoredOn", "lastModified", "inv-1"),
    "MedicationDispense": _check_order("whenPrepared", "whenHandedOver", "mdd-1"),
    "Questionnaire": _check_questionnaire,
    "CodeSystem": _check_code_system,
}
