"""URI parameters: equal to the value, character by character (https://hl7.org/fhir/R4/search.html#uri).

`:below` finds the URL and all below it, `:above` the URL and all that it is below, both by whole path segments. A
trailing slash is as good as none, except that `:below` with one leaves out the URL without it. URNs have no levels.
"""

from __future__ import annotations

import re
from typing import Any

from fhir_server.search.escapes import unescape
from fhir_server.search.parameters.criteria import Criteria, ParameterType, Surroundings, any_of, wrong
from fhir_server.search.query import Clause, Equals, StartsWith
from fhir_server.search.registry import Parameter

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/]+", re.ASCII)


def clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """The URI as written, or what is below or above it."""
    uri = unescape(text)
    if modifier is None:
        return Equals(parameter.code, (uri,))
    root = _URL.match(uri)
    if not root:
        raise wrong(parameter, text, f"`:{modifier}` compares path segments, which only a URL such as `http://…` has.")
    if modifier == "below":
        below = StartsWith(parameter.code, uri if uri.endswith("/") else f"{uri}/")
        return below if uri.endswith("/") else any_of((Equals(parameter.code, (uri,)), below))
    return Equals(parameter.code, tuple(_above(uri, root.end())))


def _above(url: str, end: int) -> list[str]:
    """The URL and each URL that it is below, down to its host; each with and without a trailing slash."""
    found = [url]
    path = url.rstrip("/")
    while True:
        found += [path, f"{path}/"]
        if len(path) <= end:
            return list(dict.fromkeys(found))
        path = path[: path.rindex("/")]


def _uri(value: Any, around: Surroundings) -> tuple[str, ...]:
    return (value,)


URI = ParameterType(
    kind="terms",
    extract=dict.fromkeys(("uri", "url", "canonical", "oid", "uuid"), _uri),
    clause=clause,
    modifiers=frozenset({"above", "below"}),
)
