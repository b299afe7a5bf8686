"""The phase of HL7 v2 sends what `docs/bench.md` says, and a listener with the partner of `bench/site` stores it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from bench.http import parse_target
from bench.measuring import Lane, Limits
from bench.messages import MESSAGES, Receiver, measure_messages
from bench.run import PHASES, Work, run_bench
from fhir_server.workers.hl7v2_interpreter import read_message
from mappers.hl7v2.bundle import build_bundle
from mappers.hl7v2.mapping import map_message
from mappers.hl7v2.partner import Partner
from tests.faults.process import ROOT, serving_process


@pytest.mark.parametrize(
    ("label", "types"),
    [
        (
            "ADT^A01",
            {"Patient", "Account", "Encounter", "RelatedPerson", "AllergyIntolerance", "Condition", "Coverage"},
        ),
        ("ADT^A08", {"Patient"}),
        ("ORU^R01", {"Patient", "DiagnosticReport", "Observation"}),
    ],
)
def test_each_message_says_what_the_page_tells_without_a_warning(label: str, types: set[str]) -> None:
    message, _ = read_message(MESSAGES[label]("M", 5))
    assert message is not None
    built = build_bundle(map_message(message, Partner(name="bench-ehr", zone="America/Chicago")))
    assert built.bundle is not None
    assert types <= {each["resource"]["resourceType"] for each in built.bundle["entry"]}
    assert not [each.text for each in built.issues if each.severity != "information"]


@pytest.mark.external
def test_a_listener_stores_what_the_phase_sends(tmp_path: Path) -> None:
    database = tmp_path / "fhir.db"
    environment = {**os.environ, "FHIR_PROFILES": "bench/site"}
    command = [sys.executable, "-m", "fhir_server", "hl7v2", "listen", "--port", "0", "--workers", "1"]
    with serving_process(database) as process:
        listener = subprocess.Popen(
            [*command, "--store", f"sqlite:///{database}"], cwd=ROOT, env=environment, stdout=subprocess.PIPE
        )
        try:
            assert listener.stdout is not None
            found = re.search(r":(\d+) \(store", listener.stdout.readline().decode())
            assert found
            work = Work(Limits(None, 20), ports=(int(found[1]),))
            results = asyncio.run(run_bench([parse_target(process.base)], ["hl7v2"], work, 2, lambda name: None))
        finally:
            listener.terminate()
            listener.wait(20)
            if listener.stdout is not None:
                listener.stdout.close()
        for each in results:
            assert each.samples.errors == Counter(), each.samples.first_texts
        assert {each.phase: each.samples.ok for each in results} == dict.fromkeys(
            ("hl7v2, ADT^A01", "hl7v2, ADT^A08", "hl7v2, ORU^R01"), 20
        )
        totals = {
            type: httpx.get(f"{process.base}/{type}?_summary=count", timeout=60).json()["total"]
            for type in ("Patient", "Encounter", "DiagnosticReport", "Observation")
        }
    # updates and results are about numbers 2 to 21, of which the last has not been admitted
    assert totals == {"Patient": 21, "Encounter": 20, "DiagnosticReport": 20, "Observation": 60}


def test_without_the_port_of_each_listener_it_says_what_is_missing() -> None:
    async def measure() -> None:
        await PHASES["hl7v2"]([Lane(parse_target("http://127.0.0.1:1/fhir"), [])], Work(Limits(1)))

    with pytest.raises(ValueError, match="--mllp PORT"):
        asyncio.run(measure())


def test_a_listener_that_is_not_there_is_told() -> None:
    with pytest.raises(OSError, match="1"):
        asyncio.run(measure_messages([Receiver("127.0.0.1", 1)], Limits(None, 1)))
