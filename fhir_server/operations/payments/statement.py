"""`Account/id/$statement`: what is open of an account and what its guarantor is to pay, as a letter or Parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import orjson

from fhir_server.fhir.outcome import NotImplementedHere
from fhir_server.operations.payments.ledger import SIZE_OF_ONE, need_stored, read_day, read_money
from fhir_server.operations.scheduling.parameters import read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.posting.reading import MOST_READ, find_by, list_patients
from fhir_server.workers.posting.writes import encode
from mappers.billing.fields import Resource
from mappers.billing.ledger import make_books
from mappers.billing.parties import find_address
from mappers.billing.statement_pdf import draw_statement
from mappers.billing.statements import (
    Statement,
    find_guarantor,
    make_statement,
    make_statement_parameters,
    write_statement,
)
from mappers.scheduling.day_sheet import name_whole

TEXT, PDF = "text/plain", "application/pdf"


async def statement(context: Context, request: Request) -> Response:
    """200 with the statement of a day, today where it is left out."""
    asked = read_parameters(context, request, ("date",))
    day, account = read_day(context, asked, "date"), f"Account/{request.path[1]}"
    tree = await need_stored(context, request, account)
    reader = context.reader(request.caller)
    patients = await list_patients(find_by(reader, MOST_READ), tree)
    money = await read_money(context, request, patients)
    size = SIZE_OF_ONE * len(money)
    found = await context.long_work.run(size, lambda: make_statement(make_books(money), account, patients, day))
    guarantor = find_guarantor(tree, day)
    people = {guarantor, *patients, *(line.root.provider for line in found.lines)} - {""}
    stored = await reader.read_many(sorted(people))
    directory = {each: orjson.loads(one.raw) for each, one in stored.items() if one.raw is not None}
    names = {each: name_whole(each, directory) for each in people}
    address = [names.get(guarantor, ""), *_list_address(directory.get(guarantor, {}))]

    def write() -> Response:
        if request.media_type == PDF:
            return _draw(found, request.path[1], address, names)
        text = write_statement(found, request.path[1], address, names)
        if request.media_type == TEXT:
            return Response(200, text.encode(), content_type=f"{TEXT}; charset=utf-8")
        return Response(200, encode(make_statement_parameters(found, guarantor, text)))

    return await context.long_work.run(size, write)


def _draw(found: Statement, account: str, address: list[str], names: Mapping[str, str]) -> Response:
    try:
        body = draw_statement(found, account, address, names)
    except ImportError:
        text = "PDF needs ReportLab: `pip install 'fhir-server[pdf]'`. The letter comes as text/plain without it."
        raise NotImplementedHere(text) from None
    return Response(200, body, content_type=PDF)


def _list_address(person: Resource) -> Iterator[str]:
    """The lines of an envelope."""
    address = find_address(person)
    yield from map(str, address.get("line", ()))
    place = " ".join(str(address[name]) for name in ("state", "postalCode") if name in address)
    yield ", ".join(each for each in (str(address.get("city", "")), place) if each)
