"""Counts what became of each resource, and keeps a line for every failure (https://hl7.org/fhir/R4/http.html#transaction-response)."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import datetime
from typing import Literal, TextIO

from fhir_server.commands.loading.inputs import Failure

Result = Literal["created", "updated", "unchanged", "deleted", "read", "failed"]
RESULTS: tuple[Result, ...] = ("created", "updated", "unchanged", "deleted", "read", "failed")

SHOWN = 10


def find_result(method: str, status: int, etag: str, modified: datetime | None, started: datetime) -> Result:
    """What an answered entry did.

    A write answered 200 changed nothing when its version is the first one or is older than the load (server's clock).
    """
    if status >= 400:
        return "failed"
    if method in ("GET", "HEAD"):
        return "read"
    if method == "DELETE":
        return "deleted"
    if status == 201:
        return "created"
    is_older = modified is not None and modified < started
    return "unchanged" if method == "POST" or is_older or etag.strip("W/\"'") == "1" else "updated"


class Tally:
    """Results by resource type, and failures; each failure is written to `report` (NDJSON) as soon as it is certain."""

    def __init__(self, report: TextIO | None = None) -> None:
        self.by_type: defaultdict[str, Counter[Result]] = defaultdict(Counter)
        self.failures = 0
        self.first_failures: list[Failure] = []
        self._report = report

    @property
    def resources(self) -> int:
        """How many resources have a result."""
        return sum(counts.total() for counts in self.by_type.values())

    def total(self, result: Result) -> int:
        """How many resources ended so, over all types."""
        return sum(counts[result] for counts in self.by_type.values())

    def add(self, type: str, result: Result) -> None:
        """Count one resource."""
        self.by_type[type][result] += 1

    def fail(self, failure: Failure) -> None:
        """Count and report a failure, and as failed every resource that it kept out."""
        self.failures += 1
        for type in failure.types:
            self.add(type, "failed")
        if len(self.first_failures) < SHOWN:
            self.first_failures.append(failure)
        if self._report is not None:
            line = {"file": failure.source, "entry": failure.entry, "status": failure.status, "text": failure.text}
            self._report.write(json.dumps(line, ensure_ascii=False) + "\n")
