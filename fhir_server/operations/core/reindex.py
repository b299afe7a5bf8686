"""`$reindex`: the search index of stored resources made anew while the server goes on (https://hl7.org/fhir/R4/async.html)."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import orjson

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Invalid, Issue, NotFound, build_operation_outcome
from fhir_server.operations.parameters import parse_parameters, parse_positive_integer
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers import reindexing
from fhir_server.workers.lease import LeaseLost
from fhir_server.workers.reindexing import Job

_RETRY_SECONDS = "2"
_LOOK_SECONDS = 10.0


async def reindex(context: Context, request: Request) -> Response:
    """POST starts it: 202, and the URL that tells how far it is. GET there: 202 while it runs, then 200."""
    if request.method == "POST":
        return await _start(context, request)
    await _resume(context)
    job = await reindexing.find_job(context)
    if job is None:
        raise NotFound("No reindex was ever started here. POST to `$reindex` starts one.")
    if job.status == "running":
        return _build_progress(request, job)
    return Response(200, orjson.dumps(_job_to_parameters(job)))


async def supervise(context: Context) -> None:
    """Go on with a job that was running when its process ended, as soon as it is certain that nobody runs it."""
    while (job := await reindexing.find_job(context)) is not None and job.status == "running":
        if await _resume(context):
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def _resume(context: Context) -> bool:
    job = await reindexing.resume(context)
    if job is not None:
        context.background.start(_run(context, job))
    return job is not None


async def _start(context: Context, request: Request) -> Response:
    types, rate = _parse_request(context, request)
    job = await reindexing.begin(context, types, rate)
    context.background.start(_run(context, job))
    return _build_progress(request, job)


async def _run(context: Context, job: Job) -> None:
    with suppress(LeaseLost):
        await reindexing.run(context, job)


def _parse_request(context: Context, request: Request) -> tuple[list[str], int]:
    """The types, all when none is named, and the most resources a second."""
    types = [request.path[0]] if len(request.path) > 1 else []
    rate = 0
    for name, value in parse_parameters(context, request):
        if name == "type" and len(request.path) == 1:
            types += value.split(",")
        elif name == "rate":
            rate = parse_positive_integer(name, value)
        else:
            raise Invalid(f"`$reindex` has no parameter `{name}` here; it takes `type` (at the system) and `rate`.")
    unknown = sorted(set(types) - context.types)
    if unknown:
        raise Invalid(f"`type={unknown[0]}` is no resource type of this server.")
    return types or sorted(context.types), rate


def _build_progress(request: Request, job: Job) -> Response:
    sentence = f"{job.done} of {max(job.done, job.total)} resources are indexed."
    headers = (
        ("Content-Location", f"{request.base}/$reindex"),
        ("X-Progress", sentence),
        ("Retry-After", _RETRY_SECONDS),
    )
    body = build_operation_outcome([Issue("information", "informational", sentence)])
    return Response(202, orjson.dumps(body), headers=headers)


def _job_to_parameters(job: Job) -> dict[str, object]:
    parts: list[dict[str, object]] = [
        {"name": "status", "valueCode": job.status},
        {"name": "indexed", "valueInteger": job.done},
        {"name": "started", "valueInstant": format_instant(job.started)},
        {"name": "ended", "valueInstant": format_instant(job.beat)},
    ]
    if job.message:
        parts.append({"name": "message", "valueString": job.message})
    return {"resourceType": "Parameters", "parameter": parts}
