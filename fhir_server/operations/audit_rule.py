"""What the server records as AuditEvents is written by nobody else, at any door (docs/audit.md)."""

from __future__ import annotations

from fhir_server.fhir.outcome import Issue
from fhir_server.writes.rules import Change, Rules, Ruling
from fhir_server.writes.state import State


async def refuse_writes(state: State, change: Change) -> Ruling:
    """Refuse every write of an AuditEvent."""
    text = (
        "AuditEvents are the record of this server (setting `audit`): it alone writes them, and they stay as they are."
    )
    return Ruling((Issue("error", "business-rule", text),))


AUDIT_RULES: Rules = {"AuditEvent": refuse_writes}
