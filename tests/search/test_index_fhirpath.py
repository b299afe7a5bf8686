"""Every official search expression finds what a FHIRPath engine finds (https://hl7.org/fhir/R4/searchparameter.html)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC
from functools import cache
from pathlib import Path
from typing import Any

import fhirpathpy
import orjson
from fhirpathpy.models import models

from fhir_server.fhir.path import parse_for
from fhir_server.search.parameters.criteria import Surroundings
from fhir_server.search.trie import Node
from fhir_server.search.trie_builder import Planter
from fhir_server.search.trie_codegen import unroll_lazily
from tests.r4 import R4, REGISTRY
from tests.shared import shared_path


@cache
def ours(type: str, code: str) -> Callable[[dict[str, Any]], list[Any]]:
    """The values that the trie finds for a parameter, whatever their type."""
    planter, node = Planter(R4.properties), Node()

    def keep(at: Node, element_type: str) -> int:
        at.add(lambda value, around: (value,), "")
        return 1

    truths = []
    for branch in parse_for(REGISTRY.parameters(type)[code].expression, type):
        if branch.truth:
            truths.append(planter.compile_condition(branch.truth, type))
        else:
            assert planter.plant(node, type, branch.steps, keep), branch.text
    node.prune()
    walk = unroll_lazily(lambda: node)

    def values(resource: dict[str, Any]) -> list[Any]:
        found: dict[str, Any] = {}
        around = Surroundings(UTC, "", frozenset(R4.resource_types), resource)
        walk(resource, (found,), around)
        return [*found.get("", ()), *(accepts(resource, around) for accepts in truths)]

    return values


@cache
def theirs(type: str, code: str) -> Callable[[dict[str, Any]], list[Any]]:
    """The same by fhirpathpy, one branch at a time; its union would drop equal values."""
    expression = REGISTRY.parameters(type)[code].expression
    # The engine cannot resolve; in the examples the text of a reference tells its type.
    told = r"where(reference.startsWith('\1/') or reference.contains('/\1/') or type = '\1')"
    expression = re.sub(r"where\(resolve\(\) is ([A-Za-z]+)\)", told, expression)
    # The engine knows neither abstract types nor `hasExtension`.
    expression = re.sub(r"\b(Domain)?Resource\.", f"{type}.", expression)
    expression = re.sub(r"hasExtension\(([^)]*)\)", r"extension(\1).exists()", expression)
    # FHIRPath's `as` refuses lists; search expressions mean every value of the type.
    expression = re.sub(r"\(([^()|]+) as ([A-Za-z]+)\)", r"\1.ofType(\2)", expression).replace(".as(", ".ofType(")
    branches = [fhirpathpy.compile(part, models["r4"]) for part in expression.split(" | ")]
    return lambda resource: [value for branch in branches for value in branch(resource, {})]


def counted(values: list[Any]) -> Counter[bytes]:
    return Counter(orjson.dumps(value, default=float, option=orjson.OPT_SORT_KEYS) for value in values)


def differences(path: Path) -> Iterator[str]:
    resource = orjson.loads(path.read_bytes())
    type = resource["resourceType"]
    if type not in REGISTRY.types:
        return
    for code, parameter in REGISTRY.parameters(type).items():
        if parameter.type == "special":
            continue
        found, expected = ours(type, code)(resource), theirs(type, code)(resource)
        if counted(found) != counted(expected):
            yield f"{path.name} {type}.{code} `{parameter.expression}`: {found} is not {expected}"


def test_every_expression_finds_in_every_example_what_a_fhirpath_engine_finds() -> None:
    paths = sorted(shared_path("data/r4-examples").glob("*.json"))
    assert [difference for path in paths for difference in differences(path)] == []
