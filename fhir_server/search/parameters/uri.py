"""URI parameters: equal to the value, character by character (https://hl7.org/fhir/R4/search.html#uri).

`:below` finds the URL and all below it, `:above` the URL and all that it is below, both by whole path segments. A
trailing slash is as good as none, except that `:below` with one leaves out the URL without it. URNs have no levels.
What follows `?` or `#` is below the URL before it.

The URL of a canonical resource may be searched with its version (`url|version`). Elements of type canonical
(`_profile`) are found without their version as well, and by either form of an address of this server.
"""

from __future__ import annotations

import re
from typing import Any

from fhir_server.fhir.references import find_local_target, list_bases
from fhir_server.search.escapes import split, unescape
from fhir_server.search.parameters import token
from fhir_server.search.parameters.criteria import Criteria, ParameterType, Surroundings, make_or, reject
from fhir_server.search.query import And, Clause, Equals, StartsWith
from fhir_server.search.registry import Parameter

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/]+", re.ASCII)


def parse_clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """The URI as written, or what is below or above it."""
    canonical = "canonical" in parameter.datatypes
    if modifier is None:
        return _match_any_version(parameter, text, criteria) if canonical else _match_exactly(parameter, text, criteria)
    uri = unescape(text)
    root = _URL.match(uri)
    if not root:
        raise reject(parameter, text, f"`:{modifier}` compares path segments, which only a URL such as `http://…` has.")
    if "|" in uri and not canonical:
        raise reject(parameter, text, f"`:{modifier}` compares path segments and takes no version.")
    if modifier == "above":
        return Equals(parameter.code, tuple(_list_above(uri, root.end())))
    if uri.endswith("/"):
        return StartsWith(parameter.code, uri)
    ends = ("." if "|" in uri else "/?#|") if canonical else "/?#"
    return make_or((Equals(parameter.code, (uri,)), *(StartsWith(parameter.code, uri + end) for end in ends)))


def _match_exactly(parameter: Parameter, text: str, criteria: Criteria) -> Clause:
    """The URI as written; R4 on the URLs of canonical resources: a `|[version]` portion is a search on the version."""
    url, *versions = split(text, "|", 1)
    version = criteria.registry.parameters(parameter.base).get("version")
    # A component of a composite has no `parameter.url`, and no version beside it.
    if not versions or parameter.code != "url" or not parameter.url or version is None:
        return Equals(parameter.code, (unescape(text),))
    if not url or not versions[0]:
        raise reject(parameter, text, r"it is written `url` or `url|version`; write `|` inside a value as `\|`.")
    return And((Equals(parameter.code, (unescape(url),)), token.parse_clause(version, None, versions[0], criteria)))


def _match_any_version(parameter: Parameter, text: str, criteria: Criteria) -> Clause:
    """The canonical, in every version unless it names one; what is an address here is found by both its forms."""
    url, bar, version = unescape(text).partition("|")
    here = find_local_target(url, criteria.base, criteria.registry.types)
    ours = (here, *(f"{base}/{here}" for base in list_bases(criteria.base))) if here else ()
    urls = dict.fromkeys((url, *ours))
    exact = Equals(parameter.code, tuple(f"{each}{bar}{version}" for each in urls))
    return exact if bar else make_or((exact, *(StartsWith(parameter.code, f"{each}|") for each in urls)))


def _list_above(url: str, end: int) -> list[str]:
    """The URL and each URL that it is below, down to its host; each with and without a trailing slash."""
    found = [url]
    path = re.split(r"[?#]", url, maxsplit=1)[0].rstrip("/")
    while True:
        found += [path, f"{path}/"]
        if len(path) <= end:
            return list(dict.fromkeys(found))
        path = path[: path.rindex("/")]


def _extract_uri(value: Any, around: Surroundings) -> tuple[str, ...]:
    return (value,)


URI = ParameterType(
    kind="terms",
    extractors=dict.fromkeys(("uri", "url", "canonical", "oid", "uuid"), _extract_uri),
    parse_clause=parse_clause,
    modifiers=frozenset({"above", "below"}),
)
