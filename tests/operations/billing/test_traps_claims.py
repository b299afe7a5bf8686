"""What people who send claims reported: every row has its tests, here by name; rows of payments stand with theirs."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from mappers.billing import codes
from tests.conftest import Client, serving
from tests.mappers.x12.test_x12_tokenizer import isa
from tests.operations.billing.claims_clinic import claims_clinic, put, read, rules_of
from tests.operations.billing.test_transmit import clinic, read_text, segments, transmit
from tests.shared import SHARED, shared_path
from tests.workers.test_x12_files import write_site
from tests.workers.test_x12_inquiries import fill, find, say_271
from tests.workers.test_x12_inquiries import transmit as ask_payer
from tests.workers.x12_files import file, group, pick, post, remittance, write_plan

pytestmark = pytest.mark.anyio

Tree = dict[str, Any]

TESTS = Path(__file__).resolve().parents[2]
X12 = "mappers/x12/test_x12_{}.py"
CLAIM, STRUCTURE, TOKENIZER, REMITTANCE, ELIGIBILITY = (
    X12.format(name) for name in ("claim", "structure", "tokenizer", "remittance", "eligibility")
)
SCRUB, FORM = "mappers/billing/test_billing_scrub.py", "mappers/billing/test_cms1500.py"
HERE, TRANSMIT, PROCESSES, STATES = (
    f"operations/billing/test_{name}.py" for name in ("traps_claims", "transmit", "transmit_processes", "claim_states")
)
FOLDER = "transports/test_folder.py"

TRAPS: dict[str, tuple[tuple[str, str], ...]] = {
    # row of traps.md → file and test
    "B9": (
        (SCRUB, "test_a_rule_has_a_claim_that_passes_and_one_that_fails"),
        (SCRUB, "test_a_secondary_claim_that_does_not_balance_says_what_is_missing"),
        (CLAIM, "test_a_decision_for_the_whole_claim_stands_at_the_claim_and_zero_is_written"),
        (CLAIM, "test_a_decision_that_does_not_add_up_refuses_the_claim_alone"),
        (STRUCTURE, "test_faults_of_another_payers_decision_are_found"),
        (HERE, "test_b9_b10_a_secondary_claim_is_held_for_ten_dollars_and_warned_for_the_number"),
    ),
    "B10": (
        (CLAIM, "test_a_secondary_claim_tells_what_the_primary_decided_for_each_line"),
        (HERE, "test_b9_b10_a_secondary_claim_is_held_for_ten_dollars_and_warned_for_the_number"),
    ),
    "B13": (
        (CLAIM, "test_subscriber_and_dependent_share_the_levels_above_them"),
        (STRUCTURE, "test_each_fault_is_found"),
        (TRANSMIT, "test_a_clean_claim_goes_out_as_an_837p_with_one_delivery"),
    ),
    "B14": (
        (TRANSMIT, "test_two_batches_at_one_moment_are_two_files"),
        (FOLDER, "test_a_file_with_other_bytes_is_never_overwritten"),
        (FOLDER, "test_no_reader_ever_sees_half_a_file"),
        (FOLDER, "test_a_killed_process_leaves_whole_files_and_nothing_is_written_twice"),
    ),
    "B15": (
        (TRANSMIT, "test_clean_claims_go_and_bad_ones_are_told_of_singly"),
        (HERE, "test_b15_one_without_address_one_without_npi_and_the_third_goes"),
        (SCRUB, "test_a_rule_has_a_claim_that_passes_and_one_that_fails"),
    ),
    "B16": (
        (TRANSMIT, "test_a_claim_that_is_sent_answers_its_transmission"),
        (TRANSMIT, "test_parallel_calls_send_each_claim_once"),
        (PROCESSES, "test_two_processes_send_each_claim_once"),
        (PROCESSES, "test_a_server_killed_while_it_sends_loses_and_doubles_nothing"),
    ),
    "B18": (
        (CLAIM, "test_a_control_number_that_would_not_come_back_is_refused"),
        (CLAIM, "test_control_numbers_of_lines_are_unique_even_where_the_items_have_none"),
        (STATES, "test_a_patient_control_number_is_of_one_claim_for_ever"),
        (REMITTANCE, "test_a_control_number_that_was_cut_is_a_candidate_only"),
        (FORM, "test_what_does_not_fit_is_told_or_refused"),
    ),
    "B19": (
        (CLAIM, "test_assignment_and_release_come_from_the_claim"),
        (CLAIM, "test_assignment_comes_from_the_coverage_or_the_payers_default_where_the_claim_says_nothing"),
        (HERE, "test_b19_file_and_form_say_the_same_of_assignment"),
    ),
    "B20": (
        (CLAIM, "test_a_code_for_what_has_no_code_is_described"),
        (HERE, "test_b20_an_unlisted_code_needs_its_description"),
    ),
    "B21": (
        (CLAIM, "test_each_element_of_each_kind_of_envelope"),
        (HERE, "test_b21_each_kind_of_envelope_by_its_file"),
    ),
    "B22": (
        (TOKENIZER, "test_isa11_separates_repetitions_only_from_00402_on_and_when_it_is_no_letter_or_digit"),
        (TOKENIZER, "test_a_u_in_isa11_eats_no_letters_of_a_name"),
        (TOKENIZER, "test_terminator_and_line_breaks_are_read_from_isa"),
        (TOKENIZER, "test_element_and_component_separators_are_read_from_isa"),
        (HERE, "test_b22_any_terminator_is_taken"),
    ),
    "B24": (
        (ELIGIBILITY, "test_what_stands_below_a_dependent_is_the_dependents"),
        (HERE, "test_b24_what_a_dependent_has_is_the_dependents"),
    ),
}

PAYMENTS = frozenset({"B1", "B3", "B4", "B6", "B7", "B11", "B25", "B26", "B28", "B30"})
"""Rows of what comes back from payers and patients, which are shown by the tests of payments."""


@cache
def list_tests(path: str) -> frozenset[str]:
    """The names of the functions of a test file."""
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("row", TRAPS)
def test_every_row_has_tests_at_the_functions_and_over_http(row: str) -> None:
    assert [each for each in TRAPS[row] if each[1] not in list_tests(each[0])] == []
    assert len({path for path, _ in TRAPS[row]}) >= 2


@pytest.mark.skipif(SHARED is None, reason="the reported faults are in the shared folder")
def test_every_reported_row_of_claims_is_here() -> None:
    text = shared_path("mapping/traps.md").read_text(encoding="utf-8")
    assert TRAPS.keys() | PAYMENTS == set(re.findall(r"^\| (B\d+) \|", text, re.MULTILINE))


def adjudicate(group: str, reason: str, amount: float) -> Tree:
    return {
        "category": {"coding": [{"system": codes.GROUP, "code": group}]},
        "reason": {"coding": [{"system": codes.CARC, "code": reason}]},
        "amount": {"value": amount, "currency": "USD"},
    }


async def make_secondary(client: Client, claim: Tree, paid: float, adjusted: float) -> Tree:
    """The claim as secondary: one line of 100.00 of which a first payer has paid and adjusted so much."""
    coverage = await read(client, claim["insurance"][0]["coverage"]["reference"])
    await put(client, {**coverage, "id": "first"})
    paid_code = {"system": "http://terminology.hl7.org/CodeSystem/adjudication", "code": "benefit"}
    benefit = {"category": {"coding": [paid_code]}, "amount": {"value": paid, "currency": "USD"}}
    response = {
        "resourceType": "ClaimResponse",
        "id": "r1",
        "status": "active",
        "type": claim["type"],
        "use": "claim",
        "patient": claim["patient"],
        "created": "2026-11-20",
        "insurer": coverage["payor"][0],
        "outcome": "complete",
        "payment": {
            "type": {"text": "complete"},
            "amount": {"value": paid, "currency": "USD"},
            "date": "2026-11-19",
        },
        "item": [{"itemSequence": 1, "adjudication": [benefit, adjudicate("CO", "45", adjusted)]}],
    }
    await put(client, response)
    item = {**claim["item"][0], "net": {"value": 100, "currency": "USD"}, "quantity": {"value": 1}}
    item.pop("unitPrice", None)
    own = {"sequence": 2, "focal": True, "coverage": claim["insurance"][0]["coverage"]}
    first = {
        "sequence": 1,
        "focal": False,
        "coverage": {"reference": "Coverage/first"},
        "claimResponse": {"reference": "ClaimResponse/r1"},
    }
    changed = {**claim, "item": [item], "total": {"value": 100, "currency": "USD"}, "insurance": [first, own]}
    return await put(client, changed)


async def test_b9_b10_a_secondary_claim_is_held_for_ten_dollars_and_warned_for_the_number(known: Knowledge) -> None:
    """100 billed, 60 paid, 30 adjusted: SV102 = SVD02 + ΣCAS lacks 10.00; REF*F8 of 2330B is missing."""
    async with claims_clinic(known) as (client, (claim,)):
        await make_secondary(client, claim, 60, 30)
        outcome = (await client.fhir("POST", "Claim/c00000/$scrub")).json()
        (error,) = [each for each in outcome["issue"] if each["severity"] == "error"]
        assert error["location"][0].startswith("2430/") and "10.00 missing" in error["diagnostics"]
        (warning,) = [each for each in outcome["issue"] if "prior-number" in rules_of({"issue": [each]})]
        assert (warning["severity"], warning["location"]) == ("warning", ["2330B/REF02"])
        await make_secondary(client, claim, 60, 40)
        assert "prior-line-balance" not in rules_of((await client.fhir("POST", "Claim/c00000/$scrub")).json())


async def test_b15_one_without_address_one_without_npi_and_the_third_goes(known: Knowledge, tmp_path: Path) -> None:
    async with clinic(known, tmp_path, count=3) as (client, claims):
        patient = await read(client, claims[0]["patient"]["reference"])
        await put(client, {key: value for key, value in patient.items() if key != "address"})
        team = [*claims[1]["careTeam"][:1], {"sequence": 2, "provider": {"reference": "Practitioner/r00001"}}]
        team[1]["role"] = {"coding": [{"code": "referring"}]}
        await put(client, {**claims[1], "careTeam": team})
        referring = await read(client, "Practitioner/r00001")
        await put(client, {key: value for key, value in referring.items() if key != "identifier"})
        cases = await transmit(client, *(f"Claim/{each['id']}" for each in claims))
        assert [each["state"] for each in cases] == ["held", "held", "sent"]
        assert "patient-address" in rules_of(cases[0]["outcome"]) and "referring-npi" in rules_of(cases[1]["outcome"])
        assert [each[1] for each in segments(await read_text(client, cases[2]["transmission"]), "CLM")] == ["T00002"]


@pytest.mark.parametrize(("code", "clm07", "column"), [("A", "A", 38), ("C", "C", 43), ("B", "B", 43)])
async def test_b19_file_and_form_say_the_same_of_assignment(
    known: Knowledge, tmp_path: Path, code: str, clm07: str, column: int
) -> None:
    """CLM07 A is assigned; box 27 has YES at column 38 and NO at 43."""
    url = "https://fhir-server.example/StructureDefinition/claim-assignment"
    async with clinic(known, tmp_path) as (client, (claim,)):
        await put(client, {**claim, "extension": [{"url": url, "valueCode": code}]})
        form = (await client.fhir("GET", "Claim/c00000/$cms1500")).json()
        boxes = [{part["name"]: part for part in box["part"]} for box in form["parameter"][0]["part"]]
        (assignment,) = [each for each in boxes if each.get("item", {}).get("valueString") == "27"]
        assert assignment["column"]["valueInteger"] == column
        (case,) = await transmit(client, "Claim/c00000")
        assert segments(await read_text(client, case["transmission"]), "CLM")[0][7] == clm07


async def test_b20_an_unlisted_code_needs_its_description(known: Knowledge, tmp_path: Path) -> None:
    async with clinic(known, tmp_path) as (client, (claim,)):
        drug: Tree = {
            "coding": [{"system": "https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets", "code": "J3490"}]
        }
        ndc = {"coding": [{"system": codes.NDC, "code": "00026063512"}]}
        detail = [{"sequence": 1, "productOrService": ndc, "quantity": {"value": 1, "unit": "ML"}}]
        item = {**claim["item"][0], "productOrService": drug, "detail": detail}
        item.pop("modifier", None)
        bare = {**claim, "item": [item], "total": item["net"]}
        await put(client, bare)
        (case,) = await transmit(client, "Claim/c00000")
        (issue,) = [each for each in case["outcome"]["issue"] if each["severity"] == "error"]
        assert (case["state"], issue["location"], rules_of({"issue": [issue]})) == (
            "held",
            ["2400/SV101-7"],
            ["code-text"],
        )
        drug["text"] = "Compounded cream"
        await put(client, bare)
        (case,) = await transmit(client, "Claim/c00000")
        (service,) = segments(await read_text(client, case["transmission"]), "SV1")
        assert service[1] == "HC:J3490:::::COMPOUNDED CREAM"


SIDES = {
    # the file's envelope, ours and theirs → ISA05 to 08, GS02 and 03, NM1*41, NM1*40
    "direct": ("CLINIC7", "Good Clinic", "90001", "Plan 1"),
    "clearinghouse": ("CLINIC7", "Good Clinic", "HOUSE", "Claim House"),
    "billing-company": ("BILLCO", "Bill and Co", "HOUSE", "Claim House"),
}


@pytest.mark.parametrize("envelope", SIDES)
async def test_b21_each_kind_of_envelope_by_its_file(known: Knowledge, tmp_path: Path, envelope: str) -> None:
    """Who submits is ISA06, GS02 and NM1*41; who receives ISA08, GS03 and NM1*40; 2010AA is the practice in all."""
    ours, our_name, theirs, their_name = SIDES[envelope]
    (tmp_path / "partners").mkdir()
    (tmp_path / "out").mkdir()
    payers = '["90001", "90002", "90003"]'
    (tmp_path / "partners" / "p.toml").write_text(
        f'name = "p"\nformats = ["x12"]\n[transports.folder]\nout = "{tmp_path}/out"\n[x12]\nenvelope = "{envelope}"\n'
        f'payers = {payers}\n[x12.ours]\nid = "{ours}"\nname = "{our_name}"\ncontact = "Ann Hall"\n'
        'phone = "5555551212"\n'
        f'[x12.theirs]\nqualifier = "30"\nid = "{theirs}"\nname = "{their_name}"\n'
    )
    async with claims_clinic(known, profiles=str(tmp_path)) as (client, _):
        (case,) = await transmit(client, "Claim/c00000")
        text = await read_text(client, case["transmission"])
        (header,) = segments(text, "ISA")
        assert [each.strip() for each in header[5:9]] == ["ZZ", ours, "30", theirs]
        assert segments(text, "GS")[0][2:4] == [ours, theirs]
        names = {each[1]: (each[3], each[8:]) for each in segments(text, "NM1")}
        assert names["41"] == (our_name.upper(), ["46", ours]) and names["40"] == (their_name.upper(), ["46", theirs])
        assert segments(text, "PER")[0][1:] == ["IC", "ANN HALL", "TE", "5555551212"]
        assert names["85"][0] == "RIVERBEND FAMILY PRACTICE"


@pytest.mark.parametrize("terminator", ["\n", "'"])
async def test_b22_any_terminator_is_taken(known: Knowledge, tmp_path: Path, terminator: str) -> None:
    async with serving(known, store="memory://", profiles=write_plan(tmp_path)) as client:
        answer = await post(client, file(group(remittance()), header=isa()).replace("~", terminator))
        assert pick(answer, "IK5", "AK9") == ["IK5*A", "AK9*A*1*1*1"]


async def test_b24_what_a_dependent_has_is_the_dependents(known: Knowledge, tmp_path: Path) -> None:
    """HL 22 Jane, HL 23 Bo: copays of 25.00 for the service types 98 and 33 are his, one item each."""
    async with serving(known, store="memory://", profiles=write_site(tmp_path), references="allow") as client:
        await fill(client)
        await put(client, {**await read(client, "Coverage/cov"), "beneficiary": {"reference": "Patient/bo"},
                           "relationship": {"coding": [{"code": "child"}]}})  # fmt: skip
        asked = await read(client, "CoverageEligibilityRequest/ask")
        await put(client, {**asked, "patient": {"reference": "Patient/bo"}})
        sent = await ask_payer(client)
        assert sent.status_code == 201, sent.text
        dependent = (
            "NM1*IL*1*DOE*JANE****MI*MEM123~HL*4*3*23*0~TRN*2*000000001*9SUBMITTER~NM1*03*1*DOE*BO~"
            "EB*B**98^33*HM**27*25*****Y~"
        )
        answer = await post(client, say_271(dependent))
        assert "IK5*A" in answer.text, answer.text
        (response,) = await find(client, "CoverageEligibilityResponse")
        assert response["patient"]["reference"] == "Patient/bo"
        items = response["insurance"][0]["item"]
        assert [each["category"]["coding"][0]["code"] for each in items] == ["98", "33"]
        assert [each["benefit"][0]["allowedMoney"]["value"] for each in items] == [25, 25]
