"""The phase of claims asks the server for what `docs/bench.md` says, and is answered rightly by it."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from bench import claims
from bench.claims import list_visits, make_practice
from bench.http import parse_target
from bench.measuring import Limits
from bench.run import Work, run_bench
from tests.faults.process import serving_process


def test_a_visit_has_two_procedures_that_are_priced_and_not_charged() -> None:
    (visit, other) = list_visits(date(2001, 2, 3), 2)
    types = Counter(each["resourceType"] for each in visit)
    assert types == {"Patient": 1, "Coverage": 1, "Encounter": 1, "Procedure": 2}
    assert {each["id"] for each in visit}.isdisjoint(each["id"] for each in other)
    priced = [each["code"] for each in make_practice() if each["resourceType"] == "ChargeItemDefinition"]
    assert [each["code"] for each in visit if each["resourceType"] == "Procedure"] == priced


@pytest.mark.external
def test_the_server_assembles_the_day_and_judges_each_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "VISITS", 5)
    with serving_process(tmp_path / "fhir.db") as process:
        (result,) = asyncio.run(
            run_bench([parse_target(process.base)], ["claims"], Work(Limits(60)), 2, lambda name: None)
        )
    assert result.samples.errors == Counter(), result.samples.first_texts
    done = {label: len(took) for label, took in result.samples.latencies.items()}
    assert done == {"assemble a day": 1, "scrub": 5, "split": 5}
