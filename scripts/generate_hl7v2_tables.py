"""Writes the facts of HL7's v2-to-FHIR guide (CC0, https://github.com/HL7/v2-to-fhir) that the HL7 v2 mapper needs.

    python scripts/generate_hl7v2_tables.py ../shared/definitions/v2-to-fhir

`official.tsv` lists which field the guide maps to which element, for the segments that are read here; `concepts.tsv`
lists the code translations. The same folder always gives the same bytes.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

TABLES = Path(__file__).resolve().parents[1] / "mappers" / "hl7v2" / "tables"

SEGMENTS = frozenset(
    [
        "AIG",
        "AIL",
        "AIP",
        "AIS",
        "AL1",
        "DG1",
        "EVN",
        "IN1",
        "MRG",
        "MSH",
        "NK1",
        "NTE",
        "OBR",
        "OBX",
        "ORC",
        "PD1",
        "PID",
        "PR1",
        "PV1",
        "PV2",
        "ROL",
        "RXO",
        "RXR",
        "SCH",
        "SPM",
        "TQ1",
    ]
)
MAPS = frozenset(
    [
        "AddressType[Type]",
        "AddressType[Use]",
        "AdministrationMethod",
        "AdministrativeSex",
        "AdmissionType",
        "AllergenType[AllergyIntoleranceCategory]",
        "AllergySeverity[AllergyIntolerance.criticality]",
        "AllergySeverity[AllergyIntolerance.reaction.severity]",
        "AllergyType",
        "AllowSubstitution",
        "AmbulatoryStatus",
        "AppointmentReasonCodes",
        "AppointmentTypeCodes",
        "BedStatus",
        "BodyParts",
        "ConfidentialityCode",
        "ContactRole",
        "DiagnosisType",
        "DiagnosticServiceSectionID",
        "EncounterPriority",
        "EventReason",
        "ExtendedPriorityCodes",
        "FillerStatusCodes[Appointment]",
        "HospitalService",
        "InterpretationCodes",
        "MaritalStatus",
        "ModeOfArrivalCode",
        "NameAssemblyOrder",
        "NameType",
        "NatureOfAbnormalTesting",
        "OrderStatus",
        "ObservationResultStatusCodesInterpretation",
        "OrderControlCode[ServiceRequest.status]",
        "PatientClass[EncounterClass]",
        "ProviderRole",
        "ReadmissionIndicator",
        "Relationship",
        "Religion",
        "ResultStatus[Non-Queries]",
        "RouteOfAdministration",
        "SpecimenCondition",
        "TelecommunicationEquipmentType",
        "TelecommunicationUseCode",
        "YesNoIndicator",
        "YesNoIndicator[AvailabilityStatus]",
    ]
)


def read_sheet(path: Path) -> Iterator[list[str]]:
    """The rows below the two header rows, padded."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        for row in list(csv.reader(lines))[2:]:
            yield [cell.strip().replace("\n", " ").replace("\t", " ") for cell in (*row, *[""] * 12)]


def find_official(folder: Path) -> Iterator[tuple[str, ...]]:
    """(map, field, element) of each row that has an element, once each."""
    for path in sorted((folder / "segments").glob("*.csv")):
        title = path.name.split("R4__")[1].split("_-_")[0]
        if title[:3] not in SEGMENTS:
            continue
        rows: dict[tuple[str, ...], tuple[str, ...]] = {}
        for row in read_sheet(path):
            if row[9] and "-" in row[1]:
                rows[title, row[1], row[9].replace(" ", "")] = ()
        yield from rows


def find_concepts(folder: Path) -> Iterator[tuple[str, ...]]:
    """(map, code, target, display, system) of each translation, once each."""
    for path in sorted((folder / "codesystems").glob("*.csv")):
        title = path.name.split("Map__")[1].split("_-_")[0]
        if title in MAPS:
            rows: dict[tuple[str, ...], tuple[str, ...]] = {}
            for row in read_sheet(path):
                if row[0] and row[6]:
                    system = next((cell for cell in row[7:11] if cell.startswith("http")), "")
                    display = next((cell for cell in row[7:9] if cell and not cell.startswith("http")), "")
                    rows.setdefault((title, row[0]), (row[6], display, system))
            yield from (key + value for key, value in rows.items())


def write_table(name: str, header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    """Writes tab-separated lines under a header line."""
    lines = ["\t".join(row) for row in (header, *rows)]
    (TABLES / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(folder: Path) -> None:
    """Writes both tables."""
    write_table("official.tsv", ("map", "field", "element"), find_official(folder))
    write_table("concepts.tsv", ("map", "code", "target", "display", "system"), find_concepts(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
