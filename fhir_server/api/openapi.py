"""The OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1.html), from the tables that the FHIR API reads.

Endpoints come from the tables of interactions and operations, search parameters from the CapabilityStatement, which has
them from the registry in force, resources from the validator's schema. Everything used twice is a component.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fhir_server.api.endpoints import ALL, Endpoint, Offer, list_endpoints
from fhir_server.api.schemas import build_component_schemas, refer
from fhir_server.requests.request import FHIR_JSON
from fhir_server.search.parameters import TYPES
from fhir_server.search.parameters.criteria import PREFIXES
from fhir_server.validation.schema import Schema

_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_INTEGER: Schema = {"type": "integer", "minimum": 0}
_BOOLEAN: Schema = {"type": "boolean"}

SHARED: Mapping[str, Mapping[str, tuple[str, Schema]]] = {
    "path": {
        "id": ("The id of the resource.", refer("primitive.id")),
        "version": ("The version, a whole number from 1.", _INTEGER),
    },
    "header": {
        "If-Match": ('The version that must be current, such as `W/"3"`; `*` for any.', _TEXT),
        "If-None-Match": (
            "On a read: 304 when this version is current. On an update: `*`, nothing is there.",
            _TEXT,
        ),
        "If-Modified-Since": ("304 when nothing newer is there.", _TEXT),
        "If-None-Exist": ("Search criteria: create only when nothing matches.", _TEXT),
        "Prefer": ("`return=minimal`, `representation` or `OperationOutcome`; `handling=strict` or `lenient`.", _TEXT),
    },
    "answer": {
        "_format": ("The format of the answer; wins over `Accept`.", _TEXT),
        "_pretty": ("Whether the answer is indented.", _BOOLEAN),
    },
    "subset": {
        "_elements": ("Names of top-level elements to return, separated by commas.", _TEXTS),
        "_summary": ("A part of each resource.", {"enum": ["true", "text", "data", "false"]}),
    },
    "history": {
        "_since": ("Versions made at or after this time.", _TEXT),
        "_at": ("Versions that were current at some moment of this time.", _TEXT),
        "_count": ("Versions on a page.", _INTEGER),
    },
    "capabilities": {"mode": ("Which statement.", {"enum": ["full", "normative", "terminology"]})},
    "search": {
        "_contained": ("Whether contained resources are searched.", {"enum": ["false", "true", "both"]}),
        "_containedType": ("Whether the container or the contained is returned.", {"enum": ["container", "contained"]}),
        "_count": ("Resources on a page.", _INTEGER),
        "_has": ("Write `_has:[type]:[reference]:[parameter]`: what others say that refer to the resource.", _TEXTS),
        "_include": ("What the matches refer to: `[type]:[parameter]`, also `:iterate`, or `*`.", _TEXTS),
        "_revinclude": ("What refers to the matches: `[type]:[parameter]`, also `:iterate`.", _TEXTS),
        "_sort": ("Parameters to sort by, separated by commas, `-` before descending ones.", _TEXTS),
        "_summary": ("A part of each resource, or their number.", {"enum": ["true", "text", "data", "count", "false"]}),
        "_total": ("How the total is counted.", {"enum": ["none", "estimate", "accurate"]}),
        "_type": ("Resource types to search, separated by commas.", _TEXTS),
        "__explain": ("Whether to tell how the search was read and answered.", _BOOLEAN),
    },
}
"""Parameters other than search parameters, by group: name → its description and schema."""

_READ = ("header.If-None-Match", "header.If-Modified-Since", "answer", "subset")
_SEARCH = ("header.Prefer", "answer", "subset._elements", "search")
_WRITE = ("header.If-Match", "header.Prefer", "answer")


class Form(NamedTuple):
    """An interaction's parameters (groups or single ones), request body, and status → response."""

    parameters: tuple[str, ...]
    body: str
    answers: Mapping[str, str]


FORMS: Mapping[str, Form] = {
    "read": Form(_READ, "", {"200": "{type}", "304": "NotModified"}),
    "vread": Form(_READ, "", {"200": "{type}", "304": "NotModified"}),
    "update": Form((*_WRITE, "header.If-None-Match"), "{type}", {"200": "{type}", "201": "{type}.created"}),
    "patch": Form(_WRITE, "Patch", {"200": "{type}"}),
    "delete": Form(("header.If-Match", "answer"), "", {"204": "Deleted"}),
    "create": Form(
        ("header.If-None-Exist", "header.Prefer", "answer"), "{type}", {"200": "{type}", "201": "{type}.created"}
    ),
    "history-instance": Form(("history", "answer"), "", {"200": "Bundle"}),
    "history-type": Form(("history", "answer"), "", {"200": "Bundle"}),
    "history-system": Form(("history", "answer"), "", {"200": "Bundle"}),
    "search-type": Form(_SEARCH, "{searched}.search", {"200": "Bundle"}),
    "search-compartment": Form(_SEARCH, "{searched}.search", {"200": "Bundle"}),
    "search-system": Form(_SEARCH, "{searched}.search", {"200": "Bundle"}),
    "capabilities": Form(("capabilities", "answer", "subset"), "", {"200": "CapabilityStatement"}),
    "transaction": Form(("header.Prefer", "answer"), "Bundle", {"200": "Bundle"}),
    "$": Form(("answer",), "Operation", {"2XX": "Operation"}),
}
"""First code of an endpoint → its form; `$` is the form of every operation."""


def describe(offer: Offer, statement: Mapping[str, Any], server: str) -> dict[str, Any]:
    """The document. `statement`: the CapabilityStatement; `server`: the base URL, or one relative to the document."""
    rest = statement["rest"][0]
    common = {each["name"]: each for each in rest["searchParam"]}
    criteria = {"any": list(common.values())} | {each["type"]: each["searchParam"] for each in rest["resource"]}
    names = {group: [_make_component_name(group, each, common) for each in rows] for group, rows in criteria.items()}
    paths: dict[str, dict[str, Any]] = {}
    for type in ("", *sorted(offer.types)):
        for endpoint in list_endpoints(offer, type):
            item = paths.setdefault(endpoint.path, _make_path_item(endpoint.path))
            item[endpoint.method.lower()] = _describe_operation(endpoint, names)
    parameters = {
        **_describe_shared_parameters(),
        **_describe_search_parameters(criteria, names),
        **_describe_includes(rest["resource"]),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "FHIR R4 API",
            "version": statement["software"]["version"],
            "description": "FHIR R4 (4.0.1). Modifiers are part of a search parameter's name, as in `name:exact`. "
            "A `GET` may be a `HEAD`.\n\n" + rest["documentation"],
        },
        "servers": [{"url": server}],
        "tags": [{"name": "system"}, *({"name": type} for type in sorted(offer.types))],
        "paths": paths,
        "components": {
            "schemas": {
                **build_component_schemas(offer.definitions, offer.types),
                **_describe_search_schemas(criteria, names),
            },
            "parameters": parameters,
            "headers": {name: {"schema": _TEXT} for name in ("ETag", "Last-Modified", "Location")},
            "requestBodies": dict(_describe_bodies(offer, criteria)),
            "responses": dict(_describe_responses(offer)),
        },
    }


def _make_component_name(group: str, parameter: Mapping[str, Any], common: Mapping[str, Mapping[str, Any]]) -> str:
    name: str = parameter["name"]
    return f"any.{name}" if common.get(name) == parameter else f"{group}.{name}"


def _make_path_item(path: str) -> dict[str, Any]:
    named = re.findall(r"\{(\w+)\}", path)
    return {"parameters": [refer(f"path.{name}", "parameters") for name in named]} if named else {}


def _describe_operation(endpoint: Endpoint, names: Mapping[str, list[str]]) -> dict[str, Any]:
    form = FORMS["$" if endpoint.definition else endpoint.codes[0]]
    group = "any" if endpoint.searched == ALL else endpoint.searched
    is_post = endpoint.path.endswith("/_search")
    parameters = [each for name in form.parameters for each in _expand(name, endpoint, is_post)]
    if group and not is_post:
        parameters += [*names[group], "any._filter", "any._list", *(["search._has"] if endpoint.conditional else [])]
    operation: dict[str, Any] = {
        "operationId": _make_operation_id(endpoint),
        "tags": [endpoint.type or "system"],
        "summary": endpoint.summary,
        "x-fhir-interaction": list(endpoint.codes),
        "parameters": [refer(each, "parameters") for each in dict.fromkeys(parameters)],
        "responses": {
            **{status: refer(name.format(type=endpoint.type), "responses") for status, name in form.answers.items()},
            "default": refer("Error", "responses"),
        },
    }
    if endpoint.definition:
        operation["description"] = f"Defined by `{endpoint.definition}`."
    if form.body and endpoint.method != "GET":
        operation["requestBody"] = refer(form.body.format(type=endpoint.type, searched=group), "requestBodies")
    return operation


def _expand(name: str, endpoint: Endpoint, is_post: bool) -> Iterator[str]:
    """The components of a group of parameters: includes are those of the type, a POST has its search in the body."""
    group, _, single = name.partition(".")
    if is_post and group not in ("header", "answer"):
        return
    for each in [single] if single else SHARED[group]:
        own = each in ("_include", "_revinclude") and endpoint.searched not in ("", ALL)
        yield f"{endpoint.searched if own else group}.{each}"


def _make_operation_id(endpoint: Endpoint) -> str:
    parts = [re.sub(r"\W+", "_", part).strip("_") for part in endpoint.path.split("/")]
    form = ["conditional"] if endpoint.conditional else []
    return "_".join([endpoint.method.lower(), *(part or "all" for part in parts[1:]), *form])


def _describe_shared_parameters() -> dict[str, Any]:
    return {
        f"{group}.{name}": {
            "name": name,
            "in": group if group in ("path", "header") else "query",
            **({"required": True} if group == "path" else {}),
            **({"explode": False} if schema is _TEXTS and name in ("_elements", "_sort", "_type") else {}),
            "description": text,
            "schema": schema,
        }
        for group, rows in SHARED.items()
        for name, (text, schema) in rows.items()
    }


def _describe_search_parameters(
    criteria: Mapping[str, list[dict[str, Any]]], names: Mapping[str, list[str]]
) -> dict[str, Any]:
    return {
        name: {
            "name": each["name"],
            "in": "query",
            "description": " ".join(filter(None, (each.get("documentation"), f"Defined by {each['definition']}"))),
            "schema": refer(f"search.{each['type']}"),
        }
        for group, rows in criteria.items()
        for name, each in zip(names[group], rows, strict=True)
    }


def _describe_includes(resources: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """`_include` and `_revinclude` of each type, with their values."""
    return {
        f"{each['type']}.{name}": {
            "name": name,
            "in": "query",
            "description": SHARED["search"][name][0],
            "schema": {"type": "array", "items": {"type": "string", "examples": each.get(member, [])}},
        }
        for each in resources
        for name, member in (("_include", "searchInclude"), ("_revinclude", "searchRevInclude"))
    }


def _describe_search_schemas(
    criteria: Mapping[str, list[dict[str, Any]]], names: Mapping[str, list[str]]
) -> dict[str, Schema]:
    """The schema of each parameter type, and of the form that a POST to `_search` of a type takes."""
    schemas: dict[str, Schema] = {}
    for type in sorted({each["type"] for rows in criteria.values() for each in rows}):
        kind = TYPES.get(type)
        modifiers = sorted(f"`:{each}`" for each in kind.modifiers - kind.modifier_datatypes.keys()) if kind else []
        prefixes = [f"`{each}`" for each in sorted(PREFIXES)] if kind and kind.prefixes else []
        sentences = [f"Modifiers {', '.join(['`:missing`', *modifiers])}."]
        sentences += [f"Prefixes {', '.join(prefixes)}."] if prefixes else []
        text = f"Each holds; one with commas holds when one of its values does. {' '.join(sentences)}"
        schemas[f"search.{type}"] = {**_TEXTS, "description": text}
    result = {name: schema for group in ("subset", "answer", "search") for name, (_, schema) in SHARED[group].items()}
    for group, rows in criteria.items():
        own = {
            each["name"]: refer(f"search.{each['type']}")
            for name, each in zip(names[group], rows, strict=True)
            if group == "any" or not name.startswith("any.")
        }
        if group == "any":
            schemas["any.search"] = {"type": "object", "properties": {**result, **own}}
        else:
            schemas[f"{group}.search"] = {"allOf": [refer("any.search")], "type": "object", "properties": own}
    return schemas


def _describe_content(schema: Schema, type: str = "") -> dict[str, Any]:
    """FHIR JSON; a Binary may also be in its own content type."""
    return {FHIR_JSON: {"schema": schema}, **({"*/*": {}} if type == "Binary" else {})}


def _describe_bodies(offer: Offer, criteria: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for type in sorted({*offer.types, "Bundle"}):
        yield type, {"required": True, "content": _describe_content(refer(type), type)}
    for group in criteria:
        name = f"{group}.search"
        yield name, {"content": {"application/x-www-form-urlencoded": {"schema": refer(name)}}}
    steps = {"type": "array", "items": {"type": "object", "required": ["op", "path"]}}
    content = {
        "application/json-patch+json": {"schema": steps},
        "application/merge-patch+json": {"schema": {"type": "object"}},
        **_describe_content(refer("Parameters")),
    }
    about = "A JSON Patch, a JSON Merge Patch or a FHIRPath Patch."
    yield "Patch", {"required": True, "description": about, "content": content}
    yield "Operation", {"content": _describe_content(refer("Parameters"))}


def _describe_responses(offer: Offer) -> Iterator[tuple[str, dict[str, Any]]]:
    version = {name: refer(name, "headers") for name in ("ETag", "Last-Modified")}
    for type in sorted({*offer.types, "Bundle", "CapabilityStatement"}):
        response = {"content": _describe_content(refer(type), type), "headers": version}
        yield type, {"description": f"The {type}; no body with `Prefer: return=minimal`.", **response}
        if type in offer.types:
            created = {**response, "headers": {**version, "Location": refer("Location", "headers")}}
            yield f"{type}.created", {"description": f"The {type} is new; `Location` is its version.", **created}
    yield "NotModified", {"description": "The client has it.", "headers": version}
    yield "Deleted", {"description": "Deleted, or nothing was there."}
    yield "Operation", {"description": "What the operation answers.", "content": _describe_content(refer("Resource"))}
    yield (
        "Error",
        {
            "description": "What was wrong, where, and what to do.",
            "content": _describe_content(refer("OperationOutcome")),
        },
    )
