"""Which phases the bench has and how each is prepared, side by side on one or two servers (`bench/README.md`, https://hl7.org/fhir/R4/http.html)."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bench.http import Target
from bench.ingest import Folder, ingest_pass
from bench.measuring import Lane, Limits, Phase, Samples, measure, open_lane
from bench.phases import CRUD_PATIENTS, READ_PATIENTS, Crud, Read, Transaction, create_patients
from bench.queries import QUERIES, Query, Search, all_queries, fill, pools_of, totals
from bench.summary import Measured

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Work:
    """What to do in each phase; `passes` is for ingest, `copies` for scale, `limits` for the others."""

    limits: Limits
    folder: Folder | None = None
    passes: int = 2
    copies: int = 15
    seed: int = 1


async def run_bench(
    targets: Sequence[Target], phases: Sequence[str], work: Work, connections: int, say: Say
) -> list[Measured]:
    """Every phase in the order given. Raises OSError when a server cannot be reached, ValueError when it lacks data."""
    lanes = [await open_lane(target, connections) for target in targets]
    measured: list[Measured] = []
    try:
        for phase in phases:
            say(phase)
            measured += await PHASES[phase](lanes, work)
    finally:
        for lane in lanes:
            for connection in lane.connections:
                connection.close()
    return measured


async def _read(lanes: Sequence[Lane], work: Work) -> list[Measured]:
    phases: list[Phase] = []
    for lane in lanes:
        rng = random.Random(work.seed)
        phases.append(Read(lane.target, await create_patients(lane, READ_PATIENTS, rng), rng))
    return _named("read", lanes, await measure(lanes, phases, work.limits))


async def _crud(lanes: Sequence[Lane], work: Work) -> list[Measured]:
    phases: list[Phase] = []
    for lane in lanes:
        rng = random.Random(work.seed)
        phases.append(Crud(lane.target, await create_patients(lane, CRUD_PATIENTS, rng), rng))
    results = await measure(lanes, phases, work.limits)
    return [Measured("crud", lane.target.url, found, by_label=True) for lane, found in zip(lanes, results, strict=True)]


async def _transaction(lanes: Sequence[Lane], work: Work) -> list[Measured]:
    phases: list[Phase] = [Transaction(lane.target, random.Random(work.seed)) for lane in lanes]
    return _named("transaction", lanes, await measure(lanes, phases, work.limits))


async def _search(lanes: Sequence[Lane], work: Work) -> list[Measured]:
    await _filled(lanes, work)
    return await _searched("search", lanes, [QUERIES for _ in lanes], work)


async def _search_all(lanes: Sequence[Lane], work: Work) -> list[Measured]:
    await _filled(lanes, work)
    return await _searched("search-all", lanes, [await all_queries(lane) for lane in lanes], work)


async def _filled(lanes: Sequence[Lane], work: Work) -> None:
    if work.folder is not None:
        for lane in lanes:
            await fill(lane, work.folder)


async def _searched(name: str, lanes: Sequence[Lane], queries: Sequence[Sequence[Query]], work: Work) -> list[Measured]:
    """`queries`: those of each lane."""
    phases: list[Phase] = []
    found = []
    for lane, asked in zip(lanes, queries, strict=True):
        pools = await pools_of(lane, asked)
        found.append(await totals(lane, asked, pools))
        phases.append(Search(lane.target, asked, pools, random.Random(work.seed)))
    results = await measure(lanes, phases, work.limits)
    return [
        Measured(name, lane.target.url, samples, by_label=True, totals=total)
        for lane, samples, total in zip(lanes, results, found, strict=True)
    ]


async def _ingest(lanes: Sequence[Lane], work: Work) -> list[Measured]:
    first = await ingest_pass(lanes, _folder(work))
    measured = _named("ingest, first pass", lanes, first, "resources")
    if work.passes > 1:
        warm = [Samples() for _ in lanes]
        for _ in range(work.passes - 1):
            for into, samples in zip(warm, await ingest_pass(lanes, _folder(work)), strict=True):
                _merge(into, samples)
        measured += _named("ingest, warm", lanes, warm, "resources")
    return measured


async def _scale(lanes: Sequence[Lane], work: Work) -> list[Measured]:
    """The folder `copies` times: ingest at each, both search mixes after the first and the last."""
    measured: list[Measured] = []
    for copy in range(1, work.copies + 1):
        measured += _named(f"scale, ingest {copy}×", lanes, await ingest_pass(lanes, _folder(work)), "resources")
        if copy in (1, work.copies):
            measured += await _searched(f"scale, search {copy}×", lanes, [QUERIES for _ in lanes], work)
            everything = [await all_queries(lane) for lane in lanes]
            measured += await _searched(f"scale, search-all {copy}×", lanes, everything, work)
    return measured


PHASES: dict[str, Callable[[Sequence[Lane], Work], Awaitable[list[Measured]]]] = {
    "ingest": _ingest,
    "search": _search,
    "search-all": _search_all,
    "read": _read,
    "crud": _crud,
    "transaction": _transaction,
    "scale": _scale,
}

NEED_FOLDER = frozenset({"ingest", "scale"})


def _folder(work: Work) -> Folder:
    if work.folder is None:
        raise ValueError("This phase posts a folder of bundles: say which with `--folder PATH`.")
    return work.folder


def _named(name: str, lanes: Sequence[Lane], results: Sequence[Samples], unit: str = "requests") -> list[Measured]:
    return [Measured(name, lane.target.url, samples, unit) for lane, samples in zip(lanes, results, strict=True)]


def _merge(into: Samples, other: Samples) -> None:
    into.seconds += other.seconds
    into.resources += other.resources
    into.errors.update(other.errors)
    into.first_texts = other.first_texts | into.first_texts
    for label, took in other.latencies.items():
        into.latencies[label] += took
