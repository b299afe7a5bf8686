"""Every sample of the corpus: mapped as its authors expect, or refused with AR where its event is not supported."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_server.fhir.definitions import load
from fhir_server.validation.structure import StructureValidator
from mappers.hl7v2.acknowledge import find_code
from mappers.hl7v2.bundle import build_bundle, write_bundle
from mappers.hl7v2.character_sets import decode_message
from mappers.hl7v2.er7 import Message, parse_message
from mappers.hl7v2.mapping import find_event, map_message
from mappers.hl7v2.partner import Partner
from mappers.hl7v2.tables import read_table
from tests.mappers.hl7v2.accepted import find_reason
from tests.mappers.hl7v2.comparison import compare, is_without_offset

PARTNER = Partner(processing=frozenset({"P", "T", "D", ""}))
LEAST = 0.95

# Samples whose message breaks the standard: the reason stands in the acknowledgement.
REFUSED = {"ADT-A41-02": "MRG-3 is empty"}


COMPARED = frozenset({"ADT", "SIU", "ORU"})
"""The types of which all leaves are compared; of RDE those that `test_prescriptions_are_met` names."""


def read(path: Path) -> Message:
    text = decode_message(path.read_bytes()).text
    assert text is not None
    message = parse_message(text).message
    assert message is not None
    return message


def samples(shared: Path) -> list[Path]:
    paths = sorted((shared / "data" / "hl7v2").rglob("*.hl7"))
    assert len(paths) >= 190
    return paths


def is_supported(message: Message) -> bool:
    return find_event(message) in {row[:2] for row in read_table("events.tsv")}


def expected_of(path: Path) -> list[dict[str, Any]]:
    for name in (f"{path.stem}-expected.json", f"{path.stem}.fhir.json"):
        if (path.parent / name).exists():
            return [entry["resource"] for entry in json.loads((path.parent / name).read_bytes())["entry"]]
    return []


def test_supported_events_are_mapped_and_all_others_are_rejected(shared: Path) -> None:
    validator = StructureValidator(load(), invariants=True)
    wrong = []
    for path in samples(shared):
        message = read(path)
        built = build_bundle(map_message(message, PARTNER))
        code = find_code(built.issues)
        if not is_supported(message):
            assert code == "AR" and built.bundle is None, path.name
            assert {issue.condition for issue in built.issues if issue.severity == "error"} <= {"200", "201"}, path.name
        elif path.stem in REFUSED:
            assert code == "AE" and REFUSED[path.stem] in str(built.issues)
        else:
            assert code == "AA" and built.bundle is not None, (path.name, built.issues)
            bundle = orjson.loads(write_bundle(built.bundle))
            wrong += [f"{path.name}: {issue}" for issue in validator.find_issues(bundle)]
    assert wrong == []


def test_references_of_a_bundle_lead_to_its_entries(shared: Path) -> None:
    for path in samples(shared):
        built = build_bundle(map_message(read(path), PARTNER))
        if built.bundle is None:
            continue
        text = write_bundle(built.bundle).decode()
        urls = {entry["fullUrl"] for entry in built.bundle.get("entry", [])}
        used = {part.split('"')[0] for part in text.split('"reference":"')[1:]}
        assert used <= urls, path.name


def count_differences(
    path: Path,
    message: Message,
    expected: list[dict[str, Any]],
    actual: list[dict[str, Any]],
    counts: dict[str, Counter[str]],
    faults: dict[str, list[str]],
) -> None:
    """Counts the matched, accepted, differing and missing leaves of a sample; tells the last two."""
    name, _ = find_event(message)
    found = compare(expected, actual, message)
    counts[name]["matched"] += len(found.matched)
    for kind, leaves in (("differing", [leaf for leaf, _ in found.differing]), ("missing", found.missing)):
        for leaf in leaves:
            accepted = find_reason(name, leaf) or is_without_offset(leaf, message)
            counts[name]["accepted" if accepted else kind] += 1
            if not accepted:
                faults[name].append(f"{path.name}: {kind} {leaf.type}.{leaf.path} = {leaf.value}")


def assert_enough(counts: dict[str, Counter[str]], faults: dict[str, list[str]]) -> None:
    """At least 95 of 100 leaves of each type match, and few differences are accepted ones."""
    report = {name: dict(count) for name, count in counts.items()}
    assert set(report) == COMPARED
    for name, count in counts.items():
        wrong = count["differing"] + count["missing"]
        assert count["matched"] >= LEAST * (count["matched"] + wrong), (report, faults[name])
        assert count["accepted"] < 0.12 * count.total(), report
    print(report)


def test_the_fields_that_tables_drive_are_met(shared: Path) -> None:
    """Counts matched, differing and missing leaves per message type; the rows of `accepted` are no faults."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    faults: dict[str, list[str]] = defaultdict(list)
    for path in samples(shared):
        message = read(path)
        name, _ = find_event(message)
        expected = expected_of(path)
        built = build_bundle(map_message(message, PARTNER))
        if name not in COMPARED or not expected or built.bundle is None:
            continue
        actual = [entry["resource"] for entry in orjson.loads(write_bundle(built.bundle)).get("entry", [])]
        count_differences(path, message, expected, actual, counts, faults)
    assert_enough(counts, faults)


# What the authors decide otherwise: the order as it was written is a request of its own there, so that what RXE
# leaves out does not come from RXO; RXE-7 is an additional instruction, and TQ1-10 a reason to take it; CDO is mapped;
# the strength of a component is RXC-5 in place of RXC-3.
PRESCRIPTIONS_DIFFER = re.compile(
    r"Medication\.ingredient\.strength\.numerator\.value|MedicationRequest\.(?:dosageInstruction\.(?:text|sequence|maxDose.*|additionalInstruction.*|"
    r"timing\.repeat\.(?:offset|duration\w*))|identifier\.type\..*)"
)


def test_prescriptions_are_met(shared: Path) -> None:
    """The encoded orders of the RDE samples, with their Medications."""
    faults, matched = [], 0
    for path in [each for each in samples(shared) if each.stem.startswith("RDE")]:
        message, resources = read(path), expected_of(path)
        wanted = [each for each in resources if each.get("intent") == "filler-order"]
        drugs = {each["medicationReference"]["reference"].partition("/")[2] for each in wanted}
        wanted += [each for each in resources if each["id"] in drugs]
        built = build_bundle(map_message(message, PARTNER))
        assert built.bundle
        made = [entry["resource"] for entry in orjson.loads(write_bundle(built.bundle))["entry"]]
        found = compare(wanted, made, message)
        leaves = [*(leaf for leaf, _ in found.differing), *found.missing]
        faults += [leaf for leaf in leaves if not PRESCRIPTIONS_DIFFER.fullmatch(f"{leaf.type}.{leaf.path}")]
        matched += len(found.matched)
    assert faults == []
    assert matched >= 100


DELIMITERS = "|^~&\\\r\n\"'"


def read_texts(shared: Path) -> list[str]:
    """Some samples of each family, with the separators of most."""
    wanted = ("ADT-A01-01", "ADT04-23", "SIU-S12-01", "LAB-ORU-2", "orur01_oru_r01-full", "ADT-A41-02", "RDE-O11-01")
    paths = [path for path in samples(shared) if path.stem in wanted]
    assert len(paths) == len(wanted)
    return ["".join(f"{'|'.join((s.name, *s.values))}\r" for s in read(path).segments) for path in paths]


def mutate(texts: list[str], data: st.DataObject) -> str:
    """A sample of which pieces are cut, repeated and replaced."""
    text = data.draw(st.sampled_from(texts))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(text)))
        length = data.draw(st.sampled_from([0, 1, 3, 40, 400]))
        other = data.draw(st.integers(0, len(text)))
        junk = data.draw(
            st.one_of(
                st.text(st.sampled_from(DELIMITERS + "A0-+. é\x00"), max_size=6),
                st.just(text[other : other + length]),
                st.sampled_from(
                    ['""', "20241301", "99991231235959", "\\X0D\\", "\\", "A" * 300, "-1", "1E9", "20240102"]
                ),
            )
        )
        text = text[:place] + junk + text[place + length :]
    return text


@pytest.fixture(scope="module")
def texts(shared: Path) -> list[str]:
    return read_texts(shared)


@settings(max_examples=300)
@given(st.data())
def test_mutated_messages_never_raise(texts: list[str], data: st.DataObject) -> None:
    """The answer is always a code, and stored only without errors."""
    text = mutate(texts, data)
    parsed = parse_message(text)
    if parsed.message is None:
        assert parsed.issues
        return
    built = build_bundle(map_message(parsed.message, PARTNER))
    code = find_code(built.issues)
    assert (built.bundle is None) == (code != "AA")
    if built.bundle:
        write_bundle(built.bundle)


@settings(max_examples=40)
@given(st.data())
def test_mutated_fields_give_valid_resources(
    texts: list[str], validator: StructureValidator, data: st.DataObject
) -> None:
    """Fields swapped within a message: what is built is still valid base R4."""
    text = data.draw(st.sampled_from(texts))
    message = parse_message(text).message
    assert message
    segments = list(message.segments)
    for _ in range(data.draw(st.integers(1, 5))):
        index = data.draw(st.integers(1, len(segments) - 1))
        source = segments[data.draw(st.integers(1, len(segments) - 1))].values
        values = list(segments[index].values)
        if values and source:
            values[data.draw(st.integers(0, len(values) - 1))] = data.draw(st.sampled_from(source))
            segments[index] = replace(segments[index], values=tuple(values))
    built = build_bundle(map_message(replace(message, segments=tuple(segments)), PARTNER))
    if built.bundle:
        assert validator.find_issues(orjson.loads(write_bundle(built.bundle))) == ()


@pytest.fixture(scope="module")
def validator() -> StructureValidator:
    return StructureValidator(load(), invariants=True)
