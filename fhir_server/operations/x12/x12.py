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

_REMITTANCE = "835"
_MOST_NAMED = 50
"""Drafts whose ids a header names; a line of more than some kilobytes is refused on the way."""


async def x12(context: Context, request: Request) -> Response:
    """The Tasks of the sets as a Bundle, or TA1 and 999: 200, 202 where an 835 is posted from now on, 204 for nothing.

    What is refused is told in them. Raises Invalid for an unknown partner and for bytes that are in no interchange.
    """
    partner = _read_partner(context, request)
    found = await read_file(context, request.body)
    if found.outside:
        raise Invalid(issues=[fault_to_issue(each) for each in found.outside])
    source = Source(context, request.base, partner)
    taken = [await take_interchange(source, request.body, each) for each in found.interchanges]
    drafts = _list_drafts(taken)
    status, headers = (202, _locate(request.base, drafts)) if drafts else (200, ())
    if request.media_type != EDI_X12:
        return Response(status, await _write_tasks(context, request, taken), headers=headers)
    answers = [await answer_interchange(context, each) for each in taken]
    body = b"".join(each.text for each in answers if each is not None)
    return Response(status if body or drafts else 204, body, content_type=EDI_X12 if body else None, headers=headers)


def _list_drafts(taken: Sequence[TakenInterchange]) -> list[str]:
    """The ids of the PaymentReconciliations that were drafted by this request, and wait for the worker that posts."""
    sets = (each for one in taken for group in one.groups for each in group.sets if each.set.code == _REMITTANCE)
    made = (each.partition("/") for one in sets for each in one.received.made)
    return [id for type, _, id in made if type == "PaymentReconciliation"]


def _locate(base: str, drafts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Where it is seen how far posting is: at the draft, at some by their ids, or at all that are being posted."""
    if len(drafts) == 1:
        url = f"{base}/PaymentReconciliation/{drafts[0]}"
        return ("Location", url), ("Content-Location", url)
    which = f"_id={','.join(drafts)}" if len(drafts) <= _MOST_NAMED else "outcome=queued,partial"
    return (("Content-Location", f"{base}/PaymentReconciliation?{which}"),)


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
