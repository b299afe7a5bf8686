"""What the books of the whole practice are made of, as somebody sees it."""

from __future__ import annotations

from collections.abc import Mapping

from fhir_server.fhir.outcome import TooCostly
from fhir_server.search.query import EVERYTHING
from fhir_server.security.access import Reader
from fhir_server.workers.posting.reading import find_by, find_each, read_named
from mappers.billing.fields import Resource, make_reference

MOST = 200_000
"""Resources that a report may read."""

# In this order, since each kind is stored after those that it names: what an active payment names is there, then.
_ELEMENTS: Mapping[str, tuple[str, ...]] = {
    "PaymentReconciliation": ("status", "extension", "paymentIssuer", "detail"),
    "ClaimResponse": ("identifier", "request", "total", "item", "addItem", "adjudication"),
    "Invoice": ("status", "extension", "lineItem"),
    "Claim": (
        "status",
        "created",
        "patient",
        "insurer",
        "insurance",
        "careTeam",
        "provider",
        "facility",
        "item",
    ),
    "ChargeItem": (
        "status",
        "enteredDate",
        "priceOverride",
        "occurrenceDateTime",
        "occurrencePeriod",
        "performer",
        "account",
        "subject",
        "quantity",
    ),
}
"""The elements of which the books are made; the rest is not kept."""


async def read_practice(reader: Reader, most: int | None = MOST) -> dict[str, Resource]:
    """By reference, all that the ledger is derived from. Raises TooCostly for more than `most` resources."""
    found: dict[str, Resource] = {}
    for type, elements in _ELEMENTS.items():
        async for each in find_each(reader, type, EVERYTHING):
            kept = {name: each[name] for name in ("resourceType", "id", *elements) if name in each}
            found[make_reference(each)] = kept
            if most is not None and len(found) > most:
                text = (
                    f"The report would read more than {most} resources. Run it as `fhir-server report` on the server."
                )
                raise TooCostly(text)
    return found | await read_named(find_by(reader), found.values())
