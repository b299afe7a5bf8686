"""What a server answers, and the one seam that requests go through (https://hl7.org/fhir/R4/http.html#Status-Codes)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

Headers = Iterable[tuple[str, str]]

LONGEST_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: status, header lines as received (each ends with CRLF) and the complete body."""

    status: int
    headers: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of header `name`, in any case of letters."""
        wanted = name.lower().encode()
        for line in self.headers.split(b"\r\n"):
            found, _, value = line.partition(b":")
            if found.lower() == wanted:
                return value.strip().decode("latin-1")
        return None


class Sender(Protocol):
    """Takes a request to one FHIR server; `path` is relative to the FHIR base ("" for the base itself)."""

    async def send(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Answer:
        """The answer. Raises OSError (ConnectionError, TimeoutError) when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an OperationOutcome says: issue codes, and all texts with their expressions as one line."""

    codes: frozenset[str]
    text: str


def read_outcome(body: bytes) -> Outcome:
    """The outcome in a response body; a body that is not an OperationOutcome gives its own start as text."""
    try:
        resource = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Outcome(frozenset(), " ".join(body[:LONGEST_TEXT].decode("utf-8", "replace").split()))
    return outcome_of(resource)


def outcome_of(resource: Any) -> Outcome:
    """The outcome in a parsed OperationOutcome; anything else gives no codes and its JSON as text."""
    issues = resource.get("issue") if isinstance(resource, dict) else None
    if not isinstance(issues, list):
        return Outcome(frozenset(), orjson.dumps(resource)[:LONGEST_TEXT].decode("utf-8", "replace"))
    known = [issue for issue in issues if isinstance(issue, dict)]
    codes = frozenset(str(issue.get("code")) for issue in known)
    return Outcome(codes, "; ".join(map(_issue_text, known))[:LONGEST_TEXT])


def _issue_text(issue: dict[str, Any]) -> str:
    details = issue.get("details")
    text = issue.get("diagnostics") or (details.get("text") if isinstance(details, dict) else None) or issue.get("code")
    places = issue.get("expression") or issue.get("location")
    if not isinstance(places, list):
        return str(text)
    return f"{text} ({', '.join(map(str, places))})"
