"""`_summary` and `_elements` on a resource that is read (https://hl7.org/fhir/R4/search.html#summary)."""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.subset import find_unknown_elements, write_subset
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request

FORMAT_PARAMETERS = frozenset({"_format", "_pretty"})
LENIENT = "`Prefer: handling=lenient` ignores what is unknown."
_SUMMARIES = ("true", "false", "text", "data")


Shape = tuple[str | None, tuple[str, ...]]
"""`_summary`, None for all of the resource, and the names in `_elements`."""


def is_lenient(context: Context, request: Request) -> bool:
    """Whether unknown parameters of a request that reads are ignored (https://hl7.org/fhir/R4/search.html#errors)."""
    return (request.get_preference("handling") or context.settings.handling) == "lenient"


def apply_shape(context: Context, request: Request, type: str, raw: bytes) -> bytes:
    """The part of the resource that the request's `_summary` or `_elements` asks for. Other parameters are refused."""
    summary, elements = parse_shape(context, request, type)
    if summary is None and not elements:
        return raw
    return write_subset(raw, type, context.definitions, summary, elements)


def parse_shape(context: Context, request: Request, type: str) -> Shape:
    """What a read asks for of a resource of a type. Raises Invalid for what it cannot have."""
    summary: str | None = None
    elements: tuple[str, ...] = ()
    for name, value in request.query:
        if name == "_summary":
            summary = _parse_summary(value)
        elif name == "_elements":
            elements += tuple(part.strip() for part in value.split(",") if part.strip())
        elif name not in FORMAT_PARAMETERS and not is_lenient(context, request):
            raise Invalid(
                f"A read has no parameter `{name}`; it takes `_summary`, `_elements`, `_format` and `_pretty`. "
                + LENIENT,
                code="not-supported",
            )
    check_elements(context, (type,), elements)
    return None if summary == "false" else summary, elements


def check_elements(context: Context, types: Sequence[str], elements: tuple[str, ...]) -> None:
    """Refuse names in `_elements` that none of the types has."""
    unknown = elements
    for type in types if elements else ():
        unknown = find_unknown_elements(type, unknown, context.definitions)
    if not unknown:
        return
    names = ", ".join(f"`{name}`" for name in unknown)
    if len(types) > 1:
        raise Invalid(f"`_elements` names {names}, which none of the types searched has.", code="value")
    valid = ", ".join(sorted(context.definitions.properties[types[0]]))
    raise Invalid(f"`_elements` names {names}, which `{types[0]}` does not have. Valid ones: {valid}.", code="value")


def _parse_summary(value: str) -> str:
    if value not in _SUMMARIES:
        raise Invalid(
            f"`_summary={value}` is not possible on a read; it takes true, false, text or data.", code="value"
        )
    return value
