"""What an OperationOutcome says (https://hl7.org/fhir/R4/operationoutcome.html)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

LONGEST_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Outcome:
    """The issue codes of an OperationOutcome, and all texts with their expressions as one line."""

    codes: frozenset[str]
    text: str


def read_outcome(body: bytes) -> Outcome:
    """The outcome in a response body; a body that is not an OperationOutcome gives its own beginning as text."""
    try:
        return parse_outcome(orjson.loads(body))
    except orjson.JSONDecodeError:
        return Outcome(frozenset(), " ".join(body[:LONGEST_TEXT].decode("utf-8", "replace").split()))


def parse_outcome(resource: Any) -> Outcome:
    """The outcome in a parsed OperationOutcome; anything else gives no codes and its JSON as text."""
    issues = resource.get("issue") if isinstance(resource, dict) else None
    if not isinstance(issues, list):
        return Outcome(frozenset(), orjson.dumps(resource)[:LONGEST_TEXT].decode("utf-8", "replace"))
    issues = [issue for issue in issues if isinstance(issue, dict)]
    codes = frozenset(str(issue.get("code")) for issue in issues)
    return Outcome(codes, "; ".join(map(_write_issue, issues))[:LONGEST_TEXT])


def _write_issue(issue: dict[str, Any]) -> str:
    details = issue.get("details")
    text = issue.get("diagnostics") or (details.get("text") if isinstance(details, dict) else None) or issue.get("code")
    paths = issue.get("expression") or issue.get("location")
    return f"{text} ({', '.join(map(str, paths))})" if isinstance(paths, list) else str(text)
