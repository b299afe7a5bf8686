"""270 out: a CoverageEligibilityRequest as a delivery, once for each version of it (005010X279A1).

TRN02 and BHT03 are the control number of the interchange, by which the 271 is matched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from fhir_server.fhir.outcome import NotFound, Unprocessable
from fhir_server.partners import Partner
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_criteria
from fhir_server.requests.request import Caller
from fhir_server.search.escapes import escape
from fhir_server.workers.message_codes import MESSAGE_SYSTEM
from fhir_server.workers.message_deliveries import Delivery, make_delivery
from fhir_server.workers.posting.writes import copy, find_zone, read_today
from fhir_server.workers.x12_intake import EDI_X12
from fhir_server.workers.x12_partners import FORMAT, allot_number, choose_partner, to_mapper_partner
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing.fields import Resource, find_reference
from mappers.x12.fault import fault_to_issue, find_errors
from mappers.x12.request_to_270 import EligibilitySource, find_payer_id, write_270
from mappers.x12.writer import ControlNumbers

TYPE = "CoverageEligibilityRequest"
TRANSPORT = "folder"

_FOLLOWED: Mapping[str, tuple[str, ...]] = {
    TYPE: ("patient", "provider", "insurer"),
    "Coverage": ("payor", "subscriber", "policyHolder", "beneficiary"),
    "PractitionerRole": ("practitioner", "organization"),
    "RelatedPerson": ("patient",),
}
"""Type → the elements whose references lead to what a 270 says."""

MOST_REFERENCES = 100
"""Resources that one request may lead to."""


class Inquiry(NamedTuple):
    """The delivery of a request, `Task/id`. `made` False: this version of it had been given one before."""

    task: str
    made: bool


async def send_inquiry(context: Context, caller: Caller, id: str, partner: str = "") -> Inquiry:
    """Give a request to the partner who takes its payer, or to the one named. Raises NotFound, Unprocessable."""
    numbers: dict[str, int] = {}

    async def decide(state: State) -> Decision[Inquiry]:
        found = await state.read(TYPE, id)
        if found is None:
            raise NotFound(f"There is no `{TYPE}/{id}` on this server.")
        request = copy(found.tree)
        if request.get("status") != "active":
            text = f"`{TYPE}/{id}` is `{request.get('status')}`; only an `active` one is sent."
            raise Unprocessable(text, expression=(f"{TYPE}.status",))
        resources = await collect_resources(state, request)
        receiver = _find_receiver(context, partner, request, resources)
        patient = find_reference(request.get("patient"))
        draft = Delivery(
            receiver.name, FORMAT, TRANSPORT, f"{TYPE}/{id}", found.version, "", b"", EDI_X12, patient=patient
        )
        before = await _find_before(state, draft)
        if before:
            return Decision(Inquiry(before, False))
        if receiver.name not in numbers:
            numbers[receiver.name] = await allot_number(context, receiver.name)
        number = numbers[receiver.name]
        payload = _write(context, receiver, number, request, resources)
        actions = await make_delivery(state, replace(draft, control_number=f"{number:09}", payload=payload))
        return Decision(Inquiry(f"Task/{actions[-1].id}", True), actions)

    return (await decide_and_commit(context, caller, decide)).answer


def _find_receiver(context: Context, name: str, request: Resource, resources: Mapping[str, Resource]) -> Partner:
    receiver = (
        context.partners.get(name) if name else choose_partner(context.partners, find_payer_id(request, resources))
    )
    if receiver is None or receiver.x12 is None:
        raise Unprocessable(f"No partner `{name}` exchanges X12; leave `partner` out to go by the payer.")
    endpoint: Mapping[str, Any] = receiver.transports.find_endpoint(TRANSPORT) or {}
    if "out" not in endpoint:
        raise Unprocessable(f"The partner `{receiver.name}` has no folder `out`; add it to its file.")
    return receiver


async def _find_before(state: State, draft: Delivery) -> str:
    """The delivery of this version of the request, `Task/id`; "" where there is none."""
    pairs = (("identifier", f"{MESSAGE_SYSTEM}|{escape(draft.key)}"),)
    found = await state.search("Task", await parse_criteria(state.context, "Task", pairs, state.caller))
    return f"Task/{found[0].tree['id']}" if found else ""


def _write(
    context: Context, receiver: Partner, number: int, request: Resource, resources: Mapping[str, Resource]
) -> bytes:
    """The interchange. Raises Unprocessable with each fault, where it is in FHIR and in X12."""
    moment = datetime.fromtimestamp(context.clock() / 1_000_000, find_zone(context))
    source = EligibilitySource(request, resources, f"{number:09}", read_today(context))
    numbers = ControlNumbers(number, number, moment)
    written = write_270(source, to_mapper_partner(receiver), numbers, "0001")
    errors = find_errors((*written.faults, *written.check))
    if errors:
        raise Unprocessable(issues=[fault_to_issue(each) for each in errors])
    return written.text.encode("latin-1")


async def collect_resources(state: State, request: Resource) -> dict[str, Resource]:
    """By local reference, what a request leads to."""
    found: dict[str, Resource] = {}
    waiting, seen = list(_list_references(request)), set[str]()
    while waiting:
        reference = waiting.pop()
        type, _, id = reference.partition("/")
        if reference in seen or type not in state.context.types or not id:
            continue
        seen.add(reference)
        if len(seen) > MOST_REFERENCES:
            raise Unprocessable(f"The request leads to more than {MOST_REFERENCES} resources.", code="too-costly")
        stored = await state.read(type, id)
        if stored is not None:
            found[reference] = copy(stored.tree)
            waiting += _list_references(found[reference])
    return found


def _list_references(resource: Resource) -> Iterator[str]:
    for element in _FOLLOWED.get(resource["resourceType"], ()):
        value = resource.get(element)
        yield from (find_reference(each) for each in (value if isinstance(value, list) else [value]))
    for insurance in resource.get("insurance", ()) if resource["resourceType"] == TYPE else ():
        yield find_reference(insurance.get("coverage"))
