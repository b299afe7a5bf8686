"""Which phases the bench has and how each is prepared, side by side on one or two servers (`bench/README.md`, https://hl7.org/fhir/R4/http.html)."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from bench.claims import measure_claims
from bench.http import Target
from bench.ingest import Folder, post_folder
from bench.measuring import Lane, Limits, Phase, Samples, measure, open_lane
from bench.messages import Receiver, measure_messages
from bench.money import measure_aging, measure_posting, prepare_practice
from bench.phases import CRUD_PATIENTS, READ_PATIENTS, Crud, Read, Transaction, create_patients
from bench.queries import QUERIES, Query, Search, count_totals, fill, list_queries, read_pools
from bench.scheduling import Book, Find, prepare_booked, prepare_providers
from bench.summary import PhaseResult

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Work:
    """What to do in each phase: `passes` of ingest, `copies` of scale, `claims` of money, `limits` of the others.

    `ports`: of each server the port of its listener for HL7 v2.
    """

    limits: Limits
    folder: Folder | None = None
    passes: int = 2
    copies: int = 15
    seed: int = 1
    claims: int = 1_000
    ports: Sequence[int] = ()


async def run_bench(
    targets: Sequence[Target], phases: Sequence[str], work: Work, connections: int, say: Say
) -> list[PhaseResult]:
    """Every phase in the order given. Raises OSError when a server cannot be reached, ValueError when it lacks data."""
    lanes = [await open_lane(target, connections) for target in targets]
    measured: list[PhaseResult] = []
    try:
        for phase in phases:
            say(phase)
            measured += await PHASES[phase](lanes, work)
    finally:
        for lane in lanes:
            for connection in lane.connections:
                connection.close()
    return measured


async def _measure_read(lanes: Sequence[Lane], work: Work) -> list[PhaseResult]:
    phases: list[Phase] = []
    for lane in lanes:
        rng = random.Random(work.seed)
        phases.append(Read(lane.target, await create_patients(lane, READ_PATIENTS, rng), rng))
    return _make_results("read", lanes, await measure(lanes, phases, work.limits))


async def _measure_crud(lanes: Sequence[Lane], work: Work) -> list[PhaseResult]:
    phases: list[Phase] = []
    for lane in lanes:
        rng = random.Random(work.seed)
        phases.append(Crud(lane.target, await create_patients(lane, CRUD_PATIENTS, rng), rng))
    results = await measure(lanes, phases, work.limits)
    return [
        PhaseResult("crud", lane.target.url, samples, by_label=True)
        for lane, samples in zip(lanes, results, strict=True)
    ]


async def _measure_transaction(lanes: Sequence[Lane], work: Work) -> list[PhaseResult]:
    phases: list[Phase] = [Transaction(lane.target, random.Random(work.seed)) for lane in lanes]
    return _make_results("transaction", lanes, await measure(lanes, phases, work.limits))


async def _measure_search(lanes: Sequence[Lane], work: Work) -> list[PhaseResult]:
    await _fill_all(lanes, work)
    return await _measure_queries("search", lanes, [QUERIES for _ in lanes], work)


async def _measure_search_all(lanes: Sequence[Lane], work: Work) -> list[PhaseResult]:
    await _fill_all(lanes, work)
    return await _measure_queries("search-all", lanes, [await list_queries(lane) for lane in lanes], work)


async def _fill_all(lanes: Sequence[Lane], work: Work) -> None:
    if work.folder is not None:
        for lane in lanes:
            await fill(lane, work.folder)


async def _measure_queries(
    name: str, lanes: Sequence[Lane], queries: Sequence[Sequence[Query]], work: Work
) -> list[PhaseResult]:
    """`queries`: those of each lane."""
    phases: list[Phase] = []
    found = []
    for lane, asked in zip(lanes, queries, strict=True):
        pools = await read_pools(lane, asked)
        found.append(await count_totals(lane, asked, pools))
        phases.append(Search(lane.target, asked, pools, random.Random(work.seed)))
    results = await measure(lanes, phases, work.limits)
    return [
        PhaseResult(name, lane.target.url, samples, by_label=True, totals=total)
        for lane, samples, total in zip(lanes, results, found, strict=True)
    ]


async def _measure_ingest(lanes: Sequence[Lane], work: Work) -> list[PhaseResult]:
    first = await post_folder(lanes, _require_folder(work))
    measured = _make_results("ingest, first pass", lanes, first, "resources")
    if work.passes > 1:
        warm = [Samples() for _ in lanes]
        for _ in range(work.passes - 1):
            for into, samples in zip(warm, await post_folder(lanes, _require_folder(work)), strict=True):
                _merge(into, samples)
        measured += _make_results("ingest, warm", lanes, warm, "resources")
    return measured


async def _measure_scale(lanes: Sequence[Lane], work: Work) -> list[PhaseResult]:
    """The folder `copies` times: ingest at each, both search mixes after the first and the last."""
    measured: list[PhaseResult] = []
    for copy in range(1, work.copies + 1):
        measured += _make_results(
            f"scale, ingest {copy}×", lanes, await post_folder(lanes, _require_folder(work)), "resources"
        )
        if copy in (1, work.copies):
            measured += await _measure_queries(f"scale, search {copy}×", lanes, [QUERIES for _ in lanes], work)
            everything = [await list_queries(lane) for lane in lanes]
            measured += await _measure_queries(f"scale, search-all {copy}×", lanes, everything, work)
    return measured


async def _measure_find(lanes: Sequence[Lane], work: Work) -> list[PhaseResult]:
    phases: list[Phase] = [Find(lane.target, await prepare_booked(lane, random.Random(work.seed))) for lane in lanes]
    return _make_results("find", lanes, await measure(lanes, phases, work.limits))


async def _measure_bookings(name: str, path: str, lanes: Sequence[Lane], work: Work) -> list[PhaseResult]:
    phases: list[Phase] = [Book(lane.target, await prepare_providers(lane), path) for lane in lanes]
    return _make_results(name, lanes, await measure(lanes, phases, work.limits))


async def _measure_money(lanes: Sequence[Lane], work: Work) -> list[PhaseResult]:
    """Each server by itself: the posting is done by its workers, so that there are no turns to take."""
    names = ("money, reads before", "money, 835", "money, reads beside")
    measured: list[PhaseResult] = []
    for lane in lanes:
        practice = await prepare_practice(lane, work.claims)
        for name, samples in zip(names, await measure_posting(lane, practice, work.claims), strict=True):
            measured.append(PhaseResult(name, lane.target.url, samples, "resources", by_label=name == "money, 835"))
    return measured


async def _measure_aging(lanes: Sequence[Lane], work: Work) -> list[PhaseResult]:
    return _make_results("aging", lanes, [await measure_aging(lane) for lane in lanes])


async def _measure_claims(lanes: Sequence[Lane], work: Work) -> list[PhaseResult]:
    results = [await measure_claims(lane) for lane in lanes]
    return [
        PhaseResult("claims", lane.target.url, samples, by_label=True)
        for lane, samples in zip(lanes, results, strict=True)
    ]


async def _measure_hl7v2(lanes: Sequence[Lane], work: Work) -> list[PhaseResult]:
    if len(work.ports) != len(lanes):
        raise ValueError("The phase `hl7v2` needs the port of each server's `hl7v2 listen`: say `--mllp PORT`.")
    receivers = [Receiver(lane.target.host, port) for lane, port in zip(lanes, work.ports, strict=True)]
    return [
        PhaseResult(f"hl7v2, {label}", lane.target.url, samples, "messages")
        for label, results in (await measure_messages(receivers, work.limits)).items()
        for lane, samples in zip(lanes, results, strict=True)
    ]


PHASES: dict[str, Callable[[Sequence[Lane], Work], Awaitable[list[PhaseResult]]]] = {
    "ingest": _measure_ingest,
    "search": _measure_search,
    "search-all": _measure_search_all,
    "read": _measure_read,
    "crud": _measure_crud,
    "transaction": _measure_transaction,
    "find": _measure_find,
    "book": partial(_measure_bookings, "book", "Appointment/$book"),
    "appointments": partial(_measure_bookings, "appointments", "Appointment"),
    "money": _measure_money,
    "aging": _measure_aging,
    "claims": _measure_claims,
    "hl7v2": _measure_hl7v2,
    "scale": _measure_scale,
}

NEED_FOLDER = frozenset({"ingest", "scale"})


def _require_folder(work: Work) -> Folder:
    if work.folder is None:
        raise ValueError("This phase posts a folder of bundles: say which with `--folder PATH`.")
    return work.folder


def _make_results(
    name: str, lanes: Sequence[Lane], results: Sequence[Samples], unit: str = "requests"
) -> list[PhaseResult]:
    return [PhaseResult(name, lane.target.url, samples, unit) for lane, samples in zip(lanes, results, strict=True)]


def _merge(into: Samples, other: Samples) -> None:
    into.seconds += other.seconds
    into.resources += other.resources
    into.errors.update(other.errors)
    into.first_texts = other.first_texts | into.first_texts
    for label, took in other.latencies.items():
        into.latencies[label] += took
