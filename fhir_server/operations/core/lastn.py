"""`Observation/$lastn`: the most recent observations of each code (https://hl7.org/fhir/R4/observation-operation-lastn.html)."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from fhir_server.fhir.outcome import Invalid, NotSupported, TooCostly
from fhir_server.interactions.search import SearchRequest, build_searchset, read_search
from fhir_server.operations.parameters import parse_parameters, parse_positive_integer
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller, Pairs, Request, Response
from fhir_server.search.parameters import TYPES, Surroundings
from fhir_server.search.query import Query, Sort
from fhir_server.store.protocol import Page, Stored

TYPE = "Observation"
MOST = 10_000
"""Observations that are looked through for one answer."""

_PAGE = 500
_MAX = "max"
_REFUSED = frozenset({"_sort", "_count", "_total", "_type"})
_DATE = TYPES["date"].extractors


@dataclass(frozen=True, slots=True)
class Dated:
    """An observation, its codes and the end of its effective time (µs; None without one)."""

    stored: Stored
    codes: tuple[Hashable, ...]
    effective: int | None


async def lastn(context: Context, request: Request) -> Response:
    """200 with a searchset, the most recent first. Raises Invalid without subject, or without category or code."""
    pairs = parse_parameters(context, request)
    most = _most(pairs)
    criteria = tuple(pair for pair in pairs if pair[0] != _MAX)
    _check(criteria)
    handling = request.get_preference("handling") or context.settings.handling
    search_request = SearchRequest((TYPE,), criteria, handling == "lenient")
    parsed = await read_search(context, request, search_request)
    if parsed.contained:
        raise NotSupported("`$lastn` does not look into containers; leave `_contained` out.")
    found = await _read_all(
        context, request.caller, replace(parsed.query, sort=(Sort("date", "date", True),), count=_PAGE)
    )
    matches = tuple(observation.stored for observation in latest(found, most))
    shown = tuple(pair for pair in pairs if pair[0] == _MAX)
    answered = replace(parsed, applied=(*shown, *parsed.applied))
    body = await build_searchset(
        context, request, replace(search_request, path=request.path), answered, Page(matches, None)
    )
    return Response(200, body)


def _most(pairs: Pairs) -> int:
    given = [value for name, value in pairs if name == _MAX]
    if len(given) > 1:
        raise Invalid("`max` is given more than once; give one value.")
    return parse_positive_integer(_MAX, given[0]) if given else 1


def _check(pairs: Pairs) -> None:
    names = [name.partition(":")[0].partition(".")[0] for name, _ in pairs if not name.endswith(":missing")]
    for name, value in pairs:
        if name in _REFUSED or (name, value) == ("_summary", "count"):
            raise Invalid(f"`$lastn` gives its own order, groups and number, so `{name}={value}` cannot be applied.")
    if not {"patient", "subject"}.intersection(names):
        raise Invalid("`$lastn` needs a subject: give `patient` or `subject`.", code="required")
    if not any(name == "category" or "code" in name.split("-") for name in names):
        raise Invalid("`$lastn` needs `category` or a parameter with a code, such as `code`.", code="required")


async def _read_all(context: Context, caller: Caller, query: Query) -> list[Dated]:
    """Every match, the most recent first; TooCostly when there are more than MOST."""
    around = Surroundings(context.criteria(caller.base).zone, context.bases.include(caller.base), context.types, None)
    found: list[Dated] = []
    size = 0
    reader = context.reader(caller)
    page = await reader.search(query)
    while True:
        found += await context.long_work.run_each(lambda match: _date_observation(match, around), page.matches)
        if page.next is None:
            return found
        size += sum(len(match.raw or b"") for match in page.matches)
        if size > context.settings.max_answer:
            raise TooCostly(
                f"The observations that match have more than {context.settings.max_answer:,} bytes (setting "
                "`max_answer`); narrow the request by `category`, `code` or `date`."
            )
        if len(found) > MOST:
            raise TooCostly(f"More than {MOST} observations match; narrow the request by `category`, `code` or `date`.")
        await asyncio.sleep(0)
        page = await reader.search(replace(query, after=page.next))


def _date_observation(stored: Stored, around: Surroundings) -> Dated:
    tree = orjson.loads(stored.raw or b"{}")
    ends = [
        high
        for type in ("dateTime", "Period", "instant", "Timing")
        if (value := tree.get(f"effective{type[0].upper()}{type[1:]}")) is not None
        for _, high in _DATE[type](value, around)
    ]
    return Dated(stored, tuple(codes_of(tree.get("code", {}))), max(ends, default=None))


def codes_of(concept: dict[str, Any]) -> Iterable[Hashable]:
    """What an observation is grouped by: system and code of each coding; its text where it has none."""
    coded: list[Hashable] = [(each.get("system"), each["code"]) for each in concept.get("coding", ()) if "code" in each]
    return coded or [("text", concept.get("text", ""), "")]


def latest(observations: Sequence[Dated], most: int) -> list[Dated]:
    """The first `most` of each group, and what is as recent as the last of them; given and returned in order of time.

    Codes are equal when one observation has both, or when a third one is equal to both.
    """
    groups = _Groups()
    for observation in observations:
        groups.join(observation.codes)
    taken: dict[Hashable, list[Dated]] = {}
    kept = []
    for observation in observations:
        listed = taken.setdefault(groups.root(observation.codes[0]), [])
        tie = observation.effective is not None and listed and observation.effective == listed[-1].effective
        if len(listed) < most or tie:
            listed.append(observation)
            kept.append(observation)
    return kept


class _Groups:
    """Codes that are the same one, by union and find."""

    def __init__(self) -> None:
        self._above: dict[Hashable, Hashable] = {}

    def root(self, code: Hashable) -> Hashable:
        """The code that stands for the group."""
        above = self._above.setdefault(code, code)
        while above != code:
            # halving the path keeps it short
            self._above[code] = code = self._above[above]
            above = self._above[code]
        return code

    def join(self, codes: Sequence[Hashable]) -> None:
        """Makes one group of all these codes."""
        first = self.root(codes[0])
        for code in codes[1:]:
            self._above[self.root(code)] = first
            first = self.root(first)
