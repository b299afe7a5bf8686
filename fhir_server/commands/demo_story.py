"""One visit of the sample clinic from booking to a balance of zero, as requests in their order (docs/billing.md)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

Tree = dict[str, Any]
Answers = Mapping[str, Tree]
"""Answers of earlier steps by their names."""

ZONE = "America/New_York"
PATIENT, PRACTITIONER = "Patient/amina-okafor", "Practitioner/ines-marchetti"
JSON, X12 = "application/fhir+json", "application/EDI-X12"


class Call(NamedTuple):
    """A request: method, URL behind the base, body."""

    method: str
    url: str
    body: Tree | str | None = None


class Step(NamedTuple):
    """What happens, the request for it, and what its answer says in a line.

    `worker`: the worker that goes on before the step. `clock`: the time at which it happens, if it is another one.
    """

    name: str
    says: str
    call: Callable[[Answers], Call]
    tells: Callable[[Tree], str]
    worker: str = ""
    clock: str = ""


def _parameters(**values: Any) -> Tree:
    kinds = {str: "valueString", int: "valueDecimal", float: "valueDecimal", dict: "valueReference"}
    parts = [{"name": name.replace("_", "-"), kinds[type(value)]: value} for name, value in values.items()]
    return {"resourceType": "Parameters", "parameter": parts}


def _find(_: Answers) -> Call:
    window = "start=2026-11-30T11:00:00-05:00&end=2026-11-30T12:00:00-05:00"
    return Call("GET", f"Appointment/$find?{window}&practitioner={PRACTITIONER}&patient-reference={PATIENT}")


def _clock(instant: str) -> str:
    return f"{datetime.fromisoformat(instant).astimezone(ZoneInfo(ZONE)):%H:%M}"


def _book(answers: Answers) -> Call:
    proposal = answers["find"]["entry"][0]["resource"]["id"]
    return Call(
        "POST",
        "Appointment/$book",
        _parameters(appointment_reference=f"Appointment/{proposal}", patient_reference=PATIENT),
    )


def _visit(answers: Answers) -> str:
    return f"Appointment/{_find_appointment(answers['book'])['id']}"


def _find_appointment(answer: Tree) -> Tree:
    """The Appointment of an answer: itself, or the first one of its Bundle."""
    found: list[Tree] = [each["resource"] for each in answer.get("entry", ())] or [answer]
    return next(each for each in found if each["resourceType"] == "Appointment")


def _copay(answers: Answers) -> Call:
    return Call("POST", f"{PATIENT}/$pay", _parameters(amount=20, request=_visit(answers), key="desk", method="card"))


def _encounter(answers: Answers) -> Call:
    appointment = _find_appointment(answers["book"])
    attends = {"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "ATND"}
    encounter: Tree = {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
        "subject": {"reference": PATIENT},
        "participant": [{"type": [{"coding": [attends]}], "individual": {"reference": PRACTITIONER}}],
        "appointment": [{"reference": _visit(answers)}],
        "period": {"start": appointment["start"], "end": appointment["end"]},
        "diagnosis": [{"condition": {"reference": "Condition/amina-lipids"}, "rank": 1}],
        "location": [{"location": {"reference": "Location/room-1"}}],
        "serviceProvider": {"reference": "Organization/riverbend"},
    }
    return Call("POST", "Encounter", encounter)


def _charge(answers: Answers) -> Call:
    charge: Tree = {
        "resourceType": "ChargeItem",
        "definitionCanonical": ["https://clinic.example/charges/99213"],
        "status": "billable",
        "code": {"coding": [{"system": "http://www.ama-assn.org/go/cpt", "code": "99213"}]},
        "subject": {"reference": PATIENT},
        "context": {"reference": f"Encounter/{answers['encounter']['id']}"},
        "occurrenceDateTime": "2026-11-30",
        "performer": [{"actor": {"reference": PRACTITIONER}}],
        "quantity": {"value": 1},
    }
    return Call("POST", "ChargeItem", charge)


def _assemble(answers: Answers) -> Call:
    encounter = {"reference": f"Encounter/{answers['encounter']['id']}"}
    return Call("POST", "Claim/$assemble", _parameters(encounter=encounter))


def find_claim(answers: Answers) -> Tree:
    """The claim that was assembled."""
    answer = answers["assemble"]
    parts: list[Tree] = [*answer.get("parameter", ()), *answer.get("entry", ())]
    return next(each["resource"] for each in parts if each.get("resource", {}).get("resourceType") == "Claim")


def _find_part(answer: Tree, name: str) -> str:
    """A reference or state of the first claim of `$transmit`."""
    (claim,) = (each["part"] for each in answer["parameter"] if each["name"] == "claim")
    part = next(each for each in claim if each["name"] == name)
    return str(part["valueReference"]["reference"] if "valueReference" in part else part["valueCode"])


def _tell_837(answer: Tree) -> str:
    return "\n".join(["an 837P", *(f"{each}~" for each in read_segments(answer))])


def read_segments(binary: Tree) -> list[str]:
    """The segments of an interchange that a Binary holds."""
    text = base64.b64decode(binary["data"]).decode("ascii")
    return [each.strip() for each in text.split("~") if each.strip()]


def _find_binary(answers: Answers) -> Call:
    inputs = answers["delivery"]["input"]
    references = (each.get("valueReference", {}).get("reference", "") for each in inputs)
    return Call("GET", next(each for each in references if each.startswith("Binary/")))


def _acknowledge(answers: Answers) -> Call:
    return Call("POST", "$x12", write_999(read_segments(answers["file"])))


def write_999(segments: list[str]) -> str:
    """The clearinghouse's 999 to an 837P: its group and its transaction set are accepted."""
    group = next(each for each in segments if each.startswith("GS")).split("*")
    number = next(each for each in segments if each.startswith("ST")).split("*")[2]
    body = (
        "ST*999*0001*005010X231A1",
        f"AK1*HC*{group[6]}*005010X222A1",
        f"AK2*837*{number}*005010X222A1",
        "IK5*A",
        "AK9*A*1*1*1",
        "SE*6*0001",
    )
    head = (
        f"ISA*00*{'':10}*00*{'':10}*30*{'990000001':<15}*ZZ*{'RIVERBEND01':<15}*261130*1300*^*00501*000000001*0*T*:",
        "GS*FA*990000001*RIVERBEND01*20261130*1300*1*X*005010X231A1",
    )
    return "".join(f"{each}~\n" for each in (*head, *body, "GE*1*1", "IEA*1*000000001"))


def _remit(answers: Answers) -> Call:
    claim = find_claim(answers)
    number = next(each["value"] for each in claim["identifier"] if each["system"].endswith("/patient-control-number"))
    return Call("POST", "$x12", write_835(number, claim["item"][0]["id"]))


def write_835(number: str, line: str) -> str:
    """What the payer answers: of 95.00 it pays 55.00, 15.00 are written off, 20.00 copay and 5.00 are the patient's."""
    segments = (
        f"ISA*00*{'':10}*00*{'':10}*30*{'990000001':<15}*ZZ*{'RIVERBEND01':<15}*261208*0900*^*00501*000000002*0*T*:",
        "GS*HP*990000001*RIVERBEND01*20261208*0900*2*X*005010X221A1",
        "ST*835*0001",
        "BPR*I*55*C*ACH*CCP*01*111000012*DA*1*1RBMM1****01*111000025*DA*1*20261208",
        "TRN*1*EFT20261208*1RBMM10000",
        "DTM*405*20261208",
        "N1*PR*MEADOW MUTUAL HEALTH PLAN*XV*RBMM1",
        "N3*1 PLAZA",
        "N4*ALBANY*NY*12207",
        "PER*BL*PROVIDER SERVICES*TE*5555550180",
        "N1*PE*RIVERBEND FAMILY PRACTICE*XX*2000000101",
        "LX*1",
        f"CLP*{number}*1*95*55*25*12*MM4711",
        "NM1*QC*1*OKAFOR*AMINA****MI*ME100200",
        "SVC*HC:99213*95*55**1",
        "DTM*472*20261130",
        "CAS*CO*45*15",
        "CAS*PR*3*20**2*5",
        f"REF*6R*{line}",
    )
    end = (f"SE*{len(segments) - 1}*0001", "GE*1*2", "IEA*1*000000002")
    return "".join(f"{each}~\n" for each in (*segments, *end))


def _rest(answers: Answers) -> Call:
    invoice = answers["invoice"]["entry"][0]["resource"]["id"]
    return Call("POST", f"{PATIENT}/$pay", _parameters(amount=5, request=f"Invoice/{invoice}", key="rest"))


def _tell_balance(answer: Tree) -> str:
    sums = {each["name"]: each["valueMoney"]["value"] for each in answer["parameter"] if "valueMoney" in each}
    return ", ".join(f"{name} {sums[name]:.2f}" for name in ("charges", "payments", "adjustments", "balance"))


def _tell_claims(answer: Tree) -> str:
    claim = find_claim({"assemble": answer})
    return f"Claim/{claim['id']} of {claim['total']['value']:.2f}, with its diagnoses, its payer and its number"


def _tell_scrub(answer: Tree) -> str:
    issues = [each for each in answer.get("issue", ()) if each["severity"] in ("error", "fatal")]
    return f"{len(issues)} errors" + (f": {issues[0]['diagnostics']}" if issues else ", so that it is ready to go out")


def _tell_tasks(answer: Tree) -> str:
    states = [
        each["resource"].get("status", "") for each in answer["entry"] if each["resource"]["resourceType"] == "Task"
    ]
    return f"{len(states)} transaction set, its Task is {', '.join(states)}"


STORY: tuple[Step, ...] = (
    Step(
        "find",
        "Amina Okafor asks for a time with Dr. Marchetti late on Monday morning.",
        _find,
        lambda answer: (
            f"{len(answer['entry'])} free times, the first at {_clock(answer['entry'][0]['resource']['start'])}"
        ),
        clock="2026-11-27T09:00:00-05:00",
    ),
    Step(
        "book",
        "She takes the first.",
        _book,
        lambda answer: f"the Appointment is {_find_appointment(answer)['status']}",
    ),
    Step(
        "check-in",
        "On Monday she comes.",
        lambda answers: Call("POST", f"{_visit(answers)}/$check-in"),
        lambda answer: f"the Appointment is {_find_appointment(answer)['status']}",
        clock="2026-11-30T10:50:00-05:00",
    ),
    Step(
        "copay",
        "She pays her copay at the desk.",
        _copay,
        lambda answer: f"{answer['paymentAmount']['value']:.2f}, posted at once",
    ),
    Step(
        "encounter",
        "She is seen.",
        _encounter,
        lambda answer: f"Encounter/{answer['id']}",
        clock="2026-11-30T11:40:00-05:00",
    ),
    Step(
        "charge",
        "The visit is charged, at the price of the price list.",
        _charge,
        lambda answer: f"ChargeItem/{answer['id']}, in the ledger from {answer['enteredDate']}",
    ),
    Step("assemble", "The charges of the visit become a claim.", _assemble, _tell_claims),
    Step(
        "scrub",
        "The claim is judged as the payer would.",
        lambda answers: Call("POST", f"Claim/{find_claim(answers)['id']}/$scrub"),
        _tell_scrub,
    ),
    Step(
        "transmit",
        "It is sent to the partner who takes the claims of its payer.",
        lambda answers: Call("POST", f"Claim/{find_claim(answers)['id']}/$transmit"),
        lambda answer: (
            f"the claim is {_find_part(answer, 'state')}, {_find_part(answer, 'transmission')} takes it there"
        ),
    ),
    Step(
        "delivery",
        "The worker `deliveries` puts it into the clearinghouse's folder.",
        lambda answers: Call("GET", _find_part(answers["transmit"], "transmission")),
        lambda answer: f"the delivery is {answer['businessStatus']['coding'][0]['code']}",
        worker="deliveries",
    ),
    Step("file", "That is what went out.", _find_binary, _tell_837),
    Step(
        "acknowledge",
        "The clearinghouse acknowledges it by a 999.",
        _acknowledge,
        _tell_tasks,
        clock="2026-11-30T13:00:00-05:00",
    ),
    Step(
        "state",
        "So the claim is with it.",
        lambda answers: Call("GET", f"Task?focus=Claim/{find_claim(answers)['id']}&code=claim"),
        lambda answer: f"the claim is {answer['entry'][0]['resource']['businessStatus']['coding'][0]['code']}",
    ),
    Step(
        "remit",
        "A week later the payer answers with an 835: it pays 55.00 of 95.00.",
        _remit,
        _tell_tasks,
        clock="2026-12-08T09:00:00-05:00",
    ),
    Step(
        "payment",
        "The worker `postings` posts it: 55.00 paid, 15.00 written off, 25.00 left to the patient.",
        lambda _: Call("GET", "PaymentReconciliation?payment-identifier=EFT20261208"),
        lambda answer: "the PaymentReconciliation is {status}, its work {outcome}".format(
            **answer["entry"][0]["resource"]
        ),
        worker="postings",
    ),
    Step(
        "invoice",
        "What the copay did not pay is invoiced.",
        lambda _: Call("GET", f"Invoice?subject={PATIENT}"),
        lambda answer: f"an Invoice of {answer['entry'][0]['resource']['totalNet']['value']:.2f}",
    ),
    Step("open", "That is what is open.", lambda _: Call("GET", f"{PATIENT}/$balance"), _tell_balance),
    Step("rest", "She pays it.", _rest, lambda answer: f"{answer['paymentAmount']['value']:.2f}, posted at once"),
    Step("balance", "Nothing is open any more.", lambda _: Call("GET", f"{PATIENT}/$balance"), _tell_balance),
)
"""The steps in their order; each builds on the answers of those before it."""
