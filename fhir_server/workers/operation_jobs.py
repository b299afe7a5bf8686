"""Operations that take long, as jobs: `Prefer: respond-async` (https://hl7.org/fhir/R4/async.html).

An operation whose row says `as_job` only reads, so that a job whose process died begins it again.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import msgspec

from fhir_server.requests.context import Context
from fhir_server.requests.request import Request
from fhir_server.security.policy import Grant, Principal
from fhir_server.workers.job_results import keep_result
from fhir_server.workers.jobs import Job, start_job
from fhir_server.workers.worker import Turn

KIND = "operation"
LONGEST_BODY = 64 * 1024


def wants_job(request: Request) -> bool:
    """Whether a request is carried on by a worker: where it is preferred."""
    return (
        request.method in ("GET", "POST")
        and not (request.job or request.where)
        and request.get_preference("respond-async") is not None
        and len(request.body) <= LONGEST_BODY
    )


async def start_operation(context: Context, request: Request) -> Job:
    """The job that carries out a request. Raises Conflict where too many run."""
    wanted: dict[str, Any] = {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "media_type": request.media_type,
        "body": base64.b64encode(request.body).decode(),
        "content_type": request.headers.get("content-type", ""),
        "grant": msgspec.to_builtins(request.principal.grant),
    }
    return await start_job(context, KIND, wanted, request.caller, total=1)


async def run_operation(turn: Turn, job: Job) -> Job:
    """The job with the answer of its operation: of what its caller's token allowed, without the bounds of a request."""
    wanted = job.input
    request = Request(
        method=wanted["method"],
        path=tuple(wanted["path"]),
        query=tuple((name, value) for name, value in wanted["query"]),
        headers={"content-type": wanted["content_type"]} if wanted["content_type"] else {},
        body=base64.b64decode(wanted["body"]),
        base=job.base,
        principal=Principal(job.principal, grant=msgspec.convert(wanted["grant"], Grant | None)),
        id=job.id,
        media_type=wanted["media_type"],
        job=True,
    )
    response = await turn.context.dispatch(turn.context, request)
    parts = await keep_result(turn.context, job.id, response.body)
    kind = response.content_type or ""
    return replace(job, status="complete", done=1, http=response.status, parts=parts, content_type=kind)
