"""One way out: a delivery is a Task that exists once for each partner, resource and version (docs/messages.md)."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Issue, Unprocessable
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_criteria
from fhir_server.search.escapes import escape
from fhir_server.search.locks import name_locks
from fhir_server.transports.table import TRANSPORTS
from fhir_server.workers.delivery_item import Outgoing
from fhir_server.workers.message_codes import (
    CONTROL_SYSTEM,
    DELIVERY,
    LONGEST_NUMBER,
    MESSAGE_SYSTEM,
    PARTNER_SYSTEM,
    clean_text,
    code_task,
    find_parts,
    make_part,
    read_identifier,
)
from fhir_server.workers.message_states import STATES, MessageState, code_state
from fhir_server.workers.message_tasks import make_binary, make_issues, put
from fhir_server.writes.action import Action
from fhir_server.writes.state import State


@dataclass(frozen=True, slots=True)
class Delivery:
    """What goes to a partner: `resource` (`Type/id`; "": about none) in its `version`, as the bytes of a message.

    `transport` is a key of the partner's transports; `patient` a reference, or "" where it is about none. `occasion`
    tells apart what is sent for the same version more than once, such as the answers to a file that came again.
    `about`: the resources that a text of several of them sends. `id`: its place in the order of sending, a new one when
    left out. `reason`: why it waits for a person. `issues`: what the message does not say.
    """

    partner: str
    format: str
    transport: str
    resource: str
    version: int
    control_number: str
    payload: bytes
    content_type: str
    patient: str = ""
    occasion: str = ""
    about: tuple[str, ...] = ()
    id: str = ""
    reason: str = ""
    issues: tuple[Issue, ...] = ()

    @property
    def key(self) -> str:
        """The value of its identifier: the same for the same partner, resource, version and occasion."""
        return "/".join(filter(None, (self.partner, self.resource, str(self.version), self.occasion)))


async def make_delivery(state: State, delivery: Delivery) -> tuple[Action, ...]:
    """The Binary and the waiting Task of a delivery, for the decision that reads through `state`; () where it exists.

    Goes into the transaction that the delivery is about, or into one of its own: a repeat makes nothing. Ids rise with
    time, which is the order of sending.
    """
    return await make_deliveries(state, (delivery,))


async def make_deliveries(state: State, deliveries: Sequence[Delivery]) -> tuple[Action, ...]:
    """As `make_delivery`, for several at once; those that exist are left out."""
    context, log = state.context, State(state.context, state.caller)
    where = await parse_criteria(context, "Task", (("identifier", write_keys(deliveries)),), state.caller)
    found = await log.search("Task", where)
    state.assertions += log.assertions
    state.lock(name_locks("Task", where))
    known = {read_identifier(each.tree, MESSAGE_SYSTEM) for each in found}
    return tuple(action for each in deliveries if each.key not in known for action in _build_delivery(context, each))


def write_keys(deliveries: Iterable[Delivery]) -> str:
    """The search value of the identifiers of deliveries."""
    return ",".join(f"{MESSAGE_SYSTEM}|{escape(each.key)}" for each in deliveries)


def _build_delivery(context: Context, delivery: Delivery) -> Iterator[Action]:
    id = delivery.id or context.new_id()
    if delivery.payload:
        yield make_binary(id, delivery.content_type, delivery.payload)
    yield put(_build_task(id, delivery, context.clock()))


def _build_task(id: str, delivery: Delivery, now: int) -> dict[str, Any]:
    state: MessageState = "parked" if delivery.reason else "waiting"
    number = clean_text(delivery.control_number, LONGEST_NUMBER)
    text = [make_part("text", valueReference={"reference": f"Binary/{id}"})] if delivery.payload else []
    issues = make_issues(delivery.issues)
    return {
        "resourceType": "Task",
        "id": id,
        **({"contained": [issues]} if issues else {}),
        "identifier": [
            {"system": MESSAGE_SYSTEM, "value": delivery.key},
            {"system": CONTROL_SYSTEM, "value": number},
        ],
        "groupIdentifier": {"system": PARTNER_SYSTEM, "value": delivery.partner},
        "status": STATES[state].status,
        **({"statusReason": {"text": clean_text(delivery.reason)}} if delivery.reason else {}),
        "businessStatus": code_state(state),
        "intent": "order",
        "code": code_task(DELIVERY),
        **({"focus": {"reference": f"{delivery.resource}/_history/{delivery.version}"}} if delivery.resource else {}),
        **({"for": {"reference": delivery.patient}} if delivery.patient else {}),
        "authoredOn": format_instant(now),
        "lastModified": format_instant(now),
        "input": [
            *text,
            make_part("format", valueCode=delivery.format),
            make_part("transport", valueCode=delivery.transport),
            *(make_part("about", valueReference={"reference": each}) for each in delivery.about),
        ],
        **({"output": [make_part("issues", valueReference={"reference": "#issues"})]} if issues else {}),
    }


def is_change(task: Mapping[str, Any]) -> bool:
    """Whether the Task of a delivery sends a change of a resource, made from the feed."""
    return bool(find_parts(task, "format")) and task["id"] == write_id(read_identifier(task, CONTROL_SYSTEM))


def write_id(number: str | int) -> str:
    """The id of a delivery whose place in the order of sending is its control number."""
    return f"{int(number):016x}" if str(number).isdecimal() else ""


async def prepare_sending(context: Context, task: Mapping[str, Any]) -> Outgoing:
    """What the Task of a delivery sends. Raises Unprocessable where partner, transport or text is gone."""
    name = read_identifier(task, PARTNER_SYSTEM)
    transport = find_parts(task, "transport")[0]["valueCode"]
    partner = context.partners.get(name)
    if partner is None:
        raise Unprocessable(f"There is no partner `{name}` any more; add its file, or close the delivery.")
    endpoint = partner.transports.find_endpoint(transport)
    if endpoint is None or transport not in TRANSPORTS:
        raise Unprocessable(f"The partner `{name}` has no transport `{transport}`; add it to its file.")
    stored = await context.unrestricted.read("Binary", task["id"])
    if stored is None or stored.raw is None:
        raise Unprocessable(f"The text of the delivery, `Binary/{task['id']}`, is not there any more.")
    payload = base64.b64decode(orjson.loads(stored.raw).get("data", ""))
    return Outgoing(TRANSPORTS[transport], endpoint, read_identifier(task, CONTROL_SYSTEM), payload)
