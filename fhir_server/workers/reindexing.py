"""A reindex as a job that the store keeps: online, one batch at a time, resumed by any process when its own has died.

Batches go type by type in an order that stands still, and the job says how far they came. When the search parameters
in force change meanwhile, it begins again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import orjson

from fhir_server.fhir.outcome import Conflict
from fhir_server.requests.context import Context
from fhir_server.requests.search_parameters import find_container_types
from fhir_server.search.entries import Entries
from fhir_server.search.query import Query, Scope
from fhir_server.store.protocol import Progress, RegistryChanged, StoreError
from fhir_server.workers.lease import HEARTBEAT, SILENCE, LeaseLost

JOB = "reindex"
"""The key under which the store keeps the job, as JSON."""

LEASE = SILENCE
"""µs without a sign of life after which a running job is taken for left, and may be resumed."""

Status = Literal["running", "complete", "failed"]


@dataclass(frozen=True, slots=True)
class Job:
    """One reindex. `filled`: what has resources of `types` and of what contains them; None before the first batch.

    `at`: the position in `filled`; `after`: where the next batch of that type begins; `number`: the registry that the
    entries are made by. `rate`: resources a second at most, 0 for as many as it takes to leave the store half the time.
    Times are µs.
    """

    id: str
    types: tuple[str, ...]
    started: int
    beat: int
    rate: int = 0
    number: int = -1
    filled: tuple[str, ...] | None = None
    at: int = 0
    after: str | None = None
    done: int = 0
    total: int = 0
    status: Status = "running"
    message: str = ""


async def find_job(context: Context) -> Job | None:
    """The last job, running or ended."""
    text = await context.unrestricted.get_value(JOB)
    return _decode(text) if text else None


def _decode(text: bytes) -> Job:
    members = orjson.loads(text)
    members.pop("base", None)  # in jobs of an earlier version
    filled = members.get("filled")
    return Job(**{**members, "types": tuple(members["types"]), "filled": None if filled is None else tuple(filled)})


def is_abandoned(context: Context, job: Job) -> bool:
    """Whether a running job has lost its process."""
    return job.status == "running" and context.clock() - job.beat > LEASE


async def begin(context: Context, types: Sequence[str], rate: int = 0) -> Job:
    """A new job. Raises Conflict while another one runs, and when no base URL of the store is known."""
    await context.bases.remember(context.settings.base_url)
    context.bases.require_one()
    before = await context.unrestricted.get_value(JOB)
    running = _decode(before) if before else None
    if running is not None and running.status == "running" and not is_abandoned(context, running):
        raise Conflict(
            f"A reindex is running: {running.done} of {running.total} resources are done. `GET $reindex` tells when it "
            "is complete; start another one then."
        )
    now = context.clock()
    job = Job(context.new_id(), tuple(dict.fromkeys(types)), now, now, rate)
    if not await context.unrestricted.put_value_if(JOB, orjson.dumps(asdict(job)), before):
        raise Conflict("Another reindex was started in the same moment. `GET $reindex` tells how far it is.")
    return job


async def resume(context: Context) -> Job | None:
    """An abandoned job, taken over by this process; None when there is none."""
    job = await find_job(context)
    if job is None or not is_abandoned(context, job):
        return None
    try:
        return await _save(context, job, replace(job, beat=context.clock()))
    except LeaseLost:
        return None


async def run(context: Context, job: Job, progress: Progress = lambda done, total: None, rests: bool = True) -> Job:
    """Carry a job to its end; what stops it is its message. Raises LeaseLost when another process has taken it."""
    try:
        while job.status == "running":
            started = time.monotonic()
            indexed = job.done
            job = await _save(context, job, await _step(context, job))
            progress(job.done, max(job.done, job.total))
            job = await _pause(
                context, job, _compute_pause(job, job.done - indexed, time.monotonic() - started) if rests else 0
            )
    except (StoreError, ValueError) as error:
        failed = replace(job, status="failed", message=str(error), beat=context.clock())
        return await _save(context, job, failed)
    return job


def _compute_pause(job: Job, indexed: int, took: float) -> float:
    return max(0.0, indexed / job.rate - took) if job.rate else took


async def _pause(context: Context, job: Job, seconds: float) -> Job:
    """The job after a pause, with heartbeats, so that a slow job is not taken for an abandoned one."""
    while seconds > HEARTBEAT and job.status == "running":
        await asyncio.sleep(HEARTBEAT)
        seconds -= HEARTBEAT
        job = await _save(context, job, replace(job, beat=context.clock()))
    await asyncio.sleep(seconds)
    return job


async def _step(context: Context, job: Job) -> Job:
    """The job after one more batch."""
    in_force = context.parameters.current
    if (
        job.filled is None
        or job.number != in_force.number
        or job.number != await context.unrestricted.registry_version()
    ):
        return await _restart(context, job)
    if job.at == len(job.filled):
        await context.parameters.mark_indexed(job.types, in_force)
        return replace(job, status="complete", beat=context.clock())

    def extract(type: str, raw: bytes) -> Entries:
        return in_force.index.make_entries(type, orjson.loads(raw))

    type = job.filled[job.at]
    try:
        batch = await context.unrestricted.reindex(type, extract, job.number, job.after)
    except RegistryChanged:
        return await _restart(context, job)
    at = job.at + (batch.next is None)
    return replace(job, at=at, after=batch.next, done=job.done + batch.count, beat=context.clock())


async def _restart(context: Context, job: Job) -> Job:
    """The job from its start: later writes use the current parameters, so what is stored now must be indexed."""
    await context.parameters.reload()
    await context.unrestricted.wait_for_open_transactions()
    # What they contain is indexed with the containers.
    others = await find_container_types(context.unrestricted, sorted(context.types - set(job.types)), job.types)
    counts = {type: await context.unrestricted.count(Query((Scope(type),))) for type in (*job.types, *others)}
    restarted = replace(
        job, filled=tuple([type for type, count in counts.items() if count]), total=sum(counts.values())
    )
    number = context.parameters.current.number
    return replace(restarted, number=number, at=0, after=None, done=0, beat=context.clock())


async def _save(context: Context, before: Job, after: Job) -> Job:
    """Store the job. Raises LeaseLost when another process has changed it."""
    if not await context.unrestricted.put_value_if(JOB, orjson.dumps(asdict(after)), orjson.dumps(asdict(before))):
        raise LeaseLost
    return after
