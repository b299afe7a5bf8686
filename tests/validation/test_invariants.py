"""Each invariant with objects that keep and that break it; the official expression, read by fhirpathpy, must agree."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
from fhirpathpy import evaluate
from fhirpathpy.models import models

from fhir_server.app import Knowledge, load_knowledge
from fhir_server.settings import Settings
from fhir_server.validation.invariants import INVARIANTS
from fhir_server.validation.structure import StructureValidator
from tests.conftest import serving
from tests.shared import shared_path
from tests.validation.corpora import package

UCUM = "http://unitsofmeasure.org"
T = "http://terminology.hl7.org/CodeSystem"


def coded(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": f"{T}/{system}", "code": code}]}


VOID_ALLERGY = {"verificationStatus": coded("allergyintolerance-verification", "entered-in-error")}
VOID_CONDITION = {"verificationStatus": coded("condition-ver-status", "entered-in-error")}
ACTIVE, RESOLVED = (
    {"clinicalStatus": coded("condition-clinical", "active")},
    {"clinicalStatus": coded("condition-clinical", "resolved")},
)
UNIT = {"value": 1, "code": "a", "system": UCUM}
TIMES = {"start": "2026-01-01T09:00:00Z", "end": "2026-01-01T10:00:00Z"}
REQUEST = {"request": {"method": "GET", "url": "Patient"}}
RESPONSE = {"response": {"status": "200"}}
RESOURCE = {"resource": {"resourceType": "Patient"}}

KEEPS_AND_BREAKS: dict[tuple[str, str], tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    ("Age", "age-1"): ([UNIT, {"unit": "x"}], [{"value": 1}, {**UNIT, "value": 0}, {**UNIT, "system": "urn:x"}]),
    ("AllergyIntolerance", "ait-1"): ([VOID_ALLERGY, {"clinicalStatus": {"text": "x"}}], [{"code": {"text": "x"}}]),
    ("AllergyIntolerance", "ait-2"): (
        [VOID_ALLERGY, {"clinicalStatus": {"text": "x"}}],
        [{**VOID_ALLERGY, "clinicalStatus": {"text": "x"}}],
    ),
    ("Appointment", "app-2"): ([TIMES, {"status": "proposed"}], [{"start": TIMES["start"]}, {"end": TIMES["end"]}]),
    ("Appointment", "app-3"): (
        [{"status": "booked", **TIMES}, {"status": "waitlist"}, {"status": "proposed"}, {"status": "cancelled"}],
        [{"status": "booked"}, {"status": "pending"}],
    ),
    ("Appointment", "app-4"): (
        [
            {"status": "cancelled", "cancelationReason": {"text": "x"}},
            {"status": "booked"},
            {"status": "noshow", "cancelationReason": {"text": "x"}},
        ],
        [{"status": "booked", "cancelationReason": {"text": "x"}}],
    ),
    ("Appointment.participant", "app-1"): (
        [{"type": [{"text": "x"}]}, {"actor": {"display": "x"}}],
        [{"status": "accepted"}],
    ),
    ("AppointmentResponse", "apr-1"): (
        [{"participantType": [{"text": "x"}]}, {"actor": {"display": "x"}}],
        [{"participantStatus": "accepted"}],
    ),
    ("Attachment", "att-1"): ([{"data": "eA==", "contentType": "a/b"}, {"url": "urn:x"}], [{"data": "eA=="}]),
    ("AuditEvent.entity", "sev-1"): ([{"name": "x"}, {"query": "eA=="}], [{"name": "x", "query": "eA=="}]),
    ("Bundle", "bdl-1"): (
        [{"type": "searchset", "total": 1}, {"type": "history", "total": 1}, {"type": "batch"}],
        [{"type": "collection", "total": 1}],
    ),
    ("Bundle", "bdl-2"): (
        [{"type": "searchset", "entry": [{"search": {"mode": "match"}}]}, {"type": "batch", "entry": [REQUEST]}],
        [{"type": "collection", "entry": [{"search": {"mode": "match"}}]}],
    ),
    ("Bundle", "bdl-3"): (
        [{"type": "batch", "entry": [REQUEST]}, {"type": "collection", "entry": [RESOURCE]}, {"type": "batch"}],
        [{"type": "batch", "entry": [RESOURCE]}, {"type": "collection", "entry": [REQUEST]}],
    ),
    ("Bundle", "bdl-4"): (
        [{"type": "batch-response", "entry": [RESPONSE]}, {"type": "collection", "entry": [RESOURCE]}],
        [{"type": "batch-response", "entry": [RESOURCE]}, {"type": "collection", "entry": [RESPONSE]}],
    ),
    ("Bundle", "bdl-9"): (
        [{"type": "document", "identifier": {"system": "urn:x", "value": "1"}}, {"type": "batch"}],
        [{"type": "document"}, {"type": "document", "identifier": {"value": "1"}}],
    ),
    ("Bundle", "bdl-10"): (
        [{"type": "document", "timestamp": "2026-01-01T00:00:00Z"}, {"type": "batch"}],
        [{"type": "document"}],
    ),
    ("Bundle.entry", "bdl-5"): ([REQUEST, RESPONSE, RESOURCE], [{"fullUrl": "urn:x"}]),
    ("Bundle.entry", "bdl-8"): (
        [{"fullUrl": "http://e.example/Patient/1"}, RESOURCE],
        [{"fullUrl": "http://e.example/Patient/1/_history/2"}],
    ),
    ("CapabilityStatement", "cpb-1"): ([{"rest": [{"mode": "server"}]}], [{"status": "draft"}]),
    ("CapabilityStatement", "cpb-2"): ([{"description": "x"}, {"software": {"name": "x"}}], [{"status": "draft"}]),
    ("CapabilityStatement", "cpb-3"): (
        [
            {"kind": "instance", "messaging": [{"endpoint": [{"address": "urn:x"}]}]},
            {"kind": "capability", "messaging": [{"documentation": "x"}]},
        ],
        [{"kind": "capability", "messaging": [{"endpoint": [{"address": "urn:x"}]}]}],
    ),
    ("CapabilityStatement", "cpb-14"): (
        [{"kind": "instance", "implementation": {"description": "x"}}, {"kind": "capability"}],
        [{"kind": "instance"}],
    ),
    ("CapabilityStatement", "cpb-15"): (
        [{"kind": "capability", "software": {"name": "x"}}, {"kind": "instance"}],
        [
            {"kind": "capability"},
            {"kind": "capability", "software": {"name": "x"}, "implementation": {"description": "x"}},
        ],
    ),
    ("CapabilityStatement", "cpb-16"): (
        [{"kind": "requirements"}, {"kind": "instance", "software": {"name": "x"}}],
        [{"kind": "requirements", "software": {"name": "x"}}],
    ),
    ("CarePlan.activity", "cpl-3"): (
        [{"detail": {"status": "x"}}, {"reference": {"display": "x"}}],
        [{"detail": {"status": "x"}, "reference": {"display": "x"}}],
    ),
    ("Composition.section", "cmp-1"): ([{"entry": [{"display": "x"}]}, {"text": {"status": "x"}}], [{"title": "x"}]),
    ("Composition.section", "cmp-2"): (
        [{"entry": [{"display": "x"}]}, {"emptyReason": {"text": "x"}}],
        [{"entry": [{"display": "x"}], "emptyReason": {"text": "x"}}],
    ),
    ("ConceptMap.group.element.target", "cmd-1"): (
        [{"equivalence": "narrower", "comment": "x"}, {"equivalence": "equal"}, {"code": "x"}],
        [{"equivalence": "narrower"}, {"equivalence": "inexact"}],
    ),
    ("ConceptMap.group.unmapped", "cmd-2"): (
        [{"mode": "fixed", "code": "x"}, {"mode": "provided"}],
        [{"mode": "fixed"}],
    ),
    ("ConceptMap.group.unmapped", "cmd-3"): (
        [{"mode": "other-map", "url": "urn:x"}, {"mode": "fixed"}],
        [{"mode": "other-map"}],
    ),
    ("Condition", "con-4"): (
        [RESOLVED | {"abatementString": "x"}, ACTIVE],
        [ACTIVE | {"abatementString": "x"}, {"abatementDateTime": "2026"}],
    ),
    ("Condition", "con-5"): ([VOID_CONDITION, ACTIVE], [VOID_CONDITION | ACTIVE]),
    ("Condition.evidence", "con-2"): ([{"code": [{"text": "x"}]}, {"detail": [{"display": "x"}]}], [{"id": "x"}]),
    ("Condition.stage", "con-1"): ([{"summary": {"text": "x"}}, {"assessment": [{"display": "x"}]}], [{"id": "x"}]),
    ("Consent", "ppc-1"): ([{"policy": [{"uri": "urn:x"}]}, {"policyRule": {"text": "x"}}], [{"status": "draft"}]),
    ("ContactPoint", "cpt-2"): ([{"value": "1", "system": "phone"}, {"use": "home"}], [{"value": "1"}]),
    ("Count", "cnt-3"): ([{"value": 1, "code": "1", "system": UCUM}], [{"value": 1}, {**UNIT, "code": "2"}]),
    ("CoverageEligibilityResponse.insurance.item", "ces-1"): (
        [{"category": {"text": "x"}}, {"productOrService": {"text": "x"}}],
        [{"name": "x"}, {"category": {"text": "x"}, "productOrService": {"text": "x"}}],
    ),
    ("DataRequirement.codeFilter", "drq-1"): ([{"path": "x"}], [{"id": "x"}, {"path": "x", "searchParam": "y"}]),
    ("DataRequirement.dateFilter", "drq-2"): ([{"searchParam": "x"}], [{"id": "x"}, {"path": "x", "searchParam": "y"}]),
    ("Distance", "dis-1"): ([UNIT, {"unit": "x"}], [{"value": 1}, {**UNIT, "system": "urn:x"}]),
    ("DomainResource", "dom-4"): (
        [{"contained": [{"resourceType": "Patient", "meta": {"tag": [{"code": "x"}]}}]}, {"id": "x"}],
        [{"contained": [{"resourceType": "Patient", "meta": {"versionId": "1"}}]}],
    ),
    ("DomainResource", "dom-5"): (
        [{"contained": [{"resourceType": "Patient", "meta": {"tag": [{"code": "x"}]}}]}],
        [{"contained": [{"resourceType": "Patient", "meta": {"security": [{"code": "x"}]}}]}],
    ),
    ("Duration", "drt-1"): ([UNIT, {"unit": "x"}], [{**UNIT, "system": "urn:x"}, {"code": "h", "system": UCUM}]),
    ("Expression", "exp-1"): ([{"expression": "x"}, {"reference": "urn:x"}], [{"language": "text/cql"}]),
    ("FamilyMemberHistory", "fhs-1"): (
        [{"ageString": "x"}, {"bornString": "x"}],
        [{"ageString": "x", "bornString": "x"}],
    ),
    ("FamilyMemberHistory", "fhs-2"): ([{"ageString": "x", "estimatedAge": True}], [{"estimatedAge": True}]),
    ("Goal.target", "gol-1"): ([{"detailString": "x", "measure": {"text": "x"}}], [{"detailString": "x"}]),
    ("Group", "grp-1"): (
        [{"actual": True, "member": [{"entity": {"display": "x"}}]}, {"actual": False}],
        [{"actual": False, "member": [{"entity": {"display": "x"}}]}],
    ),
    ("Immunization.education", "imm-1"): ([{"documentType": "x"}, {"reference": "urn:x"}], [{"id": "x"}]),
    ("ImmunizationRecommendation.recommendation", "imr-1"): (
        [{"vaccineCode": [{"text": "x"}]}, {"targetDisease": {"text": "x"}}],
        [{"id": "x"}],
    ),
    ("InsurancePlan", "ipn-1"): ([{"name": "x"}, {"identifier": [{"value": "x"}]}], [{"status": "draft"}]),
    ("Linkage", "lnk-1"): ([{"item": [{"type": "source"}, {"type": "alternate"}]}], [{"item": [{"type": "source"}]}]),
    ("List", "lst-1"): (
        [{"entry": [{"id": "x"}]}, {"emptyReason": {"text": "x"}}],
        [{"entry": [{"id": "x"}], "emptyReason": {"text": "x"}}],
    ),
    ("List", "lst-2"): (
        [{"mode": "changes", "entry": [{"deleted": True}]}, {"mode": "working", "entry": [{"id": "x"}]}],
        [{"mode": "working", "entry": [{"deleted": True}]}],
    ),
    ("List", "lst-3"): (
        [{"mode": "working", "entry": [{"date": "2026"}]}],
        [{"mode": "changes", "entry": [{"date": "2026"}]}],
    ),
    ("MeasureReport", "mrp-1"): (
        [{"type": "summary", "group": [{"id": "x"}]}],
        [{"type": "data-collection", "group": [{"id": "x"}]}],
    ),
    ("MedicationAdministration.dosage", "mad-1"): ([{"dose": UNIT}, {"rateQuantity": UNIT}], [{"text": "x"}]),
    ("MolecularSequence", "msq-3"): ([{"coordinateSystem": 0}, {"coordinateSystem": 1}], [{"coordinateSystem": 2}]),
    ("MolecularSequence.referenceSeq", "msq-5"): (
        [{"chromosome": {"text": "x"}, "genomeBuild": "x"}, {"id": "x"}],
        [{"genomeBuild": "x"}],
    ),
    ("MolecularSequence.referenceSeq", "msq-6"): (
        [{"genomeBuild": "x"}, {"referenceSeqString": "x"}],
        [{"id": "x"}, {"genomeBuild": "x", "referenceSeqString": "x"}],
    ),
    ("Observation", "obs-6"): (
        [{"valueString": "x"}, {"dataAbsentReason": {"text": "x"}}],
        [{"valueString": "x", "dataAbsentReason": {"text": "x"}}],
    ),
    ("Observation.referenceRange", "obs-3"): ([{"text": "x"}, {"low": UNIT}], [{"id": "x"}]),
    ("OperationDefinition.parameter", "opd-1"): ([{"type": "string"}, {"part": [{"name": "x"}]}], [{"name": "x"}]),
    ("OperationDefinition.parameter", "opd-2"): (
        [{"type": "string", "searchType": "token"}],
        [{"type": "code", "searchType": "token"}],
    ),
    ("OperationDefinition.parameter", "opd-3"): (
        [{"type": "canonical", "targetProfile": ["urn:x"]}],
        [{"type": "code", "targetProfile": ["urn:x"]}],
    ),
    ("Organization", "org-1"): ([{"name": "x"}, {"identifier": [{"value": "x"}]}], [{"active": True}]),
    ("Organization", "org-2"): ([{"address": [{"use": "work"}]}, {"name": "x"}], [{"address": [{"use": "home"}]}]),
    ("Organization", "org-3"): ([{"telecom": [{"use": "work"}]}, {"name": "x"}], [{"telecom": [{"use": "home"}]}]),
    ("Parameters.parameter", "inv-1"): (
        [
            {"name": "x", "valueString": "x"},
            {"name": "x", "part": [{"name": "y", "valueString": "x"}]},
            {"name": "x", **RESOURCE},
        ],
        [{"name": "x"}, {"name": "x", "valueString": "x", **RESOURCE}],
    ),
    ("Patient.contact", "pat-1"): ([{"name": {"text": "x"}}, {"organization": {"display": "x"}}], [{"gender": "male"}]),
    ("Quantity", "qty-3"): ([UNIT, {"value": 1}], [{"value": 1, "code": "kg"}]),
    ("Questionnaire.item", "que-3"): (
        [{"type": "display"}, {"type": "group", "code": [{"code": "x"}]}],
        [{"type": "display", "code": [{"code": "x"}]}],
    ),
    ("Questionnaire.item", "que-4"): (
        [{"answerValueSet": "urn:x"}],
        [{"answerValueSet": "urn:x", "answerOption": [{"valueString": "x"}]}],
    ),
    ("Questionnaire.item", "que-6"): (
        [{"type": "display"}, {"type": "string", "required": True}],
        [{"type": "display", "required": True}],
    ),
    ("Questionnaire.item", "que-8"): (
        [{"type": "string", "initial": [{"valueString": "x"}]}],
        [{"type": "group", "initial": [{"valueString": "x"}]}],
    ),
    ("Questionnaire.item", "que-9"): (
        [{"type": "string", "readOnly": True}, {"type": "display"}],
        [{"type": "display", "readOnly": True}],
    ),
    ("Questionnaire.item", "que-11"): (
        [{"initial": [{"valueString": "x"}]}],
        [{"initial": [{"valueString": "x"}], "answerOption": [{"valueString": "x"}]}],
    ),
    ("Questionnaire.item", "que-12"): (
        [{"enableWhen": [{"question": "x"}]}, {"enableWhen": [{"question": "x"}] * 3, "enableBehavior": "all"}],
        [{"enableWhen": [{"question": "x"}] * 3}],
    ),
    ("Questionnaire.item", "que-13"): (
        [{"repeats": True, "initial": [{"valueString": "x"}] * 2}, {"initial": [{"valueString": "x"}]}],
        [{"repeats": False, "initial": [{"valueString": "x"}] * 2}],
    ),
    ("Questionnaire.item.enableWhen", "que-7"): (
        [{"operator": "exists", "answerBoolean": True}, {"operator": "=", "answerString": "x"}],
        [{"operator": "exists", "answerString": "x"}],
    ),
    ("QuestionnaireResponse.item", "qrs-1"): (
        [{"item": [{"linkId": "x"}]}, {"answer": [{"valueString": "x"}]}],
        [{"item": [{"linkId": "x"}], "answer": [{"valueString": "x"}]}],
    ),
    ("Ratio", "rat-1"): (
        [{"numerator": UNIT, "denominator": UNIT}, {"extension": [{"url": "urn:x", "valueCode": "x"}]}],
        [{"numerator": UNIT}, {"denominator": UNIT}, {"id": "x"}],
    ),
    ("RequestGroup.action", "rqg-1"): (
        [{"resource": {"display": "x"}}, {"action": [{"title": "x"}]}],
        [{"title": "x"}, {"resource": {"display": "x"}, "action": [{"title": "x"}]}],
    ),
    ("SearchParameter", "spd-1"): ([{"xpath": "x", "xpathUsage": "normal"}, {"code": "x"}], [{"xpath": "x"}]),
    ("SearchParameter", "spd-2"): ([{"type": "reference", "chain": ["x"]}], [{"type": "token", "chain": ["x"]}]),
    ("ServiceRequest", "prr-1"): (
        [{"code": {"text": "x"}, "orderDetail": [{"text": "x"}]}],
        [{"orderDetail": [{"text": "x"}]}],
    ),
    ("StructureDefinition", "sdf-4"): (
        [{"abstract": True}, {"abstract": False, "baseDefinition": "urn:x"}],
        [{"abstract": False}],
    ),
    ("StructureDefinition", "sdf-6"): ([{"snapshot": {"element": [{"path": "x"}]}}], [{"name": "x"}]),
    ("StructureDefinition.mapping", "sdf-2"): ([{"name": "x"}, {"uri": "urn:x"}], [{"identity": "x"}]),
    ("StructureMap.group.rule.target", "smp-1"): ([{"element": "x", "context": "y"}, {"id": "x"}], [{"element": "x"}]),
    ("StructureMap.group.rule.target", "smp-2"): ([{"context": "x", "contextType": "type"}], [{"context": "x"}]),
    ("TerminologyCapabilities", "tcp-2"): ([{"description": "x"}], [{"status": "draft"}]),
    ("Timing.repeat", "tim-1"): ([{"duration": 1, "durationUnit": "h"}, {"count": 1}], [{"duration": 1}]),
    ("Timing.repeat", "tim-2"): ([{"period": 1, "periodUnit": "h"}], [{"period": 1}]),
    ("Timing.repeat", "tim-4"): ([{"duration": 0}], [{"duration": -1}]),
    ("Timing.repeat", "tim-5"): ([{"period": 0}], [{"period": -1}]),
    ("Timing.repeat", "tim-6"): ([{"period": 1, "periodMax": 2}], [{"periodMax": 2}]),
    ("Timing.repeat", "tim-7"): ([{"duration": 1, "durationMax": 2}], [{"durationMax": 2}]),
    ("Timing.repeat", "tim-8"): ([{"count": 1, "countMax": 2}], [{"countMax": 2}]),
    ("Timing.repeat", "tim-9"): ([{"offset": 1, "when": ["PCM"]}], [{"offset": 1}, {"offset": 1, "when": ["CM"]}]),
    ("Timing.repeat", "tim-10"): ([{"timeOfDay": ["09:00:00"]}], [{"timeOfDay": ["09:00:00"], "when": ["AC"]}]),
    ("TriggerDefinition", "trd-1"): (
        [{"data": [{"type": "Patient"}]}],
        [{"data": [{"type": "Patient"}], "timingDate": "2026"}],
    ),
    ("TriggerDefinition", "trd-2"): (
        [{"condition": {"expression": "x"}, "data": [{"type": "Patient"}]}],
        [{"condition": {"expression": "x"}}],
    ),
    ("ValueSet.compose.include", "vsd-1"): ([{"system": "urn:x"}, {"valueSet": ["urn:x"]}], [{"version": "1"}]),
    ("ValueSet.compose.include", "vsd-2"): (
        [{"system": "urn:x", "concept": [{"code": "x"}]}],
        [{"concept": [{"code": "x"}]}],
    ),
    ("ValueSet.compose.include", "vsd-3"): (
        [{"concept": [{"code": "x"}]}],
        [{"concept": [{"code": "x"}], "filter": [{"op": "="}]}],
    ),
    ("ValueSet.expansion.contains", "vsd-6"): ([{"code": "x"}, {"display": "x"}], [{"abstract": True}]),
    ("ValueSet.expansion.contains", "vsd-9"): (
        [{"code": "x"}, {"abstract": True}],
        [{"display": "x", "abstract": False}],
    ),
    ("ValueSet.expansion.contains", "vsd-10"): ([{"code": "x", "system": "urn:x"}, {"display": "x"}], [{"code": "x"}]),
}

MENDED = {
    "app-4": "R4 says `no-show`, which is no status of an Appointment",
    "tim-9": "R4 means no `when` among the meals themselves; its `in` takes one value",
}
"""Expressions of R4 that later versions mended."""

UNREAD = {
    "age-1": "fhirpathpy has no hasValue()",
    "bdl-10": "fhirpathpy has no hasValue()",
    "cnt-3": "fhirpathpy has no hasValue()",
    "org-2": "stands on Organization.address, by each address",
    "org-3": "stands on Organization.telecom, by each telecom",
    **dict.fromkeys(
        ("gol-1", "inv-1", "mad-1", "que-7"), "fhirpathpy knows the keys of a choice in whole resources alone"
    ),
}
"""Why an expression is not asked."""

ROWS = {(row.owner, row.key): row for row in INVARIANTS}


def test_every_row_is_tried() -> None:
    assert KEEPS_AND_BREAKS.keys() == ROWS.keys()


def test_the_page_has_every_row() -> None:
    page = (Path(__file__).parents[2] / "docs" / "validation.md").read_text(encoding="utf-8")
    table = page.split("## About one object")[1].split("## About a whole resource")[0]
    listed = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.splitlines() if "|" in line]
    assert sorted(listed[2:]) == sorted((row.owner, row.key, row.sentence) for row in INVARIANTS)


@pytest.mark.parametrize("row", ROWS, ids="-".join)
def test_a_row_tells_what_keeps_it_from_what_breaks_it(known: Knowledge, row: tuple[str, str]) -> None:
    elements = known.definitions.properties["Patient" if row[0] == "DomainResource" else row[0]]
    checker = jsonschema_rs.Draft4Validator(ROWS[row].condition(elements))
    keeps, breaks = KEEPS_AND_BREAKS[row]
    assert [checker.is_valid(node) for node in keeps] == [True] * len(keeps)
    assert [checker.is_valid(node) for node in breaks] == [False] * len(breaks)


@cache
def expressions() -> dict[tuple[str, str], str]:
    """(path, key) → the FHIRPath of an invariant in the R4 package."""
    found: dict[tuple[str, str], str] = {}
    with tarfile.open(shared_path("definitions/hl7.fhir.r4.core.tgz")) as package:
        for member in package:
            if "/StructureDefinition-" in member.name and (file := package.extractfile(member)):
                definition = json.load(file)
                for element in definition.get("snapshot", {}).get("element", ()):
                    for each in element.get("constraint", ()):
                        if "expression" in each:
                            found.setdefault((element["path"], each["key"]), each["expression"])
    return found


@pytest.mark.parametrize("row", [row for row in ROWS if row[1] not in MENDED | UNREAD], ids="-".join)
def test_the_official_expression_agrees(row: tuple[str, str]) -> None:
    """An expression that gives empty holds."""
    owner, _ = row
    for holds, nodes in zip((True, False), KEEPS_AND_BREAKS[row], strict=True):
        for node in nodes:
            resource = {"resourceType": owner, **node} if "." not in owner and owner[0].isupper() else node
            expression = expressions()[row].replace("%resource", "%context").replace("%ucum", f"'{UCUM}'")
            result = evaluate(resource, expression, {}, models["r4"])
            assert (result in ([], [True])) is holds, (node, result)


PATIENT: dict[str, Any] = {"resourceType": "Patient", "id": "p"}
DIV = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "1"}]},
    "valueString": "x",
}
MEDICATION: dict[str, Any] = {
    "resourceType": "MedicationRequest",
    "status": "active",
    "intent": "order",
    "subject": {"display": "x"},
    "medicationReference": {"reference": "#m1"},
}
CONTAINED = [{"resourceType": "Medication", "id": "m1", "code": {"text": "x"}}]


def told(text: str) -> dict[str, Any]:
    return {**PATIENT, "text": {"status": "generated", "div": text}}


def within(type: str, *resources: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": type, "entry": [{"resource": each} for each in resources], **rest}


def linked(*urls: str) -> dict[str, Any]:
    entries = [{"fullUrl": url, "resource": {**PATIENT, "meta": {"versionId": "1"}}} for url in urls]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


COMPOSITION: dict[str, Any] = {
    "resourceType": "Composition",
    "status": "final",
    "type": {"text": "x"},
    "date": "2026",
    "author": [{"display": "x"}],
    "title": "x",
}
HEADER: dict[str, Any] = {
    "resourceType": "MessageHeader",
    "eventUri": "urn:x",
    "source": {"endpoint": "urn:x"},
}
DOCUMENT = {"identifier": {"system": "urn:x", "value": "1"}, "timestamp": "2026-01-01T00:00:00Z"}
WHOLE: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "ref-1": (
        [
            {**MEDICATION, "contained": CONTAINED},
            {
                **PATIENT,
                "contained": [
                    {
                        "resourceType": "Provenance",
                        "id": "x",
                        "recorded": "2026-01-01T00:00:00Z",
                        "target": [{"reference": "#"}],
                        "agent": [{"who": {"display": "x"}}],
                    }
                ],
            },
        ],
        [MEDICATION],
    ),
    "dom-3": ([{**MEDICATION, "contained": CONTAINED}], [{**PATIENT, "contained": CONTAINED}]),
    "txt-1": (
        [
            told(DIV.format("a <b>b</b> &nbsp;<a href='http://e.example/'>c</a><br/>")),
            told(DIV.format("<table border='1'><tr><td style='color:red'>x</td></tr></table>")),
        ],
        [
            told(DIV.format("<script>x</script>")),
            told(DIV.format("<p onclick='x'>x</p>")),
            told(DIV.format("<a href='javascript:x'>x</a>")),
            told(DIV.format("<p>x")),
            told(DIV.format("<form>x</form>")),
            told(DIV.format("<iframe src='http://e.example'>x</iframe>")),
        ],
    ),
    "txt-2": ([told(DIV.format("x")), told(DIV.format("<img src='x.png'/>"))], [told(DIV.format(" \n "))]),
    "per-1": (
        [
            {**PATIENT, "name": [{"period": {"start": "2026-01-02", "end": "2026-01-02"}}]},
            {**PATIENT, "name": [{"period": {"start": "2026-06", "end": "2026"}}]},
            {**PATIENT, "name": [{"period": {"start": "2026-01-01T10:00:00+02:00", "end": "2026-01-01T09:00:00Z"}}]},
        ],
        [
            {**PATIENT, "name": [{"period": {"start": "2026-01-02", "end": "2026-01-01"}}]},
            {**PATIENT, "name": [{"period": {"end": "2026-01-01T09:00:00Z", "start": "2026-01-01T10:00:00+00:30"}}]},
        ],
    ),
    "rng-2": (
        [
            {**OBSERVATION, "valueString": None, "valueRange": {"low": {"value": 1}, "high": {"value": 1}}},
            {
                **OBSERVATION,
                "valueString": None,
                "valueRange": {"low": {"value": 900, "unit": "g"}, "high": {"value": 1, "unit": "kg"}},
            },
        ],
        [{**OBSERVATION, "valueString": None, "valueRange": {"low": {"value": 2}, "high": {"value": 1}}}],
    ),
    "obs-7": (
        [{**OBSERVATION, "component": [{"code": {"text": "x"}, "valueString": "y"}]}],
        [{**OBSERVATION, "component": [{"code": OBSERVATION["code"], "valueString": "y"}]}],
    ),
    "inv-1": (
        [
            {
                "resourceType": "Task",
                "status": "draft",
                "intent": "order",
                "authoredOn": "2026-01-01",
                "lastModified": "2026",
            }
        ],
        [
            {
                "resourceType": "Task",
                "status": "draft",
                "intent": "order",
                "authoredOn": "2026-01-02",
                "lastModified": "2026-01-01",
            }
        ],
    ),
    "mdd-1": (
        [
            {
                "resourceType": "MedicationDispense",
                "status": "completed",
                "medicationCodeableConcept": {"text": "x"},
                "whenPrepared": "2026-01-01",
                "whenHandedOver": "2026-01-01",
            }
        ],
        [
            {
                "resourceType": "MedicationDispense",
                "status": "completed",
                "medicationCodeableConcept": {"text": "x"},
                "whenPrepared": "2026-01-02",
                "whenHandedOver": "2026-01-01",
            }
        ],
    ),
    "que-2": (
        [{"resourceType": "Questionnaire", "status": "draft", "item": [{"linkId": "1", "type": "string"}]}],
        [
            {
                "resourceType": "Questionnaire",
                "status": "draft",
                "item": [{"linkId": "1", "type": "group", "item": [{"linkId": "1", "type": "string"}]}],
            }
        ],
    ),
    "csd-1": (
        [
            {
                "resourceType": "CodeSystem",
                "status": "draft",
                "content": "complete",
                "concept": [{"code": "a"}, {"code": "b"}],
            }
        ],
        [
            {
                "resourceType": "CodeSystem",
                "status": "draft",
                "content": "complete",
                "concept": [{"code": "a"}, {"code": "a"}],
            }
        ],
    ),
    "bdl-7": ([linked("urn:a:1", "urn:a:2")], [linked("urn:a:1", "urn:a:1")]),
    "bdl-11": ([within("document", COMPOSITION, **DOCUMENT)], [within("document", PATIENT, **DOCUMENT)]),
    "bdl-12": ([within("message", HEADER)], [within("message", PATIENT)]),
}
"""Rules about a whole resource, by key."""


def without_nulls(resource: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if value is not None}


def list_issues(validator: StructureValidator, resource: dict[str, Any]) -> Iterator[str]:
    return (issue.diagnostics for issue in validator.find_issues(without_nulls(resource)))


@pytest.fixture(scope="module")
def strict(known: Knowledge) -> StructureValidator:
    """A validator that checks invariants."""
    return StructureValidator(known.definitions, invariants=True)


@pytest.mark.parametrize("key", WHOLE)
def test_a_rule_about_a_whole_resource(strict: StructureValidator, key: str) -> None:
    keeps, breaks = WHOLE[key]
    for resource in keeps:
        assert list(list_issues(strict, resource)) == []
    for resource in breaks:
        found = list(list_issues(strict, resource))
        assert found and all(text.startswith(f"{key}: `") for text in found), found


@pytest.mark.parametrize("folder", ["data/r4-examples", "data/synthea"])
def test_there_is_no_false_alarm(strict: StructureValidator, folder: str) -> None:
    """The narrative of one official example holds nothing but white space, which txt-2 is about."""
    found = set()
    for path in sorted(shared_path(folder).glob("*.json")):
        tree = orjson.loads(path.read_bytes())
        entries = tree.get("entry", ()) if tree["resourceType"] == "Bundle" and tree["type"] != "document" else ()
        for resource in [entry["resource"] for entry in entries if "resource" in entry] or [tree]:
            found |= {(path.stem, each.diagnostics.partition(":")[0]) for each in strict.find_issues(resource)}
    assert found <= {("ActivityDefinition-heart-valve-replacement", "txt-2")}


def test_there_is_no_false_alarm_in_us_core(strict: StructureValidator) -> None:
    """The validator's report in the package lacks a required issue; its other resources are valid."""
    refused = {name for name, tree in package("definitions/hl7.fhir.us.core-6.1.0.tgz") if strict.find_issues(tree)}
    assert refused <= {"package/other/validation-oo.json"}


@pytest.mark.anyio
async def test_a_broken_invariant_is_answered_with_its_key_and_place(
    known: Knowledge, strict: StructureValidator, store_uri: str
) -> None:
    async with serving(replace(known, validator=strict), store=store_uri) as client:
        resource = {"resourceType": "Patient", "telecom": [{"system": "phone", "value": "1"}, {"value": "2"}]}
        answer = await client.fhir("POST", "Patient", json=resource)
        [issue] = answer.json()["issue"]
        assert answer.status_code == 400
        assert issue["code"] == "invariant" and issue["expression"] == ["Patient.telecom[1]"]
        assert issue["diagnostics"] == "cpt-2: `Patient.telecom[1]`: a `value` needs a `system`."
        batch = {"resourceType": "Bundle", "type": "batch", "entry": [{"resource": PATIENT}]}
        assert (await client.fhir("POST", "", json=batch)).json()["entry"][0]["response"]["status"].startswith("400")
        assert (await client.fhir("POST", "Bundle", json=batch)).status_code == 400


def test_the_setting_switches_it_on() -> None:
    resource = {"resourceType": "Patient", "telecom": [{"value": "2"}]}
    for setting, count in (("enforce", 1), ("off", 0)):
        validator = load_knowledge(Settings(invariants=setting)).validator
        assert len(validator.find_issues(resource)) == count
