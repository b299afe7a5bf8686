"""Keeps a server busy for a while and counts what it answered; two servers take turns (method: `bench/README.md`, https://hl7.org/fhir/R4/http.html)."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from bench.answers import Answer, read_text
from bench.http import Connection, Target, connect

SLICE = 2.0
"""Seconds for which one server is measured before the other one's turn."""

TIME_LIMIT = 120.0
NO_ANSWER = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A prepared request: its text, the label it is counted under, the right statuses, the resources it moves."""

    text: bytes
    label: str
    expected: tuple[int, ...]
    resources: int = 1
    key: Any = None


class Phase(Protocol):
    """What is asked of one server; `ask` gives None when there is nothing left to do."""

    name: str

    def ask(self) -> Request | None:
        """The next request."""
        ...

    def learn(self, request: Request, answer: Answer) -> bool:
        """Take note of an answer with an expected status; False when its body shows an error after all."""
        ...


@dataclass(slots=True)
class Samples:
    """What one server did in one phase: seconds of each right answer by label, wrong ones by status (0: no answer)."""

    seconds: float = 0.0
    resources: int = 0
    latencies: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: Counter[int] = field(default_factory=Counter)
    first_texts: dict[int, str] = field(default_factory=dict)

    @property
    def ok(self) -> int:
        """How many answers were right."""
        return sum(map(len, self.latencies.values()))

    def all_latencies(self) -> list[float]:
        """Seconds of every right answer."""
        return [took for label in self.latencies.values() for took in label]

    def wrong(self, status: int, text: str) -> None:
        """Count an answer that was not right and keep the first text of each status."""
        self.errors[status] += 1
        self.first_texts.setdefault(status, text)


@dataclass(slots=True)
class Lane:
    """One server under measurement and the connections to it."""

    target: Target
    connections: list[Connection]


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a phase ends: after `seconds` or `requests` per server, whichever comes first (None: no such bound)."""

    seconds: float | None
    requests: int | None = None


async def open_lane(target: Target, connections: int) -> Lane:
    """A lane with that many open connections. Raises OSError."""
    return Lane(target, [await connect(target, TIME_LIMIT) for _ in range(connections)])


async def ask_json(lane: Lane, path: str) -> Any:
    """The JSON that a GET of `path` answers. Raises ValueError with the server's text when it is not 200."""
    connection = await get_connection(lane, 0)
    answer = await connection.exchange(lane.target.request("GET", path))
    if answer.status != 200:
        raise ValueError(f"`GET {lane.target.url}/{path}` answered {answer.status}: {read_text(answer.body)}")
    return orjson.loads(answer.body)


async def measure(lanes: Sequence[Lane], phases: Sequence[Phase], limits: Limits) -> list[Samples]:
    """Run each lane's phase to its limits; lanes take turns, so that a drift of the machine meets all alike."""
    results = [Samples() for _ in lanes]
    rounds = 1 if limits.seconds is None else max(1, math.ceil(limits.seconds / SLICE))
    for turn in range(rounds):
        seconds = math.inf if limits.seconds is None else limits.seconds / rounds
        for lane, phase, samples in zip(lanes, phases, results, strict=True):
            await _measure_slice(lane, phase, samples, (seconds, _compute_share(limits.requests, rounds, turn)))
    return results


def _compute_share(requests: int | None, rounds: int, turn: int) -> float:
    if requests is None:
        return math.inf
    return requests * (turn + 1) // rounds - requests * turn // rounds


async def _measure_slice(lane: Lane, phase: Phase, samples: Samples, bounds: tuple[float, float]) -> None:
    start = time.perf_counter()
    seconds, budget = bounds
    shares = [budget] * len(lane.connections)
    if budget != math.inf:
        shares = [_compute_share(int(budget), len(shares), index) for index in range(len(shares))]
    try:
        async with asyncio.TaskGroup() as group:
            for index, share in enumerate(shares):
                group.create_task(_send_requests(lane, index, phase, samples, (start + seconds, share)))
    except ExceptionGroup as errors:
        # A server that went away ends all workers alike; one of the errors says it.
        raise errors.exceptions[0] from None
    samples.seconds += time.perf_counter() - start


async def _send_requests(lane: Lane, index: int, phase: Phase, samples: Samples, bounds: tuple[float, float]) -> None:
    end, budget = bounds
    clock = time.perf_counter
    connection = await get_connection(lane, index)
    while budget > 0 and clock() < end:
        request = phase.ask()
        if request is None:
            return
        budget -= 1
        start = clock()
        try:
            answer = await connection.exchange(request.text)
        except OSError as error:
            samples.wrong(NO_ANSWER, str(error))
            connection = await get_connection(lane, index)
            continue
        took = clock() - start
        if answer.status in request.expected and phase.learn(request, answer):
            samples.latencies[request.label].append(took)
            samples.resources += request.resources
        else:
            samples.wrong(answer.status, f"{request.label}: {read_text(answer.body)}")
        if not connection.usable:
            connection = await get_connection(lane, index)


async def get_connection(lane: Lane, index: int) -> Connection:
    """The lane's connection, opened anew when the server has closed it."""
    if not lane.connections[index].usable:
        lane.connections[index] = await connect(lane.target, TIME_LIMIT)
    return lane.connections[index]


def find_percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of ascending values (share 0.5: the median); 0 of none."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
