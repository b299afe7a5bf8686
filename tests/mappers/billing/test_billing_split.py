"""Splitting: the hand-written scenarios, the laws over random claims and rules, and the faults of rule sets."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappers.billing import codes
from mappers.billing.claim_view import ClaimView, Surroundings, view_claim
from mappers.billing.fields import find_code, find_extension, find_identifier
from mappers.billing.libraries import make_library, read_model
from mappers.billing.payer_settings import SiteSettings
from mappers.billing.scrub import scrub_view
from mappers.billing.site_libraries import find_library_faults
from mappers.billing.split import Split, explain_split, split_claim
from mappers.billing.split_rules import KIND, NO_RULES, RuleSet, find_rule_set, read_rule_set
from tests.mappers.billing.split_scenarios import make_view, read_rules, read_scenarios
from tests.mappers.billing.valid_claims import TODAY, make_claims

Resource = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
SCENARIOS = read_scenarios()


def title(scenario: Resource) -> str:
    return str(scenario["title"])


def again(view: ClaimView, claim: Resource) -> ClaimView:
    return view_claim(claim, view.resources, view.around)


def describe(claim: Resource, view: ClaimView, to: str, wanted: Resource) -> Resource:
    """A child in the words of a scenario, as far as the scenario tells."""
    child = again(view, claim)
    by_place = sorted(child.insurance, key=lambda each: each.sequence)
    everything = {
        "to": to,
        "payers": [each.payer_id for each in by_place],
        "provider": claim["provider"]["reference"],
        "lines": [item["id"] for item in claim["item"]],
        "count": len(claim["item"]),
        "units": str(sum(line.units for line in child.lines)),
        "total": str(claim["total"]["value"]),
        "diagnoses": [code for _, code in child.diagnoses],
    }
    return {key: everything[key] for key in wanted}


def describe_invoice(invoice: Resource, split: Split, wanted: Resource) -> Resource:
    lines = [each.line for each in split.reasons if each.number == invoice["identifier"][0]["value"]]
    factors = [line["priceComponent"][0].get("factor", Decimal(1)) for line in invoice["lineItem"]]
    everything = {
        "to": "self-pay",
        "lines": lines,
        "units": str(sum(factors)),
        "total": str(invoice["totalNet"]["value"]),
    }
    return {key: everything[key] for key in wanted}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=title)
def test_a_scenario_comes_out_as_written(scenario: Resource) -> None:
    view = make_view(scenario)
    split = split_claim(view, read_rules(scenario), "2026-04-01")
    found = {
        "claim": list(split.children),
        "hold": list(split.held),
        "self-pay": list(split.invoices),
    }
    for wanted in scenario["expected"]:
        assert found[wanted["to"]], f"nothing comes {wanted['to']}"
        each = found[wanted["to"]].pop(0)
        told = (
            describe_invoice(each, split, wanted)
            if wanted["to"] == "self-pay"
            else describe(each, view, wanted["to"], wanted)
        )
        assert told == wanted
    assert not any(found.values())


def test_the_kinds_of_the_products_all_have_a_scenario() -> None:
    """The rule kinds that practice software offers, each named once."""
    kinds = " ".join(scenario["kind"] for scenario in SCENARIOS)
    for kind in (
        "insurance active by date", "provider", "office", "referral", "demonstration", "place of service", "session",
        "appointment", "modifier", "evaluation", "CPT list by payer", "form type", "non-billable",
        "CPT to another payer",
        "hours cap per payer", "weekday", "calendar years", "max lines", "max diagnoses", "termination", "reordered",
    ):  # fmt: skip
        assert kind in kinds


@pytest.mark.parametrize("scenario", SCENARIOS, ids=title)
def test_the_page_shows_the_scenario(scenario: Resource) -> None:
    text = (ROOT / "docs" / "billing-rules.md").read_text(encoding="utf-8")
    assert f"### {scenario['title']}\n" in text
    assert scenario["text"].strip() in text
    assert scenario["rules"].strip() in text


# Random claims and rules

CONDITIONS: list[Resource] = [
    {"fact": "line.code", "starts": ["97", "9"]},
    {"fact": "line.code", "from": "80047", "to": "89398"},
    {"fact": "line.code", "list": "some"},
    {"fact": "line.units", "from": "2"},
    {"fact": "line.charge", "to": "100.00"},
    {"fact": "coverage.payer", "in": ["90001"]},
    {"fact": "coverage.payer", "in": ["90001", "90002"]},
    {"fact": "line.modifier", "in": ["25"]},
    {"fact": "line.weekday", "in": ["monday", "tuesday"]},
    {"fact": "patient.gender", "in": ["male"]},
    {"fact": "claim.lines", "from": "3"},
]
ACTIONS: list[Resource] = [
    {"action": "route", "bucket": "one"},
    {"action": "route", "bucket": "two"},
    {"action": "split", "key": "line.code"},
    {"action": "split", "key": "provider.rendering"},
    {"action": "payers", "first": ["90001"]},
    {"action": "form", "form": "institutional"},
    {"action": "cap", "units": 1},
    {"action": "cap", "units": "2.5", "per": "day", "rest": "self-pay"},
    {"action": "hold"},
    {"action": "self-pay"},
]
RULES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(CONDITIONS), max_size=2),
        st.lists(st.sampled_from(CONDITIONS), max_size=1),
        st.sampled_from(ACTIONS),
    ),
    max_size=4,
).map(
    lambda rows: RuleSet.model_validate(
        {
            "name": "random",
            "lists": {"some": ["99213-99215", "93000"]},
            "rules": [
                {"id": str(n), "because": "chance", "when": when, "unless": unless, "then": then}
                for n, (when, unless, then) in enumerate(rows)
            ],
        }
    )
)
CLAIMS = make_claims(60, seed=20)
CHANGES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["place", "date", "units", "more"])), max_size=3)


@st.composite
def views(draw: st.DrawFn) -> ClaimView:
    """A valid claim, some lines at other places, on other days, with more units."""
    claim, resources = draw(st.sampled_from(CLAIMS))
    items = [dict(item) for item in claim["item"]]
    for place, change in draw(CHANGES):
        item = items[place % len(items)]
        if change == "place":
            item["locationCodeableConcept"] = {"coding": [{"system": codes.POS, "code": "12"}]}
        elif change == "date":
            item["servicedDate"] = "2026-08-30"
        elif change == "units":
            item["quantity"] = {"value": draw(st.integers(2, 7))}
            item.pop("unitPrice", None)
        else:
            items.append({**item, "id": f"{item['id']}{len(items)}", "sequence": len(items) + 1})
    total = sum((item["net"]["value"] for item in items), Decimal("0.00"))
    site = SiteSettings.model_validate({"payers": {"90002": {"one_rendering": True}}})
    around = Surroundings(today=TODAY, site=site)
    return view_claim({**claim, "item": items, "total": {"value": total, "currency": "USD"}}, resources, around)


def all_claims(split: Split) -> list[Resource]:
    return [*split.children, *split.held]


@settings(max_examples=300)
@given(views(), RULES)
def test_totals_and_units_are_conserved_and_each_line_is_in_one_child(view: ClaimView, rules: RuleSet) -> None:
    split = split_claim(view, rules, "2026-11-20")
    children = all_claims(split)
    totals = [claim["total"]["value"] for claim in children] + [each["totalNet"]["value"] for each in split.invoices]
    assert sum(totals) == view.claim["total"]["value"]
    for claim in children:
        assert sum(item["net"]["value"] for item in claim["item"]) == claim["total"]["value"]
    places: dict[str, list[tuple[int, str]]] = {}
    for each in split.reasons:
        places.setdefault(each.line, []).append((each.part, each.number))
    assert set(places) == {item["id"] for item in view.claim["item"]}
    capped = any(rule.then.action == "cap" for rule in rules.rules)
    assert all(len(parts) == 1 for parts in places.values()) or capped
    units = sum((line.units for claim in children for line in again(view, claim).lines), Decimal(0))
    units += sum(
        (line["priceComponent"][0].get("factor", Decimal(1)) for each in split.invoices for line in each["lineItem"]),
        Decimal(0),
    )
    assert units == sum(line.units for line in view.lines)


@settings(max_examples=200)
@given(views(), RULES)
def test_pointers_name_the_same_diagnoses_as_before(view: ClaimView, rules: RuleSet) -> None:
    def named(of: ClaimView) -> dict[str, list[str]]:
        known = dict(of.diagnoses)
        return {line.item["id"]: [known[n] for n in line.item["diagnosisSequence"]] for line in of.lines}

    before = named(view)
    for claim in all_claims(split_claim(view, rules, "2026-11-20")):
        for line, diagnoses in named(again(view, claim)).items():
            assert diagnoses == before[line if line in before else line.rpartition("-")[0]]
        assert [each["sequence"] for each in claim["diagnosis"]] == list(range(1, len(claim["diagnosis"]) + 1))


@settings(max_examples=200)
@given(views(), RULES)
def test_no_diagnosis_is_lost_without_a_word(view: ClaimView, rules: RuleSet) -> None:
    """Each diagnosis of the source is in a child, or an issue names it, or its lines are the patient's own to pay."""
    split = split_claim(view, rules, "2026-11-20")
    after = {code for child in all_claims(split) for _, code in again(view, child).diagnoses}
    told = " ".join(each.diagnostics for each in split.issues)
    own = {each.line for each in split.reasons if each.state == "self-pay"}
    known = dict(view.diagnoses)
    unbilled = {known[n] for item in view.claim["item"] if item["id"] in own for n in item["diagnosisSequence"]}
    assert {code for _, code in view.diagnoses if code not in after and code not in told} <= unbilled


def test_a_diagnosis_that_no_line_points_to_goes_to_the_claims_own_payer() -> None:
    """Two lines on two days with one diagnosis each, and a third diagnosis: it joins the first child."""
    claim, resources = next(
        (claim, resources) for claim, resources in CLAIMS if len(claim["item"]) == 2 and len(claim["diagnosis"]) > 2
    )
    items = [{**item, "diagnosisSequence": [n]} for n, item in enumerate(claim["item"], 1)]
    items[1]["locationCodeableConcept"] = {"coding": [{"system": codes.POS, "code": "12"}]}
    view = view_claim({**claim, "item": items, "diagnosis": claim["diagnosis"][:3]}, resources, Surroundings(TODAY))
    split = split_claim(view, NO_RULES, "2026-11-20")
    source = [code for _, code in view.diagnoses]
    assert [[code for _, code in again(view, child).diagnoses] for child in split.children] == [
        [source[0], source[2]],
        [source[1]],
    ]
    assert split.issues == ()


@settings(max_examples=200)
@given(views(), RULES)
def test_splitting_is_deterministic_and_children_stay_as_they_are(view: ClaimView, rules: RuleSet) -> None:
    split = split_claim(view, rules, "2026-11-20")
    assert split_claim(view, rules, "2026-11-20") == split
    numbers = [find_identifier(claim, codes.PATIENT_CONTROL_NUMBER) for claim in all_claims(split)]
    assert len(set(numbers)) == len(numbers)
    for child in split.children:
        once_more = split_claim(again(view, child), rules, "2026-11-20")
        assert once_more.children == (child,) and once_more.unchanged


@settings(max_examples=200)
@given(views(), RULES)
def test_a_child_scrubs_no_worse_than_its_source(view: ClaimView, rules: RuleSet) -> None:
    before = {finding.rule for finding in scrub_view(view) if finding.severity == "error"}
    for claim in split_claim(view, rules, "2026-11-20").children:
        after = {finding.rule for finding in scrub_view(again(view, claim)) if finding.severity == "error"}
        assert after <= before


def test_children_name_their_source_and_the_version_of_the_rules() -> None:
    scenario = next(each for each in SCENARIOS if each["title"] == "Laboratory on a claim of its own")
    split = split_claim(make_view(scenario), read_rules(scenario), "2026-04-01")
    for child in split.children:
        assert child["related"][0]["claim"] == {"reference": "Claim/source"}
        assert find_code(child["related"][0]["relationship"]) == "associated"
        assert find_extension(child, codes.RULE_SET) == "riverbend|1"
        assert "id" not in child and child["status"] == "draft"
    assert "lab: the plan's laboratory unit reads these" in "\n".join(explain_split(split))
    assert len(explain_split(split)) == 3


def test_a_claim_that_is_split_already_is_refused() -> None:
    view = make_view(SCENARIOS[0])
    cancelled = again(view, {**view.claim, "status": "cancelled"})
    split = split_claim(cancelled, NO_RULES, "2026-04-01")
    assert all_claims(split) == [] and split.issues[0].code == "business-rule"


def test_the_order_of_payers_does_not_change_after_an_adjudication() -> None:
    scenario = next(each for each in SCENARIOS if each["title"] == "An accident goes to the car insurance first")
    view = make_view(scenario)
    view.claim["insurance"][0]["claimResponse"] = {"reference": "ClaimResponse/1"}
    split = split_claim(again(view, view.claim), read_rules(scenario), "2026-04-01")
    assert split.unchanged and split.held and "after one of them has adjudicated" in split.issues[0].diagnostics


def test_a_claim_adjudicated_as_a_whole_is_not_split() -> None:
    view = make_view(next(each for each in SCENARIOS if each["title"] == "A place of service is a claim"))
    first, second = (
        {"sequence": 1, "focal": False, "coverage": {"reference": "Coverage/one"}},
        {"sequence": 2, "focal": True, "coverage": {"reference": "Coverage/one"}},
    )
    first["claimResponse"] = {"reference": "ClaimResponse/1"}
    resources = {**view.resources, "ClaimResponse/1": {"resourceType": "ClaimResponse", "id": "1"}}
    split = split_claim(
        view_claim({**view.claim, "insurance": [first, second]}, resources, view.around), NO_RULES, "2026-04-01"
    )
    assert split.held and "without its lines" in split.issues[0].diagnostics


# Rule sets


HOLD: Resource = {"action": "hold"}


def one_rule(then: Resource, **condition: object) -> Resource:
    """A rule set of one rule with one condition, if any."""
    rule = {"id": "1", "because": "b", "then": then, "when": [condition] if condition else []}
    return {"name": "a", "rules": [rule]}


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({"rules": []}, "`name` is wrong: Field required."),
        (one_rule({"action": "rout"}), "`rules[0].then` is wrong"),
        (one_rule(HOLD, fact="line.cod", **{"in": ["1"]}), "there is no fact `line.cod`"),
        (one_rule(HOLD, fact="line.code"), "exactly one of `in`, `starts`, `list`"),
        (one_rule(HOLD, fact="line.units", **{"from": "many"}), "compared with numbers, and `many` is none"),
        (one_rule(HOLD, fact="line.units", starts=["1"]), "`line.units` is a number"),
        (one_rule(HOLD, fact="line.units", **{"from": "10", "to": "9"}), "`from` 10 is above `to` 9"),
        (one_rule(HOLD, fact="line.code", list="x"), "rule `1` uses the list `x`"),
        (one_rule({"action": "split", "key": "color"}), "no fact `color` to split by"),
        (one_rule({"action": "cap", "units": 0}), "`rules[0].then.cap.units` is wrong"),
        ({"name": "a", "rules": one_rule(HOLD)["rules"] * 2}, "the rule id `1` stands more than once"),
    ],
)
def test_a_fault_of_a_rule_set_is_a_sentence(tree: object, sentence: str) -> None:
    rules, issues = read_model(tree, RuleSet)
    assert rules is None
    assert sentence in issues[0].diagnostics


def library(id: str, provider: str = "", status: str = "active") -> Resource:
    made = make_library(RuleSet(name="riverbend", provider=provider), KIND, "riverbend", "3")
    return {**made, "id": id, "status": status}


def test_the_rule_set_in_force_is_the_providers_own_else_the_practices_else_none() -> None:
    own, general = library("own", "Organization/us"), library("general")
    rules, _ = find_rule_set([general, own, library("old", status="retired")], "Organization/us")
    assert rules is not None and rules.provider == "Organization/us" and rules.version == "riverbend|3"
    rules, _ = find_rule_set([general, own], "Organization/other")
    assert rules is not None and rules.provider == ""
    assert find_rule_set([], "Organization/us") == (NO_RULES, [])


def test_two_active_rule_sets_split_nothing_and_the_second_is_refused() -> None:
    first, second = library("a"), library("b")
    rules, issues = find_rule_set([first, second], "Organization/us")
    assert rules is None and "Two active rule sets" in issues[0].diagnostics
    assert (
        "`Library/a` is the active one for the practice already" in find_library_faults(second, [first])[0].diagnostics
    )
    assert find_library_faults({**second, "status": "draft"}, [first]) == []
    assert find_library_faults(library("c", "Organization/us"), [first]) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], "exactly one attachment"),
        ([{"contentType": "text/plain", "data": ""}], "exactly one attachment"),
        ([{"contentType": "application/json", "data": "%%"}], "is not JSON in base64"),
        ([{"contentType": "application/json", "data": "W10="}], "`the attachment` is wrong"),
    ],
)
def test_a_library_that_holds_no_rule_set(content: list[Resource], sentence: str) -> None:
    rules, issues = read_rule_set({**library("a"), "content": content})
    assert rules is None and sentence in issues[0].diagnostics
