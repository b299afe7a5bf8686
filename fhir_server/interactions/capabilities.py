"""capabilities: the statement is made from the tables that the router uses (https://hl7.org/fhir/R4/http.html#capabilities)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fhir_server.fhir.definitions import Definitions
from fhir_server.fhir.outcome import Invalid
from fhir_server.interactions.summary import apply_shape
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.search.parameters import TYPES
from fhir_server.search.parameters.criteria import PREFIXES
from fhir_server.search.registry import Parameter, Registry
from fhir_server.search.words import CONTENT, TEXT
from fhir_server.settings import Settings

_WORDS = frozenset({TEXT, CONTENT})

_MODES = ("full", "normative", "terminology")


async def capabilities(context: Context, request: Request) -> Response:
    """200 with the CapabilityStatement, or what `_summary` and `_elements` leave of it."""
    for name, value in request.query:
        if name == "mode" and value not in _MODES:
            raise Invalid(f"`mode={value}` is not possible; it takes {', '.join(_MODES)}.", code="value")
    shaping = request._replace(query=tuple(pair for pair in request.query if pair[0] != "mode"))
    await context.parameters.reload()
    raw = context.capability(request.base)
    body = apply_shape(context, shaping, "CapabilityStatement", raw) if shaping.query else raw
    tag = f'W/"{hashlib.blake2b(body, digest_size=8).hexdigest()}"'
    known = tag in request.headers.get("if-none-match", "")
    return Response(304 if known else 200, b"" if known else body, headers=(("ETag", tag),))


class InteractionFacts(Protocol):
    """What the statement needs of a row of the interaction table."""

    @property
    def code(self) -> str: ...
    @property
    def level(self) -> str: ...


class OperationFacts(Protocol):
    """What the statement needs of a row of the operation table."""

    @property
    def code(self) -> str: ...
    @property
    def definition(self) -> str: ...
    @property
    def documentation(self) -> str: ...
    @property
    def setting(self) -> str: ...
    def list_levels(self, type: str | None) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the statement is derived from."""

    interactions: tuple[InteractionFacts, ...]
    operations: Mapping[str, OperationFacts]
    definitions: Definitions
    registry: Registry
    settings: Settings
    version: str
    date: str


def build_statement(facts: Facts, base: str) -> dict[str, Any]:
    """The CapabilityStatement of this server at a base URL."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": facts.date,
        "kind": "instance",
        "software": {"name": "fhir-server", "version": facts.version},
        "implementation": {"description": "FHIR R4 interoperability server", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "patchFormat": ["application/json-patch+json", "application/merge-patch+json", "application/fhir+json"],
        "rest": [_build_rest(facts, base)],
    }


_SECURITY = {
    "cors": True,
    "service": [
        {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
                    "code": "SMART-on-FHIR",
                }
            ]
        }
    ],
    "description": "Every request needs an access token; its SMART scopes say what it may read and write.",
}


_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"


def _build_security(facts: Facts, base: str) -> dict[str, Any]:
    """With where tokens are to be had from this server, for apps that do not read `smart-configuration` (SMART 1.0)."""
    if facts.settings.issuers:
        return _SECURITY
    urls = [{"url": name, "valueUri": f"{base}/auth/{name}"} for name in ("authorize", "token", "introspect", "revoke")]
    return {"extension": [{"url": _OAUTH_URIS, "extension": urls}], **_SECURITY}


def _build_rest(facts: Facts, base: str) -> dict[str, Any]:
    return {
        "mode": "server",
        "documentation": "\n".join(_document_common_parts(facts)),
        **({"security": _build_security(facts, base)} if facts.settings.authentication == "on" else {}),
        "resource": [_build_resource(facts, type) for type in facts.registry.types],
        "interaction": [{"code": code} for code in _list_codes(facts, "system")],
        "searchParam": [
            *_build_search_parameters(_find_common_parameters(facts.registry), facts.settings),
            *_build_syntax_parameters(facts.registry),
        ],
        "operation": _build_operations(facts, None),
        "compartment": [
            f"http://hl7.org/fhir/CompartmentDefinition/{name.lower()}"
            for name in sorted(facts.definitions.compartments)
        ],
    }


def _list_codes(facts: Facts, level: str) -> list[str]:
    return list(dict.fromkeys(each.code for each in facts.interactions if each.level == level))


def _build_resource(facts: Facts, type: str) -> dict[str, Any]:
    parameters = facts.registry.parameters(type)
    references = sorted(code for code, parameter in parameters.items() if parameter.type == "reference")
    described: dict[str, Any] = {
        "type": type,
        "profile": f"http://hl7.org/fhir/StructureDefinition/{type}",
        "interaction": [{"code": code} for code in _list_codes(facts, "type")],
        "versioning": "versioned",  # `versioned-update` would say that an update needs If-Match
        "readHistory": True,
        "updateCreate": True,
        "conditionalCreate": True,
        "conditionalRead": "full-support",
        "conditionalUpdate": True,
        "conditionalDelete": facts.settings.conditional_delete,
        "referencePolicy": ["literal", "logical", *(["enforced"] if facts.settings.references == "enforce" else [])],
    }
    if references:
        described["searchInclude"] = ["*", *(f"{type}:{code}" for code in references)]
    reverse = _list_reverse_includes(facts.registry, type)
    if reverse:
        described["searchRevInclude"] = reverse
    described["searchParam"] = _build_search_parameters(parameters, facts.settings)
    described["operation"] = _build_operations(facts, type)
    return described


def _list_reverse_includes(registry: Registry, type: str) -> list[str]:
    return [
        f"{source}:{code}"
        for source in registry.types
        for code, parameter in sorted(registry.parameters(source).items())
        if parameter.type == "reference" and type in parameter.targets
    ]


def _document_common_parts(facts: Facts) -> Iterator[str]:
    """What holds for every parameter of a type and for the operations of every resource type, said once."""
    yield "Every search parameter takes the modifier `:missing`. The others, and the prefixes, go by parameter type:\n"
    for name, kind in TYPES.items():
        if kind.modifiers or kind.prefixes:
            modifiers = ", ".join(f"`:{each}`" for each in sorted(kind.modifiers - kind.modifier_datatypes.keys()))
            types = ", `:[type]`" if name == "reference" else ""
            parts = [f"modifiers {modifiers}{types}"] if modifiers else []
            parts += [f"prefixes {', '.join(f'`{each}`' for each in sorted(PREFIXES))}"] if kind.prefixes else []
            yield f"- {name}: {'; '.join(parts)}"
    yield "\nA parameter that takes more says so. Operations of every resource type:\n"
    for each in facts.operations.values():
        if _is_switched_on(facts, each) and _is_of_every_type(facts, each):
            yield f"- `${each.code}`: {each.documentation}"


def _build_search_parameters(parameters: Mapping[str, Parameter], settings: Settings) -> list[dict[str, Any]]:
    return [
        _build_search_parameter(parameter, _document_parameter(parameter))
        for code, parameter in sorted(parameters.items())
        if (parameter.type in TYPES and parameter.type != "special") or (code in _WORDS and settings.full_text)
    ]


def _build_search_parameter(parameter: Parameter, documentation: str) -> dict[str, Any]:
    described = {"name": parameter.code, "definition": parameter.url, "type": _get_published_type(parameter)}
    return {**described, "documentation": documentation} if documentation else described


SYNTAX = {
    "_filter": "An expression over the search parameters of the type: all logical and comparison operators, paths.",
    "_list": "The ids of Lists, separated by commas: finds what they refer to. No functional lists.",
}
"""Criteria of every type that are no parameters of one; `search.parse.COMMON_CRITERIA` reads them."""


def _build_syntax_parameters(registry: Registry) -> list[dict[str, Any]]:
    parameters = registry.parameters(registry.types[0]) if registry.types else {}
    return [_build_search_parameter(parameters[code], text) for code, text in SYNTAX.items()]


def _get_published_type(parameter: Parameter) -> str:
    """The parameter type as R4 has it."""
    if parameter.code in _WORDS:
        return "string"
    return "special" if parameter.type == "near" else parameter.type


def _document_parameter(parameter: Parameter) -> str:
    """What is special about the parameter; "" when its type says all."""
    if parameter.code in _WORDS:
        return 'Words, "phrases", word*, AND, OR, NOT and parentheses; no modifiers.'
    if parameter.type == "near":
        return (
            "`latitude|longitude|distance|units`: positions at most that far away on the great circle; "
            "50 km without a distance, km without units (UCUM codes of length, `mi`, `ft`)."
        )
    kind = TYPES[parameter.type]
    further = sorted(kind.list_modifiers(parameter) & kind.modifier_datatypes.keys())
    more = f"Also takes {', '.join(f'`:{each}`' for each in further)}. " if further else ""
    waiting = "Not searchable yet: stored resources wait for a reindex." if parameter.pending else ""
    return (more + waiting).strip()


def _find_common_parameters(registry: Registry) -> Mapping[str, Parameter]:
    """The parameters that every type has."""
    codes: set[str] | None = None
    for type in registry.types:
        codes = set(registry.parameters(type)) if codes is None else codes & set(registry.parameters(type))
    first: Iterable[str] = registry.types[:1]
    return {code: registry.parameters(type)[code] for type in first for code in codes or ()}


def _build_operations(facts: Facts, type: str | None) -> list[dict[str, str]]:
    """The operations of a resource type and its instances; for None, of the system."""
    return [
        {
            "name": each.code,
            "definition": each.definition.replace("{type}", type or ""),
            **({} if type and _is_of_every_type(facts, each) else {"documentation": each.documentation}),
        }
        for each in facts.operations.values()
        if each.list_levels(type) and _is_switched_on(facts, each)
    ]


def _is_switched_on(facts: Facts, operation: OperationFacts) -> bool:
    return not operation.setting or bool(getattr(facts.settings, operation.setting))


def _is_of_every_type(facts: Facts, operation: OperationFacts) -> bool:
    return all(operation.list_levels(type) for type in facts.registry.types)
