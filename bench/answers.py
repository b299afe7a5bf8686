"""What a server answers, and the text of an OperationOutcome in it (https://hl7.org/fhir/R4/operationoutcome.html)."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

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
            key, _, value = line.partition(b":")
            if key.lower() == wanted:
                return value.strip().decode("latin-1")
        return None


def read_text(body: bytes) -> str:
    """What the issues of an OperationOutcome say, as one line; of any other body its beginning."""
    try:
        issues = orjson.loads(body)["issue"]
        text = "; ".join(issue.get("diagnostics") or issue["details"]["text"] for issue in issues)
    except (orjson.JSONDecodeError, AttributeError, LookupError, TypeError):
        text = " ".join(body[:LONGEST_TEXT].decode("utf-8", "replace").split())
    return text[:LONGEST_TEXT]
