"""`/livez` tells that the process runs, `/readyz` whether its store can answer."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from fhir_server.store.protocol import StoreUnavailable
from fhir_server.workers.worker import Standing

health = APIRouter()


@health.get("/livez")
async def report_liveness() -> JSONResponse:
    """200 while the process runs."""
    return JSONResponse({"status": "live"})


@health.get("/readyz")
async def report_readiness(request: Request) -> JSONResponse:
    """200 while the store can answer, with why it takes no writes, if so, and how far the workers are; else 503."""
    context = getattr(request.app.state, "context", None)
    if context is None:
        return JSONResponse({"status": "starting"}, 503)
    try:
        await context.unrestricted.check_ready()
    except StoreUnavailable as error:
        return JSONResponse({"status": "unavailable", "reason": str(error)}, 503)
    try:
        await context.unrestricted.check_writable()
        writes = "possible"
    except StoreUnavailable as error:
        writes = str(error)
    standings = getattr(request.app.state, "standings", {})
    workers = {name: _tell(each) for name, each in standings.items()}
    return JSONResponse({"status": "ready", "writes": writes, "workers": workers})


def _tell(standing: Standing) -> dict[str, object]:
    """How far a worker is, as this process knows it without asking the store."""
    return {"holder": standing.holder, "here": standing.here, **standing.report}
