"""`Claim/$cms1500`: a claim as the texts of the paper form CMS-1500 (02/12), as a PDF or box by box."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from fhir_server.fhir.outcome import Conflict, FhirError, Invalid, Issue, NotImplementedHere, Unprocessable
from fhir_server.operations.billing.claim_body import read_body
from fhir_server.operations.billing.divide import divide
from fhir_server.operations.billing.surroundings import Shelf
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.search.parse import NOT_SEARCHED
from fhir_server.workers.claim_tasks import read_claim
from fhir_server.workers.posting.writes import encode
from fhir_server.workers.x12_partners import choose_partner, to_mapper_partner
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.claim_numbers import number_claim
from mappers.billing.claim_states import ENDED, STATES
from mappers.billing.claim_to_form import Form, claim_to_form
from mappers.billing.claim_view import ClaimView
from mappers.billing.fields import Resource, find_extension, make_reference
from mappers.billing.form_layout import MARGINS, find_box
from mappers.billing.form_pdf import draw_form
from mappers.billing.scrub import findings_to_outcome, has_errors, scrub_view
from mappers.billing.scrub_rule import Finding
from mappers.x12.partner import ClaimSource, Partner, Party
from mappers.x12.writer import Envelope

PDF = "application/pdf"

_WIDEST_MARGIN = 72
_NOBODY = Partner(Envelope("", ""), Party("", ""), Party("", ""))
"""In place of a partner, where none takes the payer electronically."""


async def cms1500(context: Context, request: Request) -> Response:
    """200 with the form; 422 with what is wrong with the claim."""
    margins = _read_margins(request)
    sent = await read_body(context, request) if len(request.path) == 2 else None

    async def decide(state: State) -> Decision[Form | Sequence[Finding]]:
        claim = sent if sent is not None else await _read_printable(state, f"Claim/{request.path[1]}")
        return Decision(await _fill(state, claim))

    form = (await decide_and_commit(context, request.caller, decide)).answer
    if not isinstance(form, Form):
        return Response(422, encode(findings_to_outcome(form)))
    if request.media_type != PDF:
        return Response(200, encode(_to_parameters(form)))
    try:
        body = draw_form(form.pages, margins)
    except ImportError:
        text = "PDF needs ReportLab: `pip install 'fhir-server[pdf]'`. The boxes come as FHIR JSON without it."
        raise NotImplementedHere(text) from None
    return Response(200, body, content_type=PDF)


def _read_margins(request: Request) -> tuple[float, float]:
    """`left` and `top` of the query, in points."""
    margins = dict(zip(("left", "top"), MARGINS, strict=True))
    for name, text in request.query:
        if name in NOT_SEARCHED:
            continue
        if name not in margins:
            text = f"`$cms1500` has no parameter `{name}`; it has `left`, `top`."
            raise Invalid(text, code="not-supported", expression=(name,))
        try:
            margins[name] = float(Decimal(text))
        except InvalidOperation:
            margins[name] = -1
        if not 0 <= margins[name] <= _WIDEST_MARGIN:
            text = f"`{name}` is a margin of 0 to {_WIDEST_MARGIN} points, not `{text}`."
            raise Invalid(text, code="value", expression=(name,))
    return margins["left"], margins["top"]


async def _read_printable(state: State, reference: str) -> Resource:
    """A stored claim that its split or its status does not keep from being printed."""
    found = await read_claim(state, reference)
    if found.state == "split":
        raise Conflict(f"`{reference}` is split; print its children, which `$split` names.")
    if found.claim.get("status") in ENDED:
        text = f"`{reference}` is `{found.claim['status']}`; there is nothing to print."
        raise Unprocessable(text, expression=("Claim.status",))
    return await _obey_rules(state, found.claim) if STATES[found.state].editable else found.claim


async def _obey_rules(state: State, claim: Resource) -> Resource:
    """The claim, where the practice's rules leave it whole: paper is no way round them."""
    parts = await divide(Shelf(state), claim)
    if parts.held:
        raise Unprocessable(issues=parts.issues or (Issue("error", "business-rule", parts.reason, ("Claim",)),))
    if parts.changed:
        text = f"The practice's rules divide `{make_reference(claim)}`: commit its `$split` and print the children."
        raise Unprocessable(text, expression=("Claim",))
    return parts.children[0]


async def _fill(state: State, claim: Resource) -> Form | Sequence[Finding]:
    """The form of a claim, or its findings where one is an error. Raises Unprocessable for what paper cannot hold."""
    claim = number_claim(claim)
    view = await Shelf(state).view(claim)
    findings = scrub_view(view)
    if has_errors(findings):
        return findings
    frequency = str(find_extension(claim, codes.FREQUENCY) or "1")
    resources = {**view.resources, make_reference(claim): claim}
    form = claim_to_form(ClaimSource(claim, resources, frequency), _find_partner(state.context, view))
    if not form.pages:
        raise Unprocessable(issues=form.issues)
    return form


def _find_partner(context: Context, view: ClaimView) -> Partner:
    """Whose codes and defaults hold for the payer, so that the form says what the 837P would."""
    try:
        return to_mapper_partner(choose_partner(context.partners, view.focal.payer_id if view.focal else ""))
    except FhirError:
        return _NOBODY


def _to_parameters(form: Form) -> Resource:
    parts: list[dict[str, Any]] = [
        {"name": "page", "part": [_to_part(name, text) for name, text in page.items()]} for page in form.pages
    ]
    if form.issues:
        outcome = {"resourceType": "OperationOutcome", "issue": [each.to_json() for each in form.issues]}
        parts.append({"name": "outcome", "resource": outcome})
    return {"resourceType": "Parameters", "parameter": parts}


def _to_part(name: str, text: str) -> dict[str, Any]:
    box = find_box(name)
    return {
        "name": "box",
        "part": [
            *([{"name": "item", "valueString": box.item}] if box.item else []),
            {"name": "line", "valueInteger": box.line},
            {"name": "column", "valueInteger": box.column},
            {"name": "text", "valueString": text},
        ],
    }
