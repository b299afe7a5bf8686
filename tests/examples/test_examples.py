"""The sample clinic: valid R4, closed under reference, amounts that add up, and queries that answer what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fhir_server.fhir import json_tree
from fhir_server.fhir.definitions import load
from fhir_server.partners import read_partners
from fhir_server.validation.structure import StructureValidator
from mappers.billing.assembly import AssemblySettings, assemble_claims, make_charges
from mappers.billing.claim_view import Surroundings
from mappers.billing.scrub import scrub_claim

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
FILES = sorted(EXAMPLES.glob("*.json"))
QUERY_ROW = re.compile(r"^\| `([A-Z][^`]*)` \| .* \| (\d+) \|$", re.MULTILINE)


def bundle(path: Path) -> dict[str, Any]:
    decoded: dict[str, Any] = json_tree.decode(path.read_bytes())
    return decoded


def resources(path: Path) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in bundle(path)["entry"]]


def name(resource: dict[str, Any]) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def references(tree: Any) -> Iterator[str]:
    """Every Reference.reference in a tree."""
    if isinstance(tree, dict):
        if isinstance(tree.get("reference"), str):
            yield tree["reference"]
        for value in tree.values():
            yield from references(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from references(value)


def of_type(type: str) -> dict[str, dict[str, Any]]:
    return {item["id"]: item for path in FILES for item in resources(path) if item["resourceType"] == type}


def answerable() -> dict[str, dict[str, Any]]:
    """The claims that were sent; the others are drafts."""
    return {id: claim for id, claim in of_type("Claim").items() if claim["status"] == "active"}


def amount(money: dict[str, Any]) -> Decimal:
    value = money["value"]
    return Decimal(bytes(value).decode() if isinstance(value, msgspec.Raw) else value)


def amounts(adjudication: list[dict[str, Any]]) -> dict[str, Decimal]:
    return {part["category"]["coding"][0]["code"]: amount(part["amount"]) for part in adjudication}


def test_there_are_five_bundles() -> None:
    names = ["1-practice.json", "2-people.json", "3-care.json", "4-billing.json", "5-charges.json"]
    assert [path.name for path in FILES] == names


@pytest.mark.external
def test_the_files_are_what_the_script_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "scripts.sample_clinic", str(tmp_path)], cwd=ROOT, check=True, timeout=60)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in FILES
    }


def test_every_resource_is_valid_r4() -> None:
    validator = StructureValidator(load())
    for path in FILES:
        plain = msgspec.json.decode(path.read_bytes())
        assert validator.find_issues(plain) == ()


def test_every_entry_is_put_at_its_own_id_once() -> None:
    seen: set[str] = set()
    for path in FILES:
        for entry in bundle(path)["entry"]:
            place = name(entry["resource"])
            assert entry["request"] == {"method": "PUT", "url": place}
            assert entry["fullUrl"].endswith(f"/{place}")
            assert place not in seen
            seen.add(place)


def test_every_reference_is_to_the_same_or_an_earlier_file() -> None:
    present: set[str] = set()
    for path in FILES:
        present |= {name(item) for item in resources(path)}
        dangling = {(name(item), target) for item in resources(path) for target in references(item)}
        assert [pair for pair in sorted(dangling) if pair[1] not in present] == []


def test_claims_add_up() -> None:
    claims = answerable()
    assert len(claims) == 12
    for claim in claims.values():
        for item in claim["item"]:
            assert amount(item["net"]) == amount(item["unitPrice"]) * item["quantity"]["value"]
        assert amount(claim["total"]) == sum(amount(item["net"]) for item in claim["item"])


def test_explanations_add_up_and_answer_their_claim() -> None:
    claims = answerable()
    explanations = of_type("ExplanationOfBenefit")
    assert claims.keys() - explanations.keys() == {"amina-november"}
    for id, explanation in explanations.items():
        assert explanation["claim"] == {"reference": f"Claim/{id}"}
        shares = [amounts(item["adjudication"]) for item in explanation["item"]]
        for item, share in zip(explanation["item"], shares, strict=True):
            assert share["submitted"] == amount(item["net"]) >= share["eligible"]
            assert share["eligible"] == share["copay"] + share["deductible"] + share["benefit"]
        totals = amounts(explanation["total"])
        assert totals == {category: sum(share[category] for share in shares) for category in totals}
        assert totals["submitted"] == amount(claims[id]["total"])
        assert totals["benefit"] == (amount(explanation["payment"]["amount"]) if "payment" in explanation else 0)


def by_reference() -> dict[str, dict[str, Any]]:
    everything = (each for path in FILES for each in msgspec.json.decode(path.read_bytes())["entry"])
    return {name(each["resource"]): each["resource"] for each in everything}


AROUND = Surroundings(date(2026, 11, 20))


def test_everything_that_a_clean_claim_needs_is_there() -> None:
    """The charges and Procedures that wait to be billed become claims without a finding."""
    clinic = by_reference()
    made, issues = make_charges(clinic, "2026-11-20")
    charges = [each for each in clinic.values() if each["resourceType"] == "ChargeItem"]
    made = [{**each, "id": f"made-{number}"} for number, each in enumerate(made)]
    found = assemble_claims([*charges, *made], clinic, AssemblySettings("Organization/riverbend", "2026-11-20"))
    assert issues == [] and found.issues == ()
    # By hand: 165.00 + 2 × 12.50, and 95.00 + 38.00.
    assert sorted(claim["total"]["value"] for claim in found.claims) == [Decimal("133.00"), Decimal("190.00")]
    assert [scrub_claim(claim, clinic, AROUND) for claim in found.claims] == [(), ()]


def test_the_claims_that_were_typed_have_the_faults_that_are_told() -> None:
    clinic = by_reference()
    faults = {
        "hannah-typed": {"total", "pointer-missing"},
        "linh-typed": {"diagnosis-form", "place-missing"},
    }
    for id, expected in faults.items():
        assert {each.rule for each in scrub_claim(clinic[f"Claim/{id}"], clinic, AROUND)} == expected, id


def test_the_clearinghouse_of_the_sample_is_a_partner(tmp_path: Path) -> None:
    (tmp_path / "clearinghouse.toml").write_bytes((EXAMPLES / "clearinghouse.toml").read_bytes())
    assert read_partners([tmp_path])["clearinghouse"].formats == ("x12",)


def test_booked_appointments_hold_busy_slots_at_their_time() -> None:
    slots = of_type("Slot")
    held = set()
    for appointment in of_type("Appointment").values():
        for reference in appointment.get("slot", []):
            slot = slots[reference["reference"].removeprefix("Slot/")]
            assert (slot["start"], slot["end"], slot["status"]) == (appointment["start"], appointment["end"], "busy")
            held.add(slot["id"])
    assert held == {id for id, slot in slots.items() if slot["status"] == "busy"}


@pytest.mark.anyio
async def test_the_sample_loads_twice_without_change_and_the_queries_answer(client: Any) -> None:
    for expected in ("201", "200"):
        for path in FILES:
            answer = await client.post("", content=path.read_bytes(), headers={"Content-Type": "application/fhir+json"})
            assert answer.status_code == 200, answer.text
            assert {entry["response"]["status"][:3] for entry in answer.json()["entry"]} == {expected}
    patient = (await client.get("Patient/amina-okafor")).json()
    assert patient["meta"]["versionId"] == "1"
    rows = QUERY_ROW.findall((EXAMPLES / "queries.md").read_text(encoding="utf-8"))
    assert len(rows) >= 15
    found = {}
    for query, _ in rows:
        answer = await client.get(f"{query}&_total=accurate")
        assert answer.status_code == 200, (query, answer.text)
        found[query] = answer.json()["total"]
    assert found == {query: int(count) for query, count in rows}
