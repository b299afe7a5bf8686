"""Writes fhir_server/fhir/tables/terminology/r4.json: the value sets and code systems of the official R4 core package.

    python -m scripts.generate_terminology ../shared/definitions/hl7.fhir.r4.core.tgz

Kept are codes, hierarchy, properties that filters look at, and what composes a value set. Texts are left out (display,
definition, designation, property dates): searching needs none, and they are most of the bytes. The same package always
gives the same bytes. https://hl7.org/fhir/R4/terminology-module.html
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.generate_definitions import (
    TABLES,
    Resources,
    find_element_types,
    find_required_value_set,
    read_package,
    write_compact,
)

TABLE = TABLES / "terminology" / "r4.json"

BOOLEAN_SYSTEM = "http://terminology.hl7.org/CodeSystem/special-values"
"""The implicit system of a boolean as a token: https://hl7.org/fhir/R4/search.html#token"""

_PATH = re.compile(r"[A-Z][A-Za-z]+(?:\.[a-z][A-Za-z]*)+")


def select_members(resource: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Those members of a resource that it has."""
    return {name: resource[name] for name in names if name in resource}


def reduce_concept(given: Mapping[str, Any]) -> dict[str, Any]:
    """A concept without its texts."""
    kept = select_members(given, "code")
    properties = [each for each in given.get("property", ()) if "valueDateTime" not in each]
    if properties:
        kept["property"] = properties
    if "concept" in given:
        kept["concept"] = [reduce_concept(each) for each in given["concept"]]
    return kept


def reduce_code_system(resource: Mapping[str, Any]) -> dict[str, Any]:
    """A CodeSystem as far as search looks at it."""
    kept = select_members(resource, "url", "version", "content", "hierarchyMeaning")
    if "property" in resource:
        kept["property"] = [select_members(each, "code", "uri") for each in resource["property"]]
    kept["concept"] = [reduce_concept(each) for each in resource.get("concept", ())]
    return kept


def reduce_value_set(resource: Mapping[str, Any]) -> dict[str, Any]:
    """A ValueSet as far as search looks at it."""
    kept = select_members(resource, "url", "version", "expansion")
    compose = select_members(resource["compose"], "inactive")
    for part in ("include", "exclude"):
        if part in resource["compose"]:
            compose[part] = [reduce_include(each) for each in resource["compose"][part]]
    return {**kept, "compose": compose}


def reduce_include(include: Mapping[str, Any]) -> dict[str, Any]:
    """One `compose.include` or `exclude`, concepts by their codes."""
    kept = select_members(include, "system", "version", "filter", "valueSet")
    if "concept" in include:
        kept["concept"] = [select_members(each, "code") for each in include["concept"]]
    return kept


def find_systems(url: str, value_sets: Resources) -> set[str]:
    """The code systems that a value set takes codes from."""
    found: set[str] = set()
    for include in value_sets.get(url, {}).get("compose", {}).get("include", ()):
        found |= {include["system"]} if "system" in include else set()
        for imported in include.get("valueSet", ()):
            found |= find_systems(imported.partition("|")[0], value_sets)
    return found


def find_implied_systems(package: Mapping[str, Resources]) -> dict[str, list[str]]:
    """The systems that codes have without saying so: path of an element of type code → systems of its required binding.

    Every resource's and datatype's. All booleans, whatever their path, stand under `boolean`.
    """
    found = {"boolean": [BOOLEAN_SYSTEM]}
    for structure in package["StructureDefinition"].values():
        if structure.get("derivation") == "constraint":
            continue
        for element in structure["snapshot"]["element"][1:]:
            if "code" in find_element_types(element, True):
                found[element["path"]] = sorted(
                    find_systems(find_required_value_set(element) or "", package["ValueSet"])
                )
    return {path: found[path] for path in sorted(found) if found[path]}


def main(package_file: str) -> None:
    """Generates the table: one line for each resource."""
    package = read_package(Path(package_file))
    parts = {
        "codeSystems": [reduce_code_system(package["CodeSystem"][url]) for url in sorted(package["CodeSystem"])],
        "valueSets": [reduce_value_set(package["ValueSet"][url]) for url in sorted(package["ValueSet"])],
    }
    texts = [f'"{name}":[\n' + ",\n".join(map(write_compact, rows)) + "\n]" for name, rows in parts.items()]
    texts.append(f'"implied":{write_compact(find_implied_systems(package))}')
    text = "{" + ",\n".join(texts) + "}\n"
    TABLE.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(sys.argv[1])
