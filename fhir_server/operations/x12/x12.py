"""`$x12`: interchanges by HTTP, answered in X12 or in FHIR (docs/x12.md)."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from fhir_server.fhir.bundle import write_bundle
from fhir_server.fhir.outcome import Invalid, Issue, build_operation_outcome
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.x12_answers import answer_interchange
from fhir_server.workers.x12_intake import EDI_X12, Source, TakenInterchange, read_file, take_interchange
from mappers.x12.fault import fault_to_issue


async def x12(context: Context, request: Request) -> Response:
    """200 with the Tasks of the sets as a Bundle, or with TA1 and 999, 204 where X12 has nothing to say.

    What is refused is told in them. Raises Invalid for an unknown partner and for bytes that are in no interchange.
    """
    partner = _read_partner(context, request)
    found = await read_file(context, request.body)
    if found.outside:
        raise Invalid(issues=[fault_to_issue(each) for each in found.outside])
    source = Source(context, request.base, partner)
    taken = [await take_interchange(source, request.body, each) for each in found.interchanges]
    if request.media_type != EDI_X12:
        return Response(200, await _write_tasks(context, request, taken))
    answers = [await answer_interchange(context, each) for each in taken]
    body = b"".join(each.text for each in answers if each is not None)
    return Response(200 if body else 204, body, content_type=EDI_X12 if body else None)


def _read_partner(context: Context, request: Request) -> str:
    """The parameter `partner`; "" where it is left out."""
    unknown = sorted({name for name, _ in request.query} - {"partner", "_format", "_pretty"})
    if unknown:
        raise Invalid(f"`$x12` has no parameter `{unknown[0]}`; it takes `partner`.", code="not-supported")
    partner = dict(request.query).get("partner", "")
    known = context.partners.get(partner)
    if partner and (known is None or known.x12 is None):
        text = f"No partner `{partner}` exchanges X12; leave `partner` out to go by ISA05 to ISA08."
        raise Invalid(text, code="value")
    return partner


async def _write_tasks(context: Context, request: Request, taken: Sequence[TakenInterchange]) -> bytes:
    """The Tasks in the order of their sets; an OperationOutcome where an interchange or group has faults."""
    groups = [group for each in taken for group in each.groups]
    references = list(dict.fromkeys(f"Task/{one.id}" for each in taken for one in each.list_received()))
    stored = await context.reader(request.caller).read_many(references)
    texts = [(each, stored[each].raw or b"{}") for each in references if each in stored]
    base = request.base.encode()
    entries = [b'{"fullUrl":"%b/%b","resource":%b}' % (base, name.encode(), raw) for name, raw in texts]
    issues = [fault_to_issue(fault) for each in taken for fault in each.faults]
    issues += [fault_to_issue(fault) for group in groups for fault in group.group.end.faults]
    if issues:
        entries.append(_write_outcome(context, issues))
    return write_bundle({"type": "collection"}, (), entries)


def _write_outcome(context: Context, issues: Sequence[Issue]) -> bytes:
    full_url = f"urn:uuid:{context.new_id()}"
    return orjson.dumps({"fullUrl": full_url, "resource": build_operation_outcome(issues)})
