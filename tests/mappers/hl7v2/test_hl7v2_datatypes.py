"""Data types, one row for each rule of the guide's data type maps and of the deciding rules."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mappers.hl7v2.changes import Changes
from mappers.hl7v2.context import Cell, Context, Primitive, keep_text
from mappers.hl7v2.datatypes import CONVERSIONS
from mappers.hl7v2.datatypes.quantities import sn_to_value
from mappers.hl7v2.datatypes.times import add_minutes, choose_zone, read_moment
from mappers.hl7v2.er7 import Composite, read_composite
from mappers.hl7v2.escapes import Delimiters
from mappers.hl7v2.partner import Partner, Target

ROOT = "https://example.org/north"
PARTNER = Partner(
    name="north",
    root=ROOT,
    zone="America/Chicago",
    authorities={"MRN": "https://example.org/mrn"},
    translations={"PID-16": {"ZZ": Target("M", "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus")}},
)
V2 = "http://terminology.hl7.org/CodeSystem/v2-"


def cell(vocabulary: str = "", argument: str = "", partner: Partner = PARTNER) -> Cell:
    context = Context(partner, "ADT", "A01", ZoneInfo(partner.zone), Changes("seed"), [])
    return Cell(context, vocabulary=vocabulary, argument=argument)


def value(text: str) -> Composite:
    return read_composite(text, Delimiters())


def convert(name: str, text: str, vocabulary: str = "", argument: str = "") -> Any:
    return CONVERSIONS[name](value(text), cell(vocabulary, argument))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024", "2024"),
        ("202402", "2024-02"),
        ("20240229", "2024-02-29"),
        ("20240229101112-0500", "2024-02-29T10:11:12-05:00"),
        ("20240229101112.1234+0530", "2024-02-29T10:11:12.1234+05:30"),
        ("19690101000000+0800", "1969-01-01T00:00:00+08:00"),
        ("2024022910-0500", Primitive("2024-02-29T10:00:00-05:00", keep_text("2024022910-0500"))),
        ("202402291011+0000", Primitive("2024-02-29T10:11:00+00:00", keep_text("202402291011+0000"))),
        ("20240229101112", Primitive("2024-02-29T10:11:12-06:00", keep_text("20240229101112"))),
        ("20240701101112", Primitive("2024-07-01T10:11:12-05:00", keep_text("20240701101112"))),
        ("20230229", Primitive(None, keep_text("20230229"))),
        ("0000", Primitive(None, keep_text("0000"))),
        ("20241301", Primitive(None, keep_text("20241301"))),
        ("2024010125", Primitive(None, keep_text("2024010125"))),
        ("yesterday", Primitive(None, keep_text("yesterday"))),
        ("", None),
        ('""', None),
    ],
)
def test_times_keep_their_precision_and_what_is_filled_in_is_told(text: str, expected: object) -> None:
    assert convert("dateTime", text) == expected


def test_a_time_that_is_none_is_told() -> None:
    told = cell()
    CONVERSIONS["dateTime"](value("20230229"), told)
    assert [(issue.severity, issue.condition) for issue in told.context.issues] == [("warning", "102")]


def test_local_times_that_exist_twice_or_never() -> None:
    zone = ZoneInfo("America/Chicago")
    overlap, gap = read_moment("20241103013000", zone), read_moment("20240310023000", zone)
    assert overlap and (overlap.value, overlap.ambiguous) == ("2024-11-03T01:30:00-05:00", "overlap")
    assert gap and gap.ambiguous == "gap"


@pytest.mark.parametrize(
    ("sent", "text", "expected"),
    [
        ("20240102030405-0600", "20240701120000", "2024-07-01T12:00:00-05:00"),  # agrees: the zone knows summer time
        ("20240102030405+0100", "20240701120000", "2024-07-01T12:00:00+01:00"),  # does not: the offset of MSH-7
        ("20240102030405", "20240102120000", "2024-01-02T12:00:00-06:00"),
        ("", "20240102120000", "2024-01-02T12:00:00-06:00"),
    ],
)
def test_the_zone_of_times_without_offset(sent: str, text: str, expected: str) -> None:
    moment = read_moment(text, choose_zone(sent, "America/Chicago"))
    assert moment and moment.value == expected


def test_minutes_are_added_over_a_change_of_day() -> None:
    assert add_minutes("2024-02-28T23:50:00-05:00", 20) == "2024-02-29T00:10:00-05:00"


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ("1^^^MRN", "https://example.org/mrn"),
        ("1^^^X&2.16.840.1.113883.19.5&ISO", "urn:oid:2.16.840.1.113883.19.5"),
        ("1^^^X&2.16.840.1.113883.4.6&ISO", "http://hl7.org/fhir/sid/us-npi"),
        ("1^^^&A8098C1A-F86E-11DA-BD1A-00112444BE1E&UUID", "urn:uuid:a8098c1a-f86e-11da-bd1a-00112444be1e"),
        ("1^^^&https://example.org/x&URI", "https://example.org/x"),
        ("1^^^WARD 7", f"{ROOT}/WARD%207"),
        ("1", f"{ROOT}/identifier"),
    ],
)
def test_the_system_of_an_identifier_is_its_assigning_authority(text: str, system: str) -> None:
    assert convert("cx", text)["system"] == system


def test_cx_to_identifier() -> None:
    assert convert("cx", "12^3^M11^MRN^MR^CLINIC^20200101^20211231") == {
        "type": {"coding": [{"system": V2 + "0203", "code": "MR"}]},
        "system": "https://example.org/mrn",
        "value": "12",
        "extension": [
            {"url": "http://hl7.org/fhir/StructureDefinition/identifier-checkDigit", "valueString": "3"},
            {"url": "http://hl7.org/fhir/StructureDefinition/namingsystem-checkDigit", "valueString": "M11"},
        ],
        "period": {"start": "2020-01-01", "end": "2021-12-31"},
        "assigner": {"display": "CLINIC"},
    }
    assert convert("cx", "^^^MRN") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "QUILL&VAN^ADA^MAY^JR^DR^MD^L",
            {
                "family": "QUILL",
                "given": ["ADA", "MAY"],
                "prefix": ["DR"],
                "suffix": ["JR", "MD"],
                "use": "official",
            },
        ),
        ("QUILL^^^^^^M^^^2020&2021", {"family": "QUILL", "use": "maiden", "period": {"start": "2020", "end": "2021"}}),
        ("^^^^^^L", None),
        ('""', None),
    ],
)
def test_xpn_to_human_name(text: str, expected: object) -> None:
    assert convert("name", text) == expected


def test_xad_to_address() -> None:
    assert convert("address", "1 OAK ST&OAK ST&1^APT 2^SPRINGFIELD^IL^62701^USA^H^^SANGAMON^0012") == {
        "use": "home",
        "line": ["1 OAK ST", "OAK ST", "1", "APT 2"],
        "city": "SPRINGFIELD",
        "district": "SANGAMON",
        "state": "IL",
        "postalCode": "62701",
        "country": "USA",
        "extension": [
            {"url": "http://hl7.org/fhir/StructureDefinition/iso21090-ADXP-censusTract", "valueString": "0012"}
        ],
    }
    assert convert("address", "1 OAK ST^^X^^^^M")["type"] == "postal"
    assert convert("address", "^^^^^^H") is None


@pytest.mark.parametrize(
    ("text", "system", "number", "use"),
    [
        ("(312)555-0101", "phone", "(312)555-0101", "home"),
        ("^WPN^PH^^1^312^5550101^7", "phone", "+1 312 5550101 X7", "work"),
        ("^PRN^CP^^^^^^^^^+13125550101", "phone", "+13125550101", "mobile"),
        ("^NET^Internet^ada@example.org", "email", "ada@example.org", "home"),
        ("^^^ada@example.org", "email", "ada@example.org", "home"),
        ("^WPN^FX^^^312^5550102", "fax", "312 5550102", "work"),
        ("^WPN^BP^^^312^5550102", "pager", "312 5550102", "work"),
    ],
)
def test_xtn_to_contact_point(text: str, system: str, number: str, use: str) -> None:
    point = convert("contact", text, argument="home")
    assert (point["system"], point["value"], point["use"]) == (system, number, use)


def test_a_translated_coding_is_added_and_the_original_stays() -> None:
    """Trap V22; a code that is in no table stays and is listed."""
    assert convert("concept", "S^Single^HL70002", vocabulary="MaritalStatus")["coding"] == [
        {"system": "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus", "code": "S", "display": "Never Married"},
        {"system": V2 + "0002", "code": "S", "display": "Single"},
    ]
    told = cell("MaritalStatus")
    assert CONVERSIONS["concept"](value("ZZ9^^L"), told) == {
        "coding": [{"system": f"{ROOT}/code-system/L", "code": "ZZ9"}]
    }
    assert [issue.severity for issue in told.context.issues] == ["information"]


def test_cwe_to_codeable_concept_keeps_all_codings() -> None:
    text = "1^one^LN^2^two^SCT^2.74^2023^as written^3^three^L^^2.16.840.1.113883.6.1"
    assert convert("concept", text) == {
        "coding": [
            {"system": "http://loinc.org", "code": "1", "display": "one", "version": "2.74"},
            {"system": "http://snomed.info/sct", "code": "2", "display": "two", "version": "2023"},
            {"system": f"{ROOT}/code-system/L", "code": "3", "display": "three"},
        ],
        "text": "as written",
    }
    assert convert("concept", "^only text") == {"text": "only text"}


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("^1^:^128", "valueRatio", {"numerator": {"value": 1}, "denominator": {"value": 128}}),
        ("^10^-^20", "valueRange", {"low": {"value": 10}, "high": {"value": 20}}),
        (">^100", "valueQuantity", {"value": 100, "comparator": ">"}),
        ("^28", "valueQuantity", {"value": 28}),
        ("<>^5", "valueString", "<> 5"),
        ("^1^+", "valueString", "1 +"),
    ],
)
def test_sn_to_value(text: str, name: str, expected: object) -> None:
    assert sn_to_value(value(text), {}) == (name, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("125.50", {"value": Decimal("125.50"), "currency": "USD"}),
        ("150&EUR^DC", {"value": 150, "currency": "EUR"}),
        ("-3.10^CAD", {"value": Decimal("-3.10"), "currency": "CAD"}),
        ("12,50", None),
        ("1e9", None),
    ],
)
def test_amounts_are_decimals(text: str, expected: Mapping[str, object] | None) -> None:
    assert convert("money", text) == expected


def test_pl_is_a_chain_of_places() -> None:
    told = cell()
    reference = CONVERSIONS["location"](value("WARD A^12^2^CLINIC^^^EAST^3"), told)
    places = {change.url: change.resource for change in told.context.changes}
    chain = []
    while reference:
        place = places[reference["reference"]]
        chain.append((place["name"], place["physicalType"]["coding"][0]["code"]))
        reference = place.get("partOf")
    assert chain == [("2", "bd"), ("12", "ro"), ("3", "lvl"), ("WARD A", "wa"), ("EAST", "bu"), ("CLINIC", "si")]
