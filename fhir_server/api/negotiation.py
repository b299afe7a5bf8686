"""Content types: what comes in and what goes out (https://hl7.org/fhir/R4/http.html#mime-type)."""

from __future__ import annotations

from fhir_server.fhir.outcome import Invalid, NotAcceptable, UnsupportedMediaType
from fhir_server.fhir.short_cache import cache_short
from fhir_server.requests.request import FHIR_JSON

_JSON_TYPES = frozenset({FHIR_JSON, "application/json", "text/json", "application/json+fhir"})
_ANY = frozenset({"*/*", "application/*"})
FHIR_TYPES = _JSON_TYPES
"""What FHIR JSON may be called in the answer."""
_FORMATS = frozenset({"json", *_JSON_TYPES})
_VERSIONS = frozenset({"4.0", "4.0.1"})


@cache_short(256)
def find_accepted_type(header: str) -> str | None:
    """The JSON content type to answer an `Accept` header with; None when it takes no FHIR JSON of version 4.0."""
    best, best_quality = None, 0.0
    for part in header.split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        settings = dict(_parse_parameter(piece) for piece in parameters)
        quality = _parse_quality(settings.get("q", "1"))
        if quality <= best_quality or settings.get("fhirversion", "4.0") not in _VERSIONS:
            continue
        kind = kind.lower()
        if kind in _ANY or kind in _JSON_TYPES:
            best, best_quality = (FHIR_JSON if kind in _ANY or kind == "application/json+fhir" else kind), quality
    return best


def _parse_parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lower(), value.strip().strip('"')


def _parse_quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def choose_response_type(accept: str | None, format_parameter: str | None) -> str:
    """The content type of the answer; `_format` wins over `Accept`. Raises NotAcceptable."""
    if format_parameter is not None:
        kind, *parameters = format_parameter.lower().split(";")
        # a plus sign in a query string arrives as a space
        kind = kind.strip().replace(" ", "+")
        version = dict(_parse_parameter(piece) for piece in parameters).get("fhirversion", "4.0")
        if kind not in _FORMATS or version not in _VERSIONS:
            raise NotAcceptable(
                f"`_format={format_parameter}` is not offered; this server answers `json` ({FHIR_JSON}), FHIR 4.0."
            )
        return FHIR_JSON if kind == "json" else kind
    if not accept:
        return FHIR_JSON
    chosen = find_accepted_type(accept)
    if chosen is None:
        raise NotAcceptable(f"`Accept: {accept}` is not offered; this server answers `{FHIR_JSON}; fhirVersion=4.0`.")
    return chosen


def choose_media_type(accept: str | None, format_parameter: str | None, gives: tuple[str, ...]) -> str:
    """Which of the media types that an operation gives the client wants; the first where it does not say.

    `_format` wins over `Accept`; it names a media type, or FHIR JSON by `json`. Raises NotAcceptable.
    """
    wanted = accept or "*/*"
    if format_parameter is not None:
        wanted = format_parameter.replace(" ", "+")
        wanted = FHIR_JSON if wanted == "json" else wanted
    best, best_quality = None, 0.0
    for part in wanted.split(","):
        kind, *parameters = (piece.strip() for piece in part.lower().split(";"))
        quality = _parse_quality(dict(_parse_parameter(piece) for piece in parameters).get("q", "1"))
        fits = (each for each in gives if _covers(kind, each))
        chosen = next(fits, None)
        if chosen is not None and quality > best_quality:
            best, best_quality = chosen, quality
    if best is None:
        source = f"_format={format_parameter}" if format_parameter is not None else f"Accept: {accept}"
        raise NotAcceptable(f"`{source}` is not offered; this operation answers {_list_types(gives)}.")
    return best


def check_operation_body(content_type: str | None, takes: tuple[str, ...]) -> None:
    """Refuse a body of another media type than those that an operation takes."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if any(_covers(kind, each) for each in takes if each != FHIR_JSON):
        return None
    if FHIR_JSON in takes and (content_type is None or is_fhir_json(content_type)):
        return check_body_type(content_type)
    there = f"`Content-Type: {content_type}` is not possible" if content_type else "The body has no Content-Type"
    raise UnsupportedMediaType(f"{there}; this operation takes {_list_types(takes)}.")


def _covers(kind: str, offered: str) -> bool:
    """Whether a media range such as `text/*` covers a media type."""
    if offered == FHIR_JSON and kind in _JSON_TYPES:
        return True
    return kind in ("*/*", offered.lower(), f"{offered.partition('/')[0]}/*")


def _list_types(types: tuple[str, ...]) -> str:
    return ", ".join(f"`{each}`" for each in types)


@cache_short(256)
def is_fhir_json(content_type: str) -> bool:
    """Whether a Content-Type is FHIR JSON of version 4.0 in UTF-8."""
    kind, *parameters = (piece.strip() for piece in content_type.split(";"))
    settings = dict(_parse_parameter(piece) for piece in parameters)
    return (
        kind.lower() in _JSON_TYPES
        and settings.get("fhirversion", "4.0") in _VERSIONS
        and settings.get("charset", "utf-8").lower() in ("utf-8", "utf8")
    )


def check_body_type(content_type: str | None) -> None:
    """Refuse a resource body that is not FHIR JSON."""
    if content_type is None:
        raise UnsupportedMediaType(f"The body has no Content-Type; send it as `{FHIR_JSON}`.")
    if not is_fhir_json(content_type):
        raise UnsupportedMediaType(f"`Content-Type: {content_type}` is not possible; send the body as `{FHIR_JSON}`.")


@cache_short(256)
def accepts_gzip(header: str) -> bool:
    """Whether an `Accept-Encoding` header takes gzip."""
    for part in header.split(","):
        coding, *parameters = part.split(";")
        if coding.strip().lower() in ("gzip", "x-gzip"):
            return _parse_quality(dict(_parse_parameter(piece) for piece in parameters).get("q", "1")) > 0
    return False


def parse_pretty(value: str | None) -> bool:
    """Whether `_pretty` asks for indentation."""
    if value not in (None, "true", "false"):
        raise Invalid(f"`_pretty={value}` is not possible; it takes true or false.", code="value")
    return value == "true"
