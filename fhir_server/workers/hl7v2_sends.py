"""Which changes a partner is sent, by the table `hl7v2.out.send` of its file (docs/mappers/hl7v2-out.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import orjson

from fhir_server.fhir.outcome import FhirError
from fhir_server.partners import Partner, Partners
from fhir_server.partners.hl7v2 import Hl7v2OutSection, Hl7v2Send
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import STRICT
from fhir_server.requests.request import parse_query
from fhir_server.search.entries import Entries
from fhir_server.search.parameters import Criteria
from fhir_server.search.parse import parse
from fhir_server.search.query import (
    EVERYTHING,
    CanonicalChain,
    CanonicalHas,
    Chain,
    Clause,
    Has,
    iterate_children,
)
from fhir_server.search.result_parameters import PARAMETERS
from fhir_server.security.check import allows_entries
from fhir_server.store.protocol import Stored
from mappers.hl7v2.outbound.message import EVENTS

FOCUSES = {
    "ADT": ("Patient", "Encounter"),
    "SIU": ("Appointment",),
    "ORU": ("DiagnosticReport",),
    "DFT": ("ChargeItem", "Encounter", "Patient"),
    "RDE": ("MedicationRequest", "Task"),
    "OMP": ("MedicationRequest",),
}
"""What the messages of a family are about."""

ANSWER_EVENT = "RDE^O11"
"""The event of answers to what a partner asked for a prescription."""

MakeEntries = Callable[[str, dict[str, Any], str], Entries]
"""(type, resource, base URL) → its index entries."""


class WrongFilter(ValueError):
    """A filter cannot tell which versions are meant; str is a full sentence."""


class SendRow(NamedTuple):
    """A row of a partner's table with its filter as a clause."""

    partner: str
    row: Hl7v2Send
    where: Clause


def find_out_section(partner: Partner | None) -> Hl7v2OutSection | None:
    """What is sent to a partner; None where nothing is."""
    return partner.hl7v2.out if partner is not None and partner.hl7v2 is not None else None


def parse_filter(type: str, text: str, criteria: Criteria) -> Clause:
    """The clause of a filter, which looks at the resource alone. Raises WrongFilter."""
    pairs = parse_query(text)
    for name, _ in pairs:
        if name.partition(":")[0] in PARAMETERS:
            raise WrongFilter(f"`{name}` says how to answer a search, not which resources are meant.")
    if not pairs:
        return EVERYTHING
    try:
        where = parse((type,), pairs, criteria, STRICT).query.scopes[0].where
    except FhirError as error:
        raise WrongFilter(str(error)) from None
    if _follows_links(where):
        raise WrongFilter(f"`{text}` looks at other resources; a filter looks at the {type} alone.")
    return where


def _follows_links(clause: Clause) -> bool:
    linked = isinstance(clause, Chain | Has | CanonicalChain | CanonicalHas)
    return linked or any(map(_follows_links, iterate_children(clause)))


def read_rows(partners: Partners, criteria: Criteria) -> list[SendRow]:
    """The rows of all partners. Raises WrongFilter; `list_send_faults` says before that there is none."""
    rows = []
    for partner in partners.values():
        out = find_out_section(partner)
        for row in out.send if out is not None else ():
            rows.append(SendRow(partner.name, row, parse_filter(row.type, row.filter, criteria)))
    return rows


def list_send_faults(partners: Partners, types: Iterable[str], criteria: Criteria) -> Iterator[str]:
    """What is wrong with the tables `hl7v2.out` beyond their schema: file, line, key and reason of each fault."""
    served = frozenset(types)
    for partner in partners.values():
        out = find_out_section(partner)
        for number, row in enumerate(out.send if out is not None else ()):
            for key, reason in _list_row_faults(row, served, criteria):
                place = partner.locate("hl7v2", "out", "send", number, key)
                yield f"{place}`hl7v2.out.send.{number}.{key}`: {reason}"


def _list_row_faults(row: Hl7v2Send, served: frozenset[str], criteria: Criteria) -> Iterator[tuple[str, str]]:
    family, _, event = row.event.partition("^")
    if event not in EVENTS.get(family, ()):
        known = ", ".join(f"{name}^{each}" for name, events in EVENTS.items() for each in sorted(events))
        yield "event", f"{row.event} is not written here; {known} are."
    elif row.type not in FOCUSES.get(family, (row.type,)):
        yield "type", f"{family} is about {' or '.join(FOCUSES[family])}; it is `{row.type}`."
    elif row.type == "Task" and row.event != ANSWER_EVENT:
        yield "event", f"What a Task answers is sent as {ANSWER_EVENT}; it is `{row.event}`."
    if row.type not in served:
        yield "type", f"This server has no type `{row.type}`."
        return
    try:
        parse_filter(row.type, row.filter, criteria)
    except WrongFilter as error:
        yield "filter", f"{error} It is `{row.filter}`."


def check_sends(context: Context) -> None:
    """Raise ValueError with every fault of the tables of the partners' files."""
    faults = list(list_send_faults(context.partners, context.types, context.criteria(context.settings.base_url)))
    if faults:
        raise ValueError("\n".join(faults))


def choose_row(
    rows: Iterable[SendRow], version: Stored, before: Stored | None, make_entries: MakeEntries
) -> SendRow | None:
    """The first row of one partner that the change to a version is of; `before` is the version before it, if any."""
    after = _Matches(version, make_entries)
    earlier = _Matches(before, make_entries) if before is not None and before.raw is not None else None
    for each in rows:
        if each.row.type != version.type or not after.include(each.where):
            continue
        if each.row.change == "any":
            return each
        was = earlier is not None and earlier.include(each.where)
        if was == (each.row.change == "later"):
            return each
    return None


class _Matches:
    """A version with its index entries, which are made when they are asked for."""

    def __init__(self, version: Stored, make_entries: MakeEntries) -> None:
        self._version = version
        self._make_entries = make_entries
        self._entries: Entries | None = None

    def include(self, where: Clause) -> bool:
        """Whether the version matches."""
        if where == EVERYTHING:
            return True
        if self._entries is None:
            tree = orjson.loads(self._version.raw or b"{}")
            self._entries = self._make_entries(self._version.type, tree, "")
        return allows_entries(where, self._version.type, self._version.id, self._entries)
