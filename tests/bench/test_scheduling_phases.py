"""The phases of scheduling ask the server for what `docs/bench.md` says, and are answered rightly by it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path

import pytest

from bench import scheduling
from bench.http import parse_target
from bench.measuring import Limits
from bench.run import Work, run_bench
from bench.scheduling import list_visits, make_providers
from tests.fake_fhir import FakeFhir, served
from tests.faults.process import serving_process


def test_the_visits_of_a_provider_never_overlap() -> None:
    ids, resources = make_providers(3)
    assert Counter(each["resourceType"] for each in resources) == {
        "Practitioner": 3,
        "PractitionerRole": 3,
        "Schedule": 3,
    }
    visits = list(itertools.islice(list_visits(ids), 3 * 45))
    for id in ids:
        own = [each for each in visits if id in each["participant"][0]["actor"]["reference"]]
        assert len(own) == 45
        assert all(first["end"] <= second["start"] for first, second in itertools.pairwise(own))
        assert {"08:00" <= each["start"][11:16] < "18:00" for each in own} == {True}


def test_plain_appointments_are_created_one_by_one() -> None:
    fake = FakeFhir()
    with served(fake) as url:
        (result,) = asyncio.run(
            run_bench([parse_target(url)], ["appointments"], Work(Limits(30, 50)), 2, lambda name: None)
        )
    assert (result.samples.ok, result.samples.errors) == (50, Counter())
    types = Counter(name.partition("/")[0] for name in fake.resources)
    assert types == {"Practitioner": 20, "PractitionerRole": 20, "Schedule": 20, "Appointment": 50}


@pytest.mark.external
def test_the_server_answers_all_three_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("DAYS", 1), ("PROVIDERS", 3), ("VISITS", 4)):
        monkeypatch.setattr(scheduling, name, value)
    with serving_process(tmp_path / "fhir.db") as process:
        phases = ["find", "book", "appointments"]
        results = asyncio.run(
            run_bench([parse_target(process.base)], phases, Work(Limits(60, 8)), 2, lambda name: None)
        )
    assert [(each.phase, each.samples.ok, each.samples.errors) for each in results] == [
        (phase, 8, Counter()) for phase in phases
    ]
