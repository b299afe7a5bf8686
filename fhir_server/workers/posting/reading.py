"""What the ledger of a patient is made of, read as somebody sees it; whole pages until the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import orjson

from fhir_server.fhir.outcome import TooCostly
from fhir_server.search.query import Clause, Equals, Ids, Query, Scope, Sort
from fhir_server.security.access import Reader
from fhir_server.store.protocol import Page
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.fields import Resource, find_extension, find_reference, make_reference

PAGE = 500
_BYTES = 16 * 1024 * 1024
BY_CHANGE = (Sort("_lastUpdated", "lastUpdated"),)
"""An order in which what follows lies side by side in the database; what is changed meanwhile comes again."""
_TERMS = 200
MOST_READ = 50_000
"""Resources of one kind that an answer about one patient or account may take, and of all kinds those of an account."""
MOST = 10_000
"""Resources of one kind that a decision about one patient may read."""

Find = Callable[[str, Clause], Awaitable[list[Resource]]]
"""(type, clause) → all resources that match."""


async def find_each(reader: Reader, type: str, where: Clause) -> AsyncIterator[Resource]:
    """All resources of a type that match, page after page."""
    async for text in find_texts(reader, type, where):
        yield orjson.loads(text)


async def find_texts(reader: Reader, type: str, where: Clause) -> AsyncIterator[bytes]:
    """All resources of a type that match, as they are written."""
    query: Query | None = Query((Scope(type, where),), count=PAGE, most_bytes=_BYTES)
    while query is not None:
        page = await reader.search(query)
        for match in page.matches:
            yield match.raw or b"{}"
        after = page.next
        query = Query((Scope(type, where),), count=PAGE, after=after, most_bytes=_BYTES) if after is not None else None


async def find_pages(
    reader: Reader, type: str, where: Clause, sort: tuple[Sort, ...] = ()
) -> AsyncGenerator[list[bytes], None]:
    """All resources of a type that match, as they are written, by page; the next is read while one is looked at.

    To be closed (`contextlib.aclosing`) by who does not go on to the end.
    """
    query = Query((Scope(type, where),), sort, count=PAGE, most_bytes=_BYTES)
    following: asyncio.Future[Page] | None = asyncio.ensure_future(reader.search(query))
    try:
        while following is not None:
            page = await following
            following = None
            if page.next is not None:
                following = asyncio.ensure_future(reader.search(replace(query, after=page.next)))
                await asyncio.sleep(0)  # so that it has begun
            yield [match.raw or b"{}" for match in page.matches]
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def find_all(reader: Reader, type: str, where: Clause, most: int | None = None) -> list[Resource]:
    """All resources of a type that match. Raises TooCostly for more than `most`."""
    found: list[Resource] = []
    async for each in find_each(reader, type, where):
        found.append(each)
        if most is not None and len(found) > most:
            text = f"More than {most} resources of type `{type}` would have to be read; narrow the request."
            raise TooCostly(text)
    return found


def find_by(reader: Reader, most: int | None = None) -> Find:
    """Reads as somebody sees it, at most so many resources of a type at once. It raises TooCostly for more."""
    return partial(find_all, reader, most=most)


def find_in(state: State) -> Find:
    """Reads for a decision, which is made again when any of it has changed."""

    async def find(type: str, where: Clause) -> list[Resource]:
        return [dict(each.tree) for each in await state.search(type, where, most=MOST)]

    return find


async def read_patient(find: Find, patient: str) -> dict[str, Resource]:
    """By reference, all that a patient's ledger is derived from; payments hold the details of this patient alone."""
    of_patient = Equals("patient", (patient,))
    found: dict[str, Resource] = {}
    for type in ("ChargeItem", "Claim", "ClaimResponse", "Invoice"):
        found |= {make_reference(each): each for each in await find(type, of_patient)}
    payments = {make_reference(each): each for each in await find("PaymentReconciliation", of_patient)}
    billed = sorted(each for each in found if each.startswith(("Claim/", "Invoice/")))
    for part in cut(billed):
        where = Equals("detail-request", part)
        payments |= {make_reference(each): each for each in await find("PaymentReconciliation", where)}
    names = frozenset(found)
    found |= {reference: select_details(each, names, patient) for reference, each in payments.items()}
    return found | await read_named(find, found.values())


def select_details(payment: Resource, names: frozenset[str], patient: str) -> Resource:
    """A payment with the details that are about these resources or paid by the patient."""
    if find_reference(find_extension(payment, codes.PAYMENT_PATIENT)) == patient:
        return payment
    details = [
        each
        for each in payment.get("detail", ())
        if find_reference(each.get("response")) in names
        or ("response" not in each and find_reference(each.get("request")) in names)
    ]
    return {**payment, "detail": details}


async def read_named(find: Find, resources: Iterable[Resource]) -> dict[str, Resource]:
    """The Coverages of claims, and the Encounters of Appointments that were paid for."""
    kinds = list(resources)
    coverages = {
        find_reference(each.get("coverage")).removeprefix("Coverage/")
        for claim in kinds
        if claim["resourceType"] == "Claim"
        for each in claim.get("insurance", ())
    }
    found: dict[str, Resource] = {}
    for part in cut(sorted(coverages - {""})):
        found |= {make_reference(each): each for each in await find("Coverage", Ids(part))}
    for part in cut(sorted(list_paid_visits(kinds))):
        found |= {make_reference(each): each for each in await find("Encounter", Equals("appointment", part))}
    return found


def list_paid_visits(resources: Iterable[Resource]) -> set[str]:
    """The Appointments that payments by hand name."""
    requests = (
        find_reference(detail.get("request"))
        for each in resources
        if each["resourceType"] == "PaymentReconciliation" and find_extension(each, codes.PAYMENT_PATIENT)
        for detail in each.get("detail", ())
    )
    return {each for each in requests if each.startswith("Appointment/")}


def cut(names: Sequence[str], most: int = _TERMS) -> Iterator[tuple[str, ...]]:
    """The names in parts that a search takes at once."""
    return (tuple(names[start : start + most]) for start in range(0, len(names), most))


async def list_patients(find: Find, account: Resource) -> list[str]:
    """The patients of an Account: its subjects, and those whose charges name it."""
    own = {find_reference(each) for each in account.get("subject", ())}
    charges = await find("ChargeItem", Equals("account", (make_reference(account),)))
    own |= {find_reference(each.get("subject")) for each in charges}
    return sorted(each for each in own if each.startswith("Patient/"))


async def name_if_seen(state: State, reference: str) -> str:
    """A reference as a sentence names it; only its type where the caller may not see that it exists.

    A rule looks at everything, whoever writes: what it says must not tell ids that a search would hide.
    """
    type, _, id = reference.partition("/")
    stored = await state.context.reader(state.caller).read(type, id)
    return f"`{reference}`" if stored is not None and stored.raw is not None else f"another {type}"
