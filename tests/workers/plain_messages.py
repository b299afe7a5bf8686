"""A format for tests: each line makes a resource, and the acknowledgement names the control number and a moment."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from fhir_server.workers.interpreters import Entry, Interpretation, Interpreter, Refusal, map_alone
from fhir_server.workers.message_tasks import IncomingMessage

FORMAT = "plain"
_count = itertools.count(1)


def message(text: str, number: str = "0001", partner: str = "lab", **options: Any) -> IncomingMessage:
    return IncomingMessage(partner, FORMAT, number, text.encode(), "text/plain", **options)


def patient_line(mrn: str, family: str) -> Entry:
    """`patient MRN FAMILY`: created unless one with that MRN is there."""
    resource = {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:example:mrn", "value": mrn}],
        "name": [{"family": family}],
    }
    request = {"method": "POST", "url": "Patient", "ifNoneExist": f"identifier=urn:example:mrn|{mrn}"}
    return {"fullUrl": f"urn:uuid:00000000-0000-4000-8000-{int(mrn):012d}", "resource": resource, "request": request}


def weight_line(mrn: str, value: str) -> Entry:
    """`weight MRN VALUE`: an Observation of the patient in the same message, or of `Patient/MRN`."""
    resource = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "weight"},
        "subject": {"reference": f"urn:uuid:00000000-0000-4000-8000-{int(mrn):012d}"},
        "valueQuantity": {"value": float(value)},
    }
    return {"resource": resource, "request": {"method": "POST", "url": "Observation"}}


def raw_line(text: str) -> Entry:
    """`entry JSON`: the entry as it is written."""
    entry: Entry = orjson.loads(text)
    return entry


def fault_line(text: str) -> Entry:
    """`fault …`: the mapper breaks."""
    raise KeyError(text)


LINES: Mapping[str, Callable[..., Entry]] = {"patient": patient_line, "weight": weight_line, "fault": fault_line}


def interpret(incoming: IncomingMessage) -> Interpretation | Refusal:
    """Every acknowledgement is another text, so that a stored one is told from a new one."""
    entries = []
    for line in incoming.raw.decode().splitlines():
        word, _, rest = line.partition(" ")
        if word == "refuse":
            return Refusal(f"The line `{line}` is not taken.", refuse(incoming, line))
        entries.append(raw_line(rest) if word == "entry" else LINES[word](*rest.split(" ")))
    return Interpretation(entries, f"taken {incoming.control_number} #{next(_count)}".encode())


def refuse(incoming: IncomingMessage, reason: str) -> bytes:
    return f"refused {incoming.control_number}: {reason}".encode()


PLAIN = Interpreter(map_alone(interpret), refuse)
INTERPRETERS = {FORMAT: PLAIN}
