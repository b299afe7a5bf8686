"""The codes and identifier systems of the message log's Tasks (https://hl7.org/fhir/R4/task.html)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Literal

from fhir_server.fhir.urls import MESSAGE_TASK, code_system_url, identifier_system_url

TASK_SYSTEM = MESSAGE_TASK
STATE_SYSTEM = code_system_url("message-state")
PART_SYSTEM = code_system_url("message-part")
MESSAGE_SYSTEM = identifier_system_url("message")
CONTROL_SYSTEM = identifier_system_url("control-number")
PARTNER_SYSTEM = identifier_system_url("partner")

UNKNOWN = "unknown"
"""The name under which messages are kept whose sender no partner's file names."""

INTAKE = "message-intake"
DELIVERY = "message-delivery"

Part = Literal[
    "text", "beginning", "format", "transport", "about", "result", "deletion", "acknowledgement", "issues", "tries"
]
"""What an input or output of a Task holds: the Binary with the raw bytes, the first bytes of a text that was too large,
the name of the format and of the transport, a resource that is sent, one that was made or changed, the request of a
deletion, the bytes of the acknowledgement, the OperationOutcome that is contained, how often it was refused."""

LONGEST_NUMBER = 199
"""Characters of a control number (HL7 v2: MSH-10 has at most 199) that are kept; what is longer is cut off."""

LONGEST_REASON = 4000
"""Characters of a sentence that are kept."""


def clean_text(text: str, longest: int = LONGEST_REASON) -> str:
    r"""The text as a FHIR string may hold it: what is not printable as `\x0b`, cut off at `longest` characters."""
    clean = text.strip()
    if not clean.isprintable():
        clean = "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in clean)
    return clean[:longest].rstrip()


def code_task(code: str) -> dict[str, Any]:
    """The Task.code of an intake or a delivery."""
    return {"coding": [{"system": TASK_SYSTEM, "code": code}]}


def make_part(part: Part, **value: object) -> dict[str, Any]:
    """An input or output; `value` is its one `value[x]`."""
    return {"type": {"coding": [{"system": PART_SYSTEM, "code": part}]}, **value}


def list_codes(part: Mapping[str, Any]) -> list[str]:
    """The codes of an input or output."""
    return [str(coding.get("code", "")) for coding in part["type"].get("coding", ())]


def find_parts(task: Mapping[str, Any], part: Part) -> list[dict[str, Any]]:
    """The inputs and outputs of one kind."""
    parts = [*task.get("input", ()), *task.get("output", ())]
    return [each for each in parts if part in list_codes(each)]


def read_identifier(task: Mapping[str, Any], system: str) -> str:
    """The value of the identifier, or group identifier, of a system; "" without one."""
    for identifier in (*task.get("identifier", ()), task.get("groupIdentifier", {})):
        if identifier.get("system") == system:
            return str(identifier.get("value", ""))
    return ""


def read_acknowledgement(task: Mapping[str, Any]) -> bytes:
    """The bytes of the acknowledgement; b"" where there is none."""
    parts = find_parts(task, "acknowledgement")
    return base64.b64decode(parts[0]["valueBase64Binary"]) if parts else b""


def make_acknowledgement(text: bytes) -> list[dict[str, Any]]:
    """The output that holds an acknowledgement; none for an empty one."""
    return [make_part("acknowledgement", valueBase64Binary=base64.b64encode(text).decode())] if text else []
