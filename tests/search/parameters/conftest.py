"""One criterion against one resource: index it, compile the value, and let the in-memory evaluation decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fhir_server.fhir.datetimes import parse_interval
from fhir_server.search.index import Index
from fhir_server.search.match import NO_OTHERS, Candidate, matches
from fhir_server.search.parameter_clause import ask_parts
from fhir_server.search.parameters import TYPES, Criteria
from fhir_server.search.query import Clause
from fhir_server.search.registry import Registry
from tests.r4 import R4, REGISTRY

BASE = "http://test/fhir"
NOW = parse_interval("2026-11-23T08:00:00Z")[0]

Finds = Callable[[dict[str, Any], str, str], bool]
ClauseOf = Callable[[str, str, str], Clause]


@pytest.fixture(scope="session")
def registry() -> Registry:
    return REGISTRY


@pytest.fixture(scope="session")
def index(registry: Registry) -> Index:
    return Index(registry, R4)


@pytest.fixture(scope="session")
def criteria(registry: Registry) -> Criteria:
    return Criteria(registry=registry, base=BASE, now=NOW)


@pytest.fixture(scope="session")
def clause_of(criteria: Criteria) -> ClauseOf:
    """(type, `code` or `code:modifier`, value) → the clause of one alternative."""

    def parse(type: str, name: str, value: str) -> Clause:
        code, _, modifier = name.partition(":")
        parameter = criteria.registry.parameters(type)[code]
        clause = TYPES[parameter.type].parse_clause(parameter, modifier or None, value, criteria)
        return ask_parts(clause, parameter)

    return parse


@pytest.fixture(scope="session")
def finds(index: Index, clause_of: ClauseOf) -> Finds:
    """Whether `name=value` finds the resource."""

    def found(resource: dict[str, Any], name: str, value: str) -> bool:
        type = resource["resourceType"]
        candidate = Candidate(type, resource.get("id", "x"), NOW, index.make_entries(type, resource, BASE))
        return matches(clause_of(type, name, value), candidate, NO_OTHERS)

    return found
