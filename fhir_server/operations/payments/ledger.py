"""`Account/$ledger` and `Patient/id/$balance`: derived from what is stored, the same for a day whenever it is asked."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Any

import orjson

from fhir_server.fhir.outcome import Invalid, NotFound, TooCostly
from fhir_server.operations.scheduling.parameters import Parameters, read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.posting.reading import MOST_READ, find_by, list_patients, read_patient
from fhir_server.workers.posting.writes import encode, read_today
from mappers.billing.balances import sum_balances
from mappers.billing.fields import ZERO, Resource, make_money
from mappers.billing.ledger import ADJUSTMENT, CHARGE, PAYMENT, REFUND, Books, Entry, list_entries, make_books

CSV = "text/csv"
SIZE_OF_ONE = 512
"""Bytes as which a resource counts where it is decided whether what is computed of it is computed on a thread."""

_COLUMNS = ("date", "kind", "amount", "balance", "claim", "line", "payer", "reason")


async def ledger(context: Context, request: Request) -> Response:
    """The entries of an account or a claim until a day, each with the balance after it; as Parameters or CSV."""
    asked = read_parameters(context, request, ("account", "patient", "claim", "date"))
    day = read_day(context, asked, "date")
    account = f"Account/{request.path[1]}" if len(request.path) == 3 else asked.reference("account")
    claim = asked.reference("claim")
    patients = await _find_patients(context, request, account, claim or asked.reference("patient"))
    money = await read_money(context, request, patients)

    def write() -> bytes:
        books = make_books(money)
        entries = [entry for entry in list_entries(books, day) if _belongs(books, entry, account, claim)]
        return _write_csv(entries) if request.media_type == CSV else encode(_to_parameters(entries, day))

    body = await context.long_work.run(SIZE_OF_ONE * len(money), write)
    return Response(200, body, content_type=CSV) if request.media_type == CSV else Response(200, body)


async def balance(context: Context, request: Request) -> Response:
    """What a patient's charges, payments and adjustments add up to on a day, and whose the open amounts are."""
    asked = read_parameters(context, request, ("date",))
    day, patient = read_day(context, asked, "date"), f"Patient/{request.path[1]}"
    await need_stored(context, request, patient)
    money = await read_money(context, request, [patient])
    parameters = await context.long_work.run(SIZE_OF_ONE * len(money), _balance, money, day)
    return Response(200, encode({"resourceType": "Parameters", "parameter": parameters}))


def _balance(money: dict[str, Resource], day: date) -> list[Resource]:
    books = make_books(money)
    entries = list(list_entries(books, day))
    sums = {kind: sum((e.amount for e in entries if e.kind == kind), ZERO) for kind in (CHARGE, PAYMENT, ADJUSTMENT)}
    refunds = sum((e.amount for e in entries if e.kind == REFUND), ZERO)
    parameters = [
        {"name": "date", "valueDate": str(day)},
        _money("charges", sums[CHARGE]),
        _money("payments", -sums[PAYMENT]),
        _money("adjustments", -sums[ADJUSTMENT]),
        _money("refunds", refunds),
        _money("balance", sum((e.amount for e in entries), ZERO)),
        _money("patient-balance", sum_balances(books, day, "payer").get("patient", ZERO)),
    ]
    return parameters + [
        {"name": "payer", "part": [{"name": "reference", "valueString": payer}, _money("balance", amount)]}
        for payer, amount in sorted(sum_balances(books, day, "payer").items())
        if payer != "patient"
    ]


def read_day(context: Context, asked: Parameters, name: str, default: date | None = None) -> date:
    """A day of a parameter, today where it is left out. Raises Invalid."""
    text = asked.text(name)
    if not text:
        return default or read_today(context)
    try:
        return date.fromisoformat(text)
    except ValueError:
        text = f"`{name}` is a day such as 2026-03-31, not `{text}`."
        raise Invalid(text, code="value", expression=(name,)) from None


async def need_stored(context: Context, request: Request, reference: str) -> Resource:
    """A resource that the caller may see. Raises NotFound."""
    found = (await context.reader(request.caller).read_many([reference])).get(reference)
    if found is None or found.raw is None:
        raise NotFound(f"There is no `{reference}` on this server.")
    tree: Resource = orjson.loads(found.raw)
    return tree


async def _find_patients(context: Context, request: Request, account: str, other: str) -> list[str]:
    """The patients whose resources tell of an Account, of a claim, or the patient that is named."""
    if account:
        found = await need_stored(context, request, account)
        return await list_patients(find_by(context.reader(request.caller), MOST_READ), found)
    if not other:
        text = "`$ledger` needs to know whose: call it on an Account, or name an `account`, a `claim` or a `patient`."
        raise Invalid(text, code="required", expression=("account",))
    found = await need_stored(context, request, other)
    return [other] if other.startswith("Patient/") else [(found.get("patient") or {}).get("reference", "")]


async def read_money(context: Context, request: Request, patients: Iterable[str]) -> dict[str, Resource]:
    """By reference, what the books of these patients are made of, as the caller may see it."""
    find = find_by(context.reader(request.caller), MOST_READ)
    found: dict[str, Resource] = {}
    for patient in patients:
        for reference, each in (await read_patient(find, patient)).items():
            if reference in found and each["resourceType"] == "PaymentReconciliation":
                details = [*found[reference].get("detail", ())]
                seen = set(map(encode, details))
                details += [detail for detail in each.get("detail", ()) if encode(detail) not in seen]
                each = {**each, "detail": details}
            found[reference] = each
        if len(found) > MOST_READ:
            text = f"More than {MOST_READ} resources tell of this account; ask for one `patient` or `claim` of it."
            raise TooCostly(text)
    return found


def _belongs(books: Books, entry: Entry, account: str, claim: str) -> bool:
    root = books.roots[entry.root]
    return (not account or root.account == account) and (not claim or entry.root == books.root_of_claim.get(claim))


def _money(name: str, amount: Decimal) -> dict[str, Any]:
    return {"name": name, "valueMoney": make_money(amount)}


def _list_rows(entries: Iterable[Entry]) -> Iterable[tuple[Entry, Decimal]]:
    so_far = ZERO
    for entry in entries:
        so_far += entry.amount
        yield entry, so_far


def _to_parameters(entries: list[Entry], day: date) -> Resource:
    parameters: list[dict[str, Any]] = [{"name": "date", "valueDate": str(day)}]
    total = ZERO
    for entry, total in _list_rows(entries):
        texts = (("claim", entry.root), ("line", entry.line), ("payer", entry.payer), ("reason", entry.reason))
        part = [
            {"name": "date", "valueDate": str(entry.day)},
            {"name": "kind", "valueCode": entry.kind},
            _money("amount", entry.amount),
            _money("balance", total),
            *({"name": name, "valueString": text} for name, text in texts if text),
        ]
        parameters.append({"name": "entry", "part": part})
    return {"resourceType": "Parameters", "parameter": [*parameters, _money("balance", total)]}


def _write_csv(entries: Iterable[Entry]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for each, total in _list_rows(entries):
        amounts = (f"{each.amount:.2f}", f"{total:.2f}")
        writer.writerow((each.day, each.kind, *amounts, each.root, each.line, each.payer, each.reason))
    return text.getvalue().encode()
