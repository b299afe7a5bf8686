"""The practice of the phases of money adds up, and the phases ask the server for what `docs/bench.md` says."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from bench import money
from bench.http import parse_target
from bench.measuring import Limits
from bench.practice import PRICES, Practice
from bench.run import Work, run_bench
from fhir_server.workers.posting.intake import read_sets, to_remittance
from mappers.billing.remittance import check_balance
from mappers.x12.structure import check_interchange
from tests.faults.process import ROOT, serving_process

PRACTICE = Practice("B000001", date(2026, 3, 2))


def test_the_835_adds_up_and_answers_the_claims() -> None:
    text = PRACTICE.write_835([range(20), range(20, 33)])
    assert check_interchange(text.decode()) == ()
    first, second = (to_remittance(each) for each in read_sets(text))
    assert first is not None and second is not None
    assert check_balance(first) == ((), {}, ()) == check_balance(second)
    assert [each.control_number for each in first.claims] == [f"B000001N{n}" for n in range(20)]
    denied = [each.control_number for each in first.claims if not each.paid]
    assert denied == ["B000001N3", "B000001N13"]
    assert first.amount == Decimal(18 * sum(PRICES) * 6 // 10) and len(second.claims) == 13


def test_the_835_is_the_same_for_the_same_mark_and_day() -> None:
    assert PRACTICE.write_835([range(5)]) == Practice("B000001", date(2026, 3, 2)).write_835([range(5)])


def test_every_resource_of_the_practice_is_made_once() -> None:
    bundles = list(PRACTICE.list_bundles(range(30)))
    names = [f"{each['resourceType']}/{each['id']}" for bundle in bundles for each in bundle]
    assert max(Counter(names).values()) == 1
    assert Counter(name.partition("/")[0] for name in names) == {
        "Patient": 8, "Account": 8, "Coverage": 16, "ChargeItem": 90, "Claim": 30,
    }  # fmt: skip


@pytest.mark.external
def test_the_server_posts_what_the_bench_sends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("READS_BEFORE", 0.2), ("LARGEST_SET", 8)):
        monkeypatch.setattr(money, name, value)
    with serving_process(tmp_path / "fhir.db", profiles=str(ROOT / "bench" / "site")) as process:
        work = Work(Limits(None), claims=11)
        results = asyncio.run(run_bench([parse_target(process.base)], ["money", "aging"], work, 2, lambda name: None))
    assert [each.phase for each in results] == ["money, reads before", "money, 835", "money, reads beside", "aging"]
    assert all(each.samples.errors == Counter() and each.samples.ok for each in results)
    posted = results[1].samples
    assert {label: len(took) for label, took in posted.latencies.items()} == {"taken in": 1, "set posted": 2}
    assert posted.resources == 11
