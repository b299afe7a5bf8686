"""How much a write adds to the index, and the limits on it: while it is written nobody else can write."""

from __future__ import annotations

from collections.abc import Iterable

from fhir_server.fhir.outcome import TooCostly
from fhir_server.search.entries import SEPARATOR, Entries
from fhir_server.search.trigrams import LONGEST
from fhir_server.settings import Settings
from fhir_server.store.operations import Write

COUNTED_FROM = 16 * 1024
"""Bytes of a resource from which its index rows are counted: no smaller one comes near the limit."""


def count_rows(entries: Entries) -> int:
    """The rows of the index that a resource takes at most: one for each entry, and one for each trigram of a string."""
    rows = _count_values(entries)
    for code in entries.strings.intersection(entries.terms):
        lengths = (term.find(SEPARATOR) for term in entries.terms[code])
        rows += sum(1 if length > LONGEST else length for length in lengths)
    return rows


def _count_rows_at_most(entries: Entries) -> int:
    """Quickly counted, what the rows are not more than: all strings as if each of their letters began a trigram."""
    terms = entries.terms
    return _count_values(entries) + sum(sum(map(len, terms[code])) for code in entries.strings if code in terms)


def _count_values(entries: Entries) -> int:
    rows = len(entries.references)
    for values in (entries.terms, entries.dates, entries.numbers):
        if values:
            rows += sum(map(len, values.values()))
    return rows


def check_resource(entries: Entries, settings: Settings, reference: str) -> None:
    """Refuse a resource with more index rows than one may have."""
    if (rows := count_rows(entries)) > settings.max_entries:
        raise TooCostly(
            f"`{reference}` would take {rows:,} rows of the index, more than the {settings.max_entries:,} that one "
            "resource may take (setting `max_entries`): it repeats what can be searched too often. Divide it."
        )


def check_transaction(writes: Iterable[Write], settings: Settings) -> None:
    """Refuse a transaction with more index rows than one may have."""
    listed = [write.entries for write in writes]
    if sum(map(_count_rows_at_most, listed)) <= settings.max_transaction_entries:
        return
    rows = sum(map(count_rows, listed))
    if rows > settings.max_transaction_entries:
        raise TooCostly(
            f"The transaction would take {rows:,} rows of the index, more than the "
            f"{settings.max_transaction_entries:,} that one may take (setting `max_transaction_entries`), and nothing "
            "was written; send it in parts."
        )
