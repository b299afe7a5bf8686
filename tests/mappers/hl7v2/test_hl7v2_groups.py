"""A segment belongs to the nearest group that may hold it (trap V14), by `tables/structures.tsv`."""

from __future__ import annotations

import pytest

from mappers.hl7v2.er7 import parse_message
from mappers.hl7v2.groups import Group, build_groups, find_structure
from mappers.hl7v2.tables import read_table

HEAD = "MSH|^~\\&|A|B|C|D|20240102030405+0000||ORU^R01|1|P|2.5\r"


def outline(group: Group) -> str:
    """`ORDER(OBR1 OBSERVATION(OBX1))` of a tree, segments with their first field."""
    inner = [f"{each.name}{each.raw(1)}" for each in group.segments if each.name != "MSH"]
    inner += [outline(each) for each in group.groups]
    return f"{group.name}({' '.join(inner)})"


def build(structure: str, text: str) -> tuple[str, tuple[str, ...]]:
    message = parse_message(HEAD + text.replace(" ", "\r")).message
    rule = find_structure(structure)
    assert message and rule
    grouped = build_groups(message, rule)
    return outline(grouped.root), tuple(issue.location.segment for issue in grouped.issues)


@pytest.mark.parametrize(
    ("structure", "text", "tree"),
    [
        (
            "ORU_R01",
            "ORC|1 OBR|1 OBX|1 OBX|2 NTE|1 ORC|2 OBR|2 OBX|3",
            "message(PATIENT_RESULT(ORDER_OBSERVATION(ORC1 OBR1 OBSERVATION(OBX1) OBSERVATION(OBX2 NTE1)) "
            "ORDER_OBSERVATION(ORC2 OBR2 OBSERVATION(OBX3))))",
        ),
        (
            "ORU_R01",
            "PID|1 NTE|1 PV1|1 OBR|1 NTE|2 OBX|1 SPM|1 OBX|2 PID|2 OBR|2",
            "message(PATIENT_RESULT(PATIENT(PID1 NTE1 VISIT(PV11)) ORDER_OBSERVATION(OBR1 NTE2 OBSERVATION(OBX1) "
            "SPECIMEN(SPM1 SPECIMEN_OBSERVATION(OBX2)))) PATIENT_RESULT(PATIENT(PID2) ORDER_OBSERVATION(OBR2)))",
        ),
        (
            "ADT_A01",
            "EVN|1 PID|1 PV1|1 DG1|1 PR1|1 ROL|1 IN1|1 IN2|1 IN1|2",
            "message(EVN1 PID1 PV11 DG11 PROCEDURE(PR11 ROL1) INSURANCE(IN11 IN21) INSURANCE(IN12))",
        ),
        (
            "ADT_A39",
            "EVN|1 PID|1 MRG|1 PID|2 MRG|2",
            "message(EVN1 PATIENT(PID1 MRG1) PATIENT(PID2 MRG2))",
        ),
        (
            "SIU_S12",
            "SCH|1 NTE|1 PID|1 NTE|2 RGS|1 AIS|1 NTE|3 AIP|1 NTE|4 RGS|2 AIL|1",
            "message(SCH1 NTE1 PATIENT(PID1 NTE2) RESOURCES(RGS1 SERVICE(AIS1 NTE3) PERSONNEL_RESOURCE(AIP1 NTE4)) "
            "RESOURCES(RGS2 LOCATION_RESOURCE(AIL1)))",
        ),
        (
            "DFT_P11",
            "PID|1 FT1|1 PR1|1 DG1|1 FT1|2 DG1|2",
            "message(PID1 FINANCIAL(FT11 DG11 FINANCIAL_PROCEDURE(PR11)) FINANCIAL(FT12 DG12))",
        ),
    ],
)
def test_groups_are_built_by_the_table(structure: str, text: str, tree: str) -> None:
    assert build(structure, text) == (tree, ())


def test_segments_of_the_site_stay_where_they_are_and_strangers_are_told() -> None:
    tree, strangers = build("ADT_A01", "PID|1 ZPD|1 PV1|1 RXA|1")
    assert tree == "message(PID1 ZPD1 PV11 RXA1)"
    assert strangers == ("RXA",)


def test_every_event_has_a_structure_and_every_parent_a_row() -> None:
    for message, event, structure, *_ in read_table("events.tsv"):
        assert find_structure(structure), (message, event)
    rows = read_table("structures.tsv")
    names = {(row[0], row[1].rstrip("*")) for row in rows}
    assert [row for row in rows if row[2] and (row[0], row[2]) not in names] == []
    assert [row for row in rows if not set(row[3].split()) <= set(row[4].split())] == []
