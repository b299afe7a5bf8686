"""Long work that a request starts and a worker carries on: kept in the store, step by step, resumed after a death.

https://hl7.org/fhir/R4/async.html. Each kind has SLOTS places, `job/<kind>/<slot>`; a new job takes the place
of the one that ended longest ago, so that the history is bounded. The id names the place: finding a job is one read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import orjson

from fhir_server.fhir.outcome import Conflict, FhirError, build_operation_outcome
from fhir_server.requests.context import Context
from fhir_server.requests.describe_error import describe_error
from fhir_server.requests.request import Caller
from fhir_server.requests.store_errors import store_error_to_fhir_error
from fhir_server.security.policy import Principal
from fhir_server.store.protocol import StoreError, StoreUnavailable, WriteConflict
from fhir_server.workers.job_results import forget_result
from fhir_server.workers.lease import LeaseLost
from fhir_server.workers.worker import Step, StepResult, Stopping, Turn

SLOTS = 20
"""Jobs of a kind that the store keeps, those that run among them."""

Status = Literal["running", "complete", "cancelled"]


@dataclass(frozen=True, slots=True)
class Job:
    """One job. `input`: what it was asked for; `position`: where its next step begins, None before the first.

    `done` of `total` tells how far it is. Once complete, `http` and `result` are its answer: the resource's text, an
    OperationOutcome where it failed; or it is kept in `parts` (`job_results.py`), of the media type `content_type` (""
    for FHIR JSON). `reader`: the fingerprint of the token that started it. Times are µs. `steps` makes each saved state
    differ from the one before.
    """

    id: str
    kind: str
    base: str
    principal: str
    input: dict[str, Any]
    started: int
    changed: int
    position: Any = None
    done: int = 0
    total: int = 0
    steps: int = 0
    status: Status = "running"
    http: int = 200
    result: str = ""
    parts: int = 0
    content_type: str = ""
    reader: str = ""

    def is_of(self, principal: Principal) -> bool:
        """Whether a principal has started it, with a token that allows the same."""
        return (self.principal, self.reader) == (principal.name, principal.compute_fingerprint())


JobStep = Callable[[Turn, Job], Awaitable[Job]]
"""The job after one more step, which is safe to repeat and takes seconds at most; `complete_job` ends it."""


def complete_job(job: Job, resource: Mapping[str, Any]) -> Job:
    """The job with its result."""
    return replace(job, status="complete", result=orjson.dumps(resource).decode())


async def start_job(context: Context, kind: str, wanted: dict[str, Any], caller: Caller, total: int = 0) -> Job:
    """A new job, of `total` parts where that is known. Raises Conflict where all places of its kind are running."""
    store = context.unrestricted
    for _ in range(SLOTS):
        texts = {slot: await store.get_value(f"job/{kind}/{slot}") for slot in range(SLOTS)}
        ended = {slot: job for slot, text in texts.items() if (job := _decode(text)) is None or job.status != "running"}
        if not ended:
            raise Conflict(f"{SLOTS} jobs of the kind `{kind}` are running; cancel one, or start this one later.")
        slot = min(ended, key=lambda slot: _ended_at(ended[slot]))
        now = context.clock()
        id = f"{kind}.{slot}.{context.new_id()}"
        who = caller.principal
        job = Job(id, kind, caller.base, who.name, wanted, now, now, total=total, reader=who.compute_fingerprint())
        if await store.put_value_if(_key(id), _encode(job), texts[slot]):
            if (before := ended[slot]) is not None:
                await forget_result(context, before.id, before.parts)
            return job
    raise Conflict(f"Other jobs of the kind `{kind}` were started in the same moment; try again.")


def _ended_at(job: Job | None) -> int:
    return 0 if job is None else job.changed


async def find_job(context: Context, id: str) -> Job | None:
    """The job with this id; None once its place was taken by a later one."""
    job = _decode(await context.unrestricted.get_value(_key(id)))
    return job if job is not None and job.id == id else None


async def list_jobs(context: Context, kind: str) -> list[Job]:
    """The jobs of a kind that the store keeps, in no order."""
    texts = [await context.unrestricted.get_value(f"job/{kind}/{slot}") for slot in range(SLOTS)]
    return [job for job in map(_decode, texts) if job is not None]


async def cancel_job(context: Context, id: str) -> bool:
    """End a job after the step that it is at, and forget its result; False when there is none."""
    while (job := await find_job(context, id)) is not None and job.status != "cancelled":
        if await _save(context, job, replace(job, status="cancelled", result="", parts=0)):
            await forget_result(context, job.id, job.parts)
            return True
    return False


def run_jobs(kinds: Mapping[str, JobStep]) -> Step:
    """The step of the worker of jobs: one step of each job that runs."""

    async def step(turn: Turn) -> StepResult:
        running = [job for kind in kinds for job in await list_jobs(turn.context, kind) if job.status == "running"]
        for job in running:
            await turn.check()
            await _advance(turn, kinds[job.kind], job)
        return StepResult(len(running), f"{len(running)} running", len(running))

    return step


async def _advance(turn: Turn, step: JobStep, job: Job) -> None:
    """One step, saved; what stops the job is its result. Of a job that was cancelled meanwhile nothing is saved."""
    try:
        await _save(turn.context, job, await step(turn, job))
    except (LeaseLost, Stopping, StoreUnavailable, WriteConflict):
        raise
    except FhirError as error:
        await _fail(turn, job, error)
    except StoreError as error:
        await _fail(turn, job, store_error_to_fhir_error(error))
    except Exception as error:
        turn.log("error", "job failed", job=job.id, error=describe_error(error))
        await _fail(turn, job, FhirError(f"The job failed, which is a fault of ours; the log has it under `{job.id}`."))


async def _fail(turn: Turn, job: Job, error: FhirError) -> None:
    failed = complete_job(job, build_operation_outcome(error.issues))
    await _save(turn.context, job, replace(failed, http=error.status))


async def _save(context: Context, before: Job, after: Job) -> bool:
    after = replace(after, steps=before.steps + 1, changed=context.clock())
    return await context.unrestricted.put_value_if(_key(before.id), _encode(after), _encode(before))


def _key(id: str) -> str:
    """`job/<kind>/<slot>`; an id that no job can have leads to a key that no value has."""
    kind, _, rest = id.partition(".")
    return f"job/{kind}/{rest.partition('.')[0]}"


def _encode(job: Job) -> bytes:
    return orjson.dumps(asdict(job))


def _decode(text: bytes | None) -> Job | None:
    return Job(**orjson.loads(text)) if text else None
