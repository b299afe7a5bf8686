"""Laws of charges under any sequence of what may happen to them: each is billed once, and nothing of it is lost."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fhir_server.app import Knowledge
from mappers.billing import codes
from mappers.billing.fields import find_identifier
from tests.conftest import Client
from tests.operations.billing.claims_clinic import make_library
from tests.operations.charges.visits import assemble, charge, claims, list_charges, practice, procedure, store, visit

Tree = dict[str, Any]

IN_FORCE = ("draft", "active")
WHOSE = st.sampled_from(("a", "b"))
STEPS = st.one_of(
    st.tuples(st.just("charge"), WHOSE, st.integers(1, 99_999)),
    st.tuples(st.just("test"), WHOSE, st.integers(1, 99_999)),
    st.tuples(st.just("visit"), WHOSE, st.sampled_from(("99213", "93000"))),
    st.tuples(st.just("assemble"), st.sampled_from(("patient=Patient/a", "patient=Patient/b", "period")), st.just(0)),
    st.tuples(st.just("twice at once"), st.just("period"), st.just(0)),
    st.tuples(st.sampled_from(("cancel", "delete", "bring back", "split")), st.just(""), st.integers(0, 9)),
    st.tuples(st.sampled_from(("charge again", "drop charge")), st.just(""), st.integers(0, 9)),
)
PRICES = {"99213": Decimal("120.00"), "93000": Decimal("45.50")}


TESTS_ALONE = {
    "id": "tests",
    "because": "tests are billed on a claim of their own",
    "when": [{"fact": "line.code", "in": ["93000"]}],
    "then": {"action": "route", "bucket": "tests"},
}


class Practice:
    """What was entered, and what may be done with it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.prices: dict[str, Decimal] = {}
        self.entered: list[Tree] = []
        self.visits = 0
        self.seen: dict[str, str] = {}

    async def take(self, step: tuple[str, str, Any]) -> None:
        kind, whose, value = step
        if kind in ("charge", "test"):
            code = "99213" if kind == "charge" else "93000"
            made = charge(f"c{len(self.entered)}", whose, code, value / 100)
            await store(self.client, [made])
            self.entered.append(made)
            self.prices[f"ChargeItem/{made['id']}"] = Decimal(value) / 100
        elif kind == "visit":
            self.visits += 1
            id = f"v{self.visits}"
            await store(self.client, [visit(id, whose), procedure(id, id, whose, value)])
            self.prices[f"Procedure/{id}"] = PRICES[value]
        elif kind in ("assemble", "twice at once"):
            times = 2 if kind == "twice at once" else 1
            for answer in await asyncio.gather(*(self.assemble(whose) for _ in range(times))):
                claims(answer)
        elif kind in ("cancel", "delete", "bring back", "split"):
            await self.change_claim(kind, value)
        elif self.entered:
            made = self.entered[value % len(self.entered)]
            reference = f"ChargeItem/{made['id']}"
            # Refused while a claim bills it; dropped, it is entered again at once, so that nothing is missing.
            if kind == "drop charge":
                assert (await self.client.delete(reference)).status_code in (200, 204, 409, 422)
            assert (await self.client.put(reference, json=made)).status_code in (200, 201, 422)

    async def assemble(self, whose: str) -> Any:
        asked = {"start": "2026-03-02", "end": "2026-03-02"} if whose == "period" else dict([whose.split("=")])
        return await assemble(self.client, **asked)

    async def change_claim(self, kind: str, value: int) -> None:
        known = await self.list_all("Claim")
        if not known:
            return
        claim = known[value % len(known)]
        if kind == "delete":
            assert (await self.client.delete(f"Claim/{claim['id']}")).status_code in (200, 204, 409, 422)
            return
        if kind == "split":
            commit = {"resourceType": "Parameters", "parameter": [{"name": "commit", "valueBoolean": True}]}
            answer = await self.client.fhir("POST", f"Claim/{claim['id']}/$split", json=commit)
            assert answer.status_code in (200, 409, 422), answer.text
            return
        changed = {**claim, "status": "cancelled" if kind == "cancel" else "draft"}
        assert (await self.client.put(f"Claim/{claim['id']}", json=changed)).status_code in (200, 422)

    async def list_all(self, type: str) -> list[Tree]:
        answer = (await self.client.get(f"{type}?_count=500")).json()
        return [each["resource"] for each in answer.get("entry", ())]

    async def check(self) -> list[Tree]:
        """What holds at any time; gives the claims in force."""
        everything = await self.list_all("Claim")
        for each in everything:
            number = find_identifier(each, codes.PATIENT_CONTROL_NUMBER)
            assert self.seen.setdefault(number, each["id"]) == each["id"]
        found = [each for each in everything if each["status"] in IN_FORCE]
        billed = [each for claim in found for each in list_charges(claim)]
        assert len(billed) == len(set(billed))
        charges = {f"ChargeItem/{each['id']}": each["status"] for each in await self.list_all("ChargeItem")}
        assert {each for each, status in charges.items() if status == "billed"} == set(billed)
        return found


BILLED_APART: list[tuple[str, str, Any]] = [
    ("charge", "a", 100),
    ("test", "a", 200),
    ("assemble", "period", 0),
    ("split", "", 0),
]


def test_a_part_of_a_split_gives_back_its_own_charges_alone(known: Knowledge) -> None:
    async def live() -> None:
        async with practice(known) as client:
            clinic = Practice(client)
            await store(client, [make_library("rules", "claim-split-rules", {"name": "us", "rules": [TESTS_ALONE]})])
            for step in BILLED_APART:
                await clinic.take(step)
            parts = await clinic.check()
            assert sorted(map(list_charges, parts)) == [["ChargeItem/c0"], ["ChargeItem/c1"]]
            (tests,) = [each for each in parts if list_charges(each) == ["ChargeItem/c1"]]
            await store(client, [{**tests, "status": "cancelled"}])
            found = claims(await assemble(client, patient="Patient/a"))
            assert sorted(map(list_charges, found)) == [["ChargeItem/c0"], ["ChargeItem/c1"]]
            assert len(await clinic.check()) == 2

    asyncio.run(live())


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(steps=[*BILLED_APART, ("cancel", "", 0), ("cancel", "", 1), ("twice at once", "period", 0), ("split", "", 2)])
@given(steps=st.lists(STEPS, max_size=14))
def test_each_charge_is_billed_once_whatever_happens(known: Knowledge, steps: list[tuple[str, str, Any]]) -> None:
    async def live() -> None:
        async with practice(known) as client:
            clinic = Practice(client)
            await store(client, [make_library("rules", "claim-split-rules", {"name": "us", "rules": [TESTS_ALONE]})])
            for step in steps:
                await clinic.take(step)
                await clinic.check()
            await clinic.take(("assemble", "period", 0))
            found = await clinic.check()
            total = sum((Decimal(str(each["total"]["value"])) for each in found), Decimal(0))
            assert total == sum(clinic.prices.values())
            assert sum(len(each["item"]) for each in found) == len(clinic.prices)

    asyncio.run(live())


REASONS = st.lists(st.sampled_from([f"E11.{n:02d}" for n in range(30)]), min_size=1, max_size=4, unique=True)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(REASONS, min_size=1, max_size=60))
def test_no_diagnosis_is_dropped_and_every_line_points_to_its_own(known: Knowledge, rows: list[list[str]]) -> None:
    """As many claims as it takes: at most 12 diagnoses and 50 lines each (837P loops 2300 HI and 2400 LX)."""

    async def live() -> None:
        async with practice(known) as client:
            made = [charge(f"c{n:02}", "a", price=1.0) for n in range(len(rows))]
            for each, reasons in zip(made, rows, strict=True):
                each["reason"] = [{"coding": [{"system": codes.ICD_10_CM, "code": code}]} for code in reasons]
            await store(client, made)
            told: dict[str, list[str]] = {}
            for claim in claims(await assemble(client, patient="Patient/a")):
                diagnoses = [e["diagnosisCodeableConcept"]["coding"][0]["code"] for e in claim["diagnosis"]]
                assert len(diagnoses) == len(set(diagnoses)) <= 12 and len(claim["item"]) <= 50
                for item, name in zip(claim["item"], list_charges(claim), strict=True):
                    told[name] = [diagnoses[n - 1] for n in item["diagnosisSequence"]]
            assert told == {f"ChargeItem/c{n:02}": reasons for n, reasons in enumerate(rows)}

    asyncio.run(live())
