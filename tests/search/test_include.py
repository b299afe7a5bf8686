"""Included resources: once each, no match again, cycles end (https://hl7.org/fhir/R4/search.html#revinclude)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from fhir_server.fhir.outcome import TooCostly
from fhir_server.search.entries import Entries
from fhir_server.search.include import Include, Limits, find_includes
from fhir_server.search.match import Candidate, compile_predicate
from fhir_server.search.query import Query
from fhir_server.search.registry import Parameter, Registry


def _reference(base: str, code: str, *targets: str) -> Parameter:
    return Parameter(code, base, "reference", f"urn:{base}-{code}", "", targets)


PARAMETERS = {
    "Patient": (
        _reference("Patient", "link", "Patient", "RelatedPerson"),
        _reference("Patient", "organization", "Organization"),
    ),
    "Organization": (_reference("Organization", "partof", "Organization"),),
    "Observation": (
        _reference("Observation", "subject", "Group", "Patient"),
        _reference("Observation", "performer", "Organization", "Patient"),
    ),
    "Provenance": (_reference("Provenance", "target"),),
}
REGISTRY = Registry({type: {each.code: each for each in parameters} for type, parameters in PARAMETERS.items()})

RESOURCES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Organization/a": {},
    "Organization/b": {"partof": ("Organization/a",)},
    "Organization/c": {"partof": ("Organization/d",)},
    "Organization/d": {"partof": ("Organization/c",)},
    "Patient/1": {"organization": ("Organization/b",)},
    "Patient/2": {"organization": ("Organization/b",), "link": ("Patient/1",)},
    "Patient/3": {"organization": ("https://elsewhere.example/Organization/a",), "link": ("Patient/gone",)},
    "Patient/4": {"organization": ("Organization/c",)},
    "Observation/x": {"subject": ("Patient/1",), "performer": ("Organization/b",)},
    "Observation/y": {"subject": ("Patient/1",), "performer": ("Patient/2",)},
    "Provenance/p": {"target": ("Observation/x", "Patient/2")},
}


@dataclass(frozen=True, slots=True)
class Found:
    """What the double's search answers."""

    matches: tuple[Candidate, ...]
    next: None = None


@dataclass(slots=True)
class Double:
    """A store of `RESOURCES` that counts its calls."""

    calls: list[str] = field(default_factory=list)

    def resolve(self, reference: str) -> Candidate | None:
        """A resource by reference."""
        if reference not in RESOURCES:
            return None
        type, _, id = reference.partition("/")
        return Candidate(type, id, 0, Entries(terms=RESOURCES[reference]))

    def iterate_type(self, type: str) -> Iterable[Candidate]:
        """All resources of a type, by id."""
        return [self[each] for each in sorted(RESOURCES) if each.startswith(f"{type}/")]

    def __getitem__(self, reference: str) -> Candidate:
        found = self.resolve(reference)
        assert found is not None
        return found

    async def read_many(self, references: Iterable[str]) -> Mapping[str, Candidate]:
        """As a store does it, in no helpful order."""
        self.calls.append("read_many")
        return {reference: self[reference] for reference in sorted(references) if reference in RESOURCES}

    async def search(self, query: Query) -> Found:
        """As a store does it."""
        self.calls.append("search")
        matches = [
            candidate
            for scope in query.scopes
            for candidate in self.iterate_type(scope.type)
            if compile_predicate(scope.where, self)(candidate)
        ]
        return Found(tuple(sorted(matches, key=lambda match: match.reference))[: query.count])


def _included(matches: Iterable[str], *includes: Include, limit: int = 100) -> tuple[list[str], list[str]]:
    store = Double()

    async def list_entries(resources: Sequence[Any]) -> list[Entries]:
        return [each.entries for each in resources]

    found = asyncio.run(
        find_includes(store, list_entries, [store[each] for each in matches], includes, REGISTRY, Limits(limit))
    )
    return [each.reference for each in found], store.calls


SUBJECT = Include("Observation", "subject")


@pytest.mark.parametrize(
    ("matches", "includes", "expected", "calls"),
    [
        (["Observation/x", "Observation/y"], [SUBJECT], ["Patient/1"], ["read_many"]),
        (
            ["Observation/x"],
            [SUBJECT, Include("Observation", "performer")],
            ["Patient/1", "Organization/b"],
            ["read_many"],
        ),
        (["Observation/x"], [Include("Observation", "*")], ["Patient/1", "Organization/b"], ["read_many"]),
        (["Observation/x"], [Include("*", "*")], ["Patient/1", "Organization/b"], ["read_many"]),
        (["Observation/y"], [Include("Observation", "performer", "Organization")], [], []),
        (["Observation/y"], [Include("Observation", "performer", "Patient")], ["Patient/2"], ["read_many"]),
        (["Patient/2", "Patient/1"], [Include("Patient", "link")], [], []),
        (["Patient/3"], [Include("Patient", "organization"), Include("Patient", "link")], [], ["read_many"]),
        (
            ["Patient/1"],
            [Include("Observation", "subject", reverse=True)],
            ["Observation/x", "Observation/y"],
            ["search"],
        ),
        (
            ["Patient/2"],
            [Include("*", "*", reverse=True)],
            ["Observation/y", "Provenance/p"],
            ["search"],
        ),
        (["Patient/1"], [Include("Provenance", "target", "Observation", reverse=True)], [], []),
    ],
)
def test_one_level(matches: list[str], includes: list[Include], expected: list[str], calls: list[str]) -> None:
    assert _included(matches, *includes) == (expected, calls)


def test_without_iterate_only_the_matches_are_followed() -> None:
    found, _ = _included(["Observation/x"], SUBJECT, Include("Patient", "organization"))
    assert found == ["Patient/1"]


def test_iterate_follows_what_was_included_level_by_level() -> None:
    found, calls = _included(
        ["Observation/y"],
        SUBJECT,
        Include("Patient", "organization", iterate=True),
        Include("Organization", "partof", iterate=True),
    )
    assert found == ["Patient/1", "Organization/b", "Organization/a"]
    assert calls == ["read_many"] * 3


def test_iterate_ends_in_a_cycle() -> None:
    partof = Include("Organization", "partof", iterate=True)
    found, _ = _included(["Patient/4"], Include("Patient", "organization"), partof)
    assert found == ["Organization/c", "Organization/d"]
    assert _included(["Organization/c", "Organization/d"], partof)[0] == []


def test_reverse_iterate_climbs_until_nothing_refers() -> None:
    found, calls = _included(
        ["Organization/a"],
        Include("Organization", "partof", reverse=True, iterate=True),
        Include("Patient", "organization", reverse=True, iterate=True),
        Include("Observation", "subject", reverse=True, iterate=True),
        Include("Provenance", "target", reverse=True, iterate=True),
    )
    assert found == [
        "Organization/b",
        "Patient/1",
        "Patient/2",
        "Observation/x",
        "Observation/y",
        "Provenance/p",
    ]
    assert calls == ["search"] * 4


def test_both_directions_of_a_level_take_one_call_each() -> None:
    found, calls = _included(["Patient/2"], Include("Patient", "link"), Include("Provenance", "target", reverse=True))
    assert found == ["Patient/1", "Provenance/p"]
    assert calls == ["read_many", "search"]


def test_more_than_the_limit_is_refused_not_cut() -> None:
    subject = Include("Observation", "subject", reverse=True)
    assert len(_included(["Patient/1"], subject, limit=2)[0]) == 2
    with pytest.raises(TooCostly, match=r"^More than 1 resources would be included; ask for fewer matches with"):
        _included(["Patient/1"], subject, limit=1)


def test_the_matches_found_again_take_no_room_in_the_limit() -> None:
    subject = Include("Observation", "subject", reverse=True)
    assert _included(["Patient/1", "Observation/x"], subject, limit=1)[0] == ["Observation/y"]
