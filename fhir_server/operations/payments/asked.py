"""What the operations of payments ask for: an amount, a key that tells one payment from another, who and when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from fhir_server.fhir.outcome import Conflict, Invalid, Issue, NotFound, Unprocessable
from fhir_server.operations.scheduling.parameters import Parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.posting.closings import read_posting_day
from fhir_server.workers.posting.settling import settle_payment
from fhir_server.workers.posting.writes import name, put, read_now
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import Resource as Stored
from fhir_server.writes.state import State
from mappers.billing.fields import CENT, Resource, find_reference, make_reference, to_amount
from mappers.billing.patient_money import Occasion

LARGEST = Decimal("9999999999.99")
_LONGEST_KEY = 100


def read_amount(asked: Parameters, parameter: str = "amount") -> Decimal:
    """A Money in US dollars or a decimal, of at most two places. Raises Invalid."""
    value = asked.find(parameter)
    if isinstance(value, dict):
        if value.get("currency", "USD") != "USD":
            text = f"`{parameter}` is in `{value['currency']}`; only US dollars (USD) are taken."
            raise Invalid(text, code="value", expression=(parameter,))
        value = value.get("value")
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or abs(amount) > LARGEST or amount != amount.quantize(CENT):
        text = f"`{parameter}` needs an amount of dollars with at most two places, such as 25.00, not `{value}`."
        raise Invalid(text, code="value", expression=(parameter,))
    return amount.quantize(CENT)


def read_key(asked: Parameters) -> str:
    """The idempotency key. Raises Invalid where it is missing."""
    key = asked.text("key").strip()
    if not key or len(key) > _LONGEST_KEY or not key.isprintable():
        text = (
            f"`{asked.operation}` needs a `key` of at most {_LONGEST_KEY} characters: the same key is the same "
            "payment however often it is sent, another key is another one."
        )
        raise Invalid(text, code="required", expression=("key",))
    return key


async def find_occasion(state: State, asked: Parameters, scope: str, patient: str) -> Occasion:
    """Key, clock, day of posting, patient. `scope`: what the key is unique for, such as `Patient/1/$pay`."""
    return Occasion(f"{scope}/{read_key(asked)}", read_now(state.context), str(await read_posting_day(state)), patient)


def refuse(issue: Issue) -> Exception:
    """The error of an Issue that a mapper has given."""
    return (Invalid if issue.code == "value" else Unprocessable)(issues=(issue,))


async def need(state: State, reference: str) -> Stored:
    """A resource that has to be there. Raises NotFound."""
    type, _, id = reference.partition("/")
    found = await state.read(type, id)
    if found is None:
        raise NotFound(f"There is no `{reference}` on this server.")
    return found


def find_patient(resource: Resource) -> str:
    """The patient that a resource is about."""
    if resource["resourceType"] == "Appointment":
        actors = [find_reference(each.get("actor")) for each in resource.get("participant", ())]
        return next((each for each in actors if each.startswith("Patient/")), "")
    return find_reference(resource.get("patient") or resource.get("subject"))


@dataclass(frozen=True, slots=True)
class Made:
    """What an operation answers: the reference of the payment, and it as stored where it was there already."""

    reference: str
    stored: Stored | None = None


async def store_once(state: State, payment: Resource, further: tuple[Action, ...] = ()) -> Decision[Made]:
    """The payment under the id of its key; what the same key made before is answered. Raises Conflict for another."""
    payment = name(payment)
    reference = make_reference(payment)
    before = await state.read("PaymentReconciliation", payment["id"])
    if before is None:
        return Decision(Made(reference), (put(payment), *further, *await settle_payment(state, payment)))
    if _is_same(dict(before.tree), payment):
        return Decision(Made(reference, before))
    detail = before.tree["detail"][0]
    text = (
        f"This key was used before for another payment: `{reference}` of {to_amount(detail['amount']):.2f} on "
        f"`{find_reference(detail['request'])}`. Use a new key for a new payment."
    )
    raise Conflict(text, code="duplicate", expression=("key",))


def _is_same(before: Resource, payment: Resource) -> bool:
    one, other = before["detail"][0], payment["detail"][0]
    same = find_reference(one["request"]) == find_reference(other["request"])
    return same and to_amount(one["amount"]) == to_amount(other["amount"]) and one["type"] == other["type"]


def complete_task(task: Resource, payment: Resource) -> Action:
    """A Task of which a payment was made, as done."""
    output = {"type": {"text": "payment"}, "valueReference": {"reference": make_reference(payment)}}
    return put({**task, "status": "completed", "output": [*task.get("output", ()), output]})


async def answer(context: Context, request: Request, decide: Callable[[State], Awaitable[Decision[Made]]]) -> Response:
    """201 with the PaymentReconciliation that was made, 200 with the one that the same key made before."""
    outcome = await decide_and_commit(context, request.caller, decide)
    made = outcome.answer
    if made.stored is not None:
        stored = await context.reader(request.caller).read(*_split(made.reference))
        assert stored is not None
        return Response(200, stored.raw or b"", stored.version, stored.last_updated)
    result = outcome.results[0]
    location = f"{request.base}/{made.reference}/_history/{result.version}"
    return Response(201, result.text(), result.version, result.last_updated, location)


def _split(reference: str) -> tuple[str, str]:
    type, _, id = reference.partition("/")
    return type, id
