"""Writes fhir_server/fhir/tables from the official R4 core package (https://hl7.org/fhir/R4/downloads.html).

    python -m scripts.generate_definitions ../shared/definitions/hl7.fhir.r4.core.tgz

The package is `hl7.fhir.r4.core` 4.0.1. The same package always gives the same bytes.
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

Resources = Mapping[str, Mapping[str, Any]]
"""Resources of one type by canonical URL."""

TABLES = Path(__file__).resolve().parents[1] / "fhir_server" / "fhir" / "tables"
STRUCTURES = "http://hl7.org/fhir/StructureDefinition/"
FHIR_TYPE = STRUCTURES + "structuredefinition-fhir-type"
KINDS = ("StructureDefinition", "SearchParameter", "CompartmentDefinition", "ValueSet", "CodeSystem")

# With these the package shows how to write a SearchParameter or CompartmentDefinition; they are not in force.
EXAMPLES = frozenset({"example", "example-extension", "example-reference"})

# Parameters that the search page defines in prose only: https://hl7.org/fhir/R4/search.html#all. URLs as R5 gave them.
PROSE_PARAMETERS = tuple(
    {
        "code": code,
        "url": f"http://hl7.org/fhir/SearchParameter/Resource-{code[1:]}",
        "type": type_,
        "base": ["Resource"],
    }
    for code, type_ in (("_has", "string"), ("_list", "string"), ("_type", "token"))
)


def read_package(path: Path) -> dict[str, Resources]:
    """The package's definitions: resource type → canonical URL → resource."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {kind: {} for kind in KINDS}
    with tarfile.open(path) as package:
        for member in package:
            folder, _, name = member.name.partition("/")
            if folder != "package" or name.partition("-")[0] not in found or not name.endswith(".json"):
                continue
            file = package.extractfile(member)
            assert file is not None, f"{member.name} is not a file"
            resource = json.load(file)
            found[resource["resourceType"]][resource["url"]] = resource
    return dict(found)


def enumerate_codes(url: str, package: Mapping[str, Resources]) -> dict[str, list[str]] | None:
    """The codes of a value set by system, or None when the package cannot list them all."""
    value_set = package["ValueSet"].get(url)
    if value_set is None or "exclude" in value_set["compose"]:
        return None
    codes: dict[str, set[str]] = {}
    for include in value_set["compose"]["include"]:
        included = list_included_codes(include, package)
        if included is None:
            return None
        codes.setdefault(include["system"], set()).update(included)
    return {system: sorted(found) for system, found in codes.items()}


def list_included_codes(include: Mapping[str, Any], package: Mapping[str, Resources]) -> Iterable[str] | None:
    """The codes of one `ValueSet.compose.include`, or None when it is not a plain list or a whole code system."""
    if "filter" in include or "valueSet" in include:
        return None
    if "concept" in include:
        return [concept["code"] for concept in include["concept"]]
    system = package["CodeSystem"].get(include["system"])
    if system is None or system["content"] != "complete":
        return None
    return list_concept_codes(system["concept"])


def list_concept_codes(concepts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The codes of a concept hierarchy."""
    for concept in concepts:
        yield concept["code"]
        yield from list_concept_codes(concept.get("concept", ()))


def find_type_code(type_: Mapping[str, Any], path: str, resource: bool) -> str:
    """The FHIR type that an `ElementDefinition.type` stands for."""
    if not type_["code"].startswith("http://hl7.org/fhirpath/"):
        return str(type_["code"])
    if resource and path.count(".") == 1:
        return "id"  # the package says `string`, the specification `id`: https://hl7.org/fhir/R4/resource.html#id
    return str(next(e["valueUrl"] for e in type_["extension"] if e["url"] == FHIR_TYPE))


def find_element_types(element: Mapping[str, Any], resource: bool) -> list[str]:
    """The types of an element; an inline backbone's type is its own path, a content reference's the path it names."""
    if "contentReference" in element:
        return [element["contentReference"].removeprefix("#")]
    codes = [find_type_code(type_, element["path"], resource) for type_ in element["type"]]
    return [element["path"] if code in {"BackboneElement", "Element"} else code for code in codes]


def find_element_targets(element: Mapping[str, Any]) -> list[str]:
    """The resource types that a Reference or canonical may point to; [] means any."""
    profiles = {profile for type_ in element.get("type", ()) for profile in type_.get("targetProfile", ())}
    targets = sorted(profile.removeprefix(STRUCTURES) for profile in profiles)
    return [] if "Resource" in targets else targets


def find_required_value_set(element: Mapping[str, Any]) -> str | None:
    """The canonical URL of the value set that an element requires, without its version."""
    binding = element.get("binding", {})
    if binding.get("strength") != "required":
        return None
    return str(binding["valueSet"].partition("|")[0])


def build_element_table(package: Mapping[str, Resources]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables of elements and of required codes.

    A row is `[name, minimum, repeats, summary, types, targets, value set or null]`.
    """
    structures = [s for s in package["StructureDefinition"].values() if s.get("derivation") != "constraint"]
    concrete = [s for s in structures if not s["abstract"] and s["kind"] in {"resource", "complex-type"}]
    element_type = package["StructureDefinition"][STRUCTURES + "Element"]  # abstract, but what `_birthDate` holds
    elements: dict[str, list[Any]] = {}
    codes: dict[str, Any] = {}
    for structure in (*concrete, element_type):
        for element in structure["snapshot"]["element"][1:]:
            if element["max"] == "0":
                continue
            owner, _, name = element["path"].rpartition(".")
            value_set = find_required_value_set(element)
            if value_set is not None and value_set not in codes:
                codes[value_set] = enumerate_codes(value_set, package)
            row = [
                name,
                element["min"],
                element["max"] != "1",
                element.get("isSummary", False),
                find_element_types(element, structure["kind"] == "resource"),
                find_element_targets(element),
                value_set if value_set and codes[value_set] else None,
            ]
            elements.setdefault(owner, []).append(row)
    table = {
        "resources": sorted(s["type"] for s in concrete if s["kind"] == "resource"),
        "primitives": sorted(s["type"] for s in structures if s["kind"] == "primitive-type"),
        "elements": elements,
    }
    return table, {url: found for url, found in codes.items() if found}


def build_search_parameter_table(package: Mapping[str, Resources]) -> list[list[Any]]:
    """Rows of `[code, url, type, base, expression, targets, components, and, or, comparators, modifiers]`.

    Left out: parameters without base (drafts on extensions) and those without expression that are not on all resources
    (`Patient` `age` and `birthOrderBoolean`): the package gives nothing to evaluate.
    """
    rows = []
    for parameter in (*package["SearchParameter"].values(), *PROSE_PARAMETERS):
        if parameter.get("id") in EXAMPLES or "base" not in parameter:
            continue
        if "expression" not in parameter and not {"Resource", "DomainResource"} & set(parameter["base"]):
            continue
        row = [parameter["code"], parameter["url"], parameter["type"], sorted(parameter["base"])]
        row += [parameter.get("expression", ""), sorted(parameter.get("target", ()))]
        row += [[[part["definition"], part["expression"]] for part in parameter.get("component", ())]]
        row += [parameter.get("multipleAnd", True), parameter.get("multipleOr", True)]
        row += [parameter.get("comparator", []), parameter.get("modifier", [])]
        rows.append(row)
    return sorted(rows)


def build_compartment_table(package: Mapping[str, Resources]) -> dict[str, dict[str, list[str]]]:
    """Compartment → resource type → search parameters that place a resource in it."""
    return {
        definition["code"]: {entry["code"]: entry["param"] for entry in definition["resource"] if "param" in entry}
        for definition in package["CompartmentDefinition"].values()
        if definition["id"] not in EXAMPLES
    }


def write_table(name: str, table: Any) -> None:
    """Writes one table: sorted keys, one line for each entry of the outermost object or list."""
    if isinstance(table, dict):
        lines = [f"{write_compact(key)}:{write_compact(table[key])}" for key in sorted(table)]
        text = "{\n" + ",\n".join(lines) + "\n}\n"
    else:
        text = "[\n" + ",\n".join(write_compact(row) for row in table) + "\n]\n"
    (TABLES / name).write_text(text, encoding="utf-8", newline="\n")


def write_compact(value: Any) -> str:
    """JSON without spaces, keys sorted."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def main(package_file: str) -> None:
    """Generates every table from the package file."""
    package = read_package(Path(package_file))
    elements, codes = build_element_table(package)
    TABLES.mkdir(exist_ok=True)
    write_table("elements.json", elements.pop("elements"))
    write_table("types.json", elements)
    write_table("codes.json", codes)
    write_table("search-parameters.json", build_search_parameter_table(package))
    write_table("compartments.json", build_compartment_table(package))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Say which package to read: generate_definitions.py hl7.fhir.r4.core.tgz")
    main(sys.argv[1])
