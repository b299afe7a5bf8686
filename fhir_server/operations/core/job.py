"""`$job`: how far the long work is that an operation has started, its result, and its end (https://hl7.org/fhir/R4/async.html)."""

from __future__ import annotations

import orjson

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Deleted, Invalid, Issue, NotFound, build_operation_outcome
from fhir_server.operations.parameters import parse_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.job_results import DAYS, read_result
from fhir_server.workers.jobs import Job, cancel_job, find_job, list_jobs
from fhir_server.workers.table import JOBS

_RETRY_SECONDS = "2"


async def job(context: Context, request: Request) -> Response:
    """GET tells how far the job `id` is, or gives its result; without `id` it lists jobs. DELETE cancels it."""
    id = _parse_id(context, request)
    if not id and request.method != "DELETE":
        return await _list(context, request)
    found = await find_job(context, id)
    if found is None or not found.is_of(request.principal) or found.status == "cancelled":
        raise NotFound(f"There is no job `{id}`: it was cancelled, or it ended long ago, or it never was.")
    if request.method == "DELETE":
        await cancel_job(context, id)
        return _inform(202, f"The job `{id}` is cancelled.")
    if found.status == "running":
        return build_progress(found)
    if not found.parts:
        return Response(found.http, found.result.encode())
    body = await read_result(context, id, found.parts)
    if body is None:
        raise Deleted(f"The result of the job `{id}` is gone: it was kept for {DAYS} days. Start it again.")
    return Response(found.http, body, content_type=found.content_type or None)


def build_progress(found: Job) -> Response:
    """The 202 of a job that runs; an operation that has started one answers with it."""
    location = ("Content-Location", f"{found.base}/$job?id={found.id}")
    return _inform(202, _describe_progress(found), location, ("Retry-After", _RETRY_SECONDS))


def _describe_progress(found: Job) -> str:
    return f"{found.done} of {max(found.done, found.total)} are done."


def _inform(status: int, sentence: str, *headers: tuple[str, str]) -> Response:
    body = build_operation_outcome([Issue("information", "informational", sentence)])
    return Response(status, orjson.dumps(body), headers=(*headers, ("X-Progress", sentence)))


def _parse_id(context: Context, request: Request) -> str:
    id = ""
    for name, value in parse_parameters(context, request):
        if name != "id":
            raise Invalid(f"`$job` has no parameter `{name}`; it takes `id`.")
        id = value
    if not id and request.method == "DELETE":
        raise Invalid("`DELETE $job` needs the parameter `id`, which `Content-Location` had when the job was started.")
    return id


async def _list(context: Context, request: Request) -> Response:
    """The jobs of this principal, the latest first."""
    jobs = [job for kind in JOBS for job in await list_jobs(context, kind) if job.is_of(request.principal)]
    parameters = [
        {
            "name": "job",
            "part": [
                {"name": "id", "valueString": job.id},
                {"name": "status", "valueCode": job.status},
                {"name": "started", "valueInstant": format_instant(job.started)},
                {"name": "progress", "valueString": _describe_progress(job)},
            ],
        }
        for job in sorted(jobs, key=lambda job: job.started, reverse=True)
    ]
    tree: dict[str, object] = {"resourceType": "Parameters"}
    return Response(200, orjson.dumps({**tree, "parameter": parameters} if parameters else tree))
