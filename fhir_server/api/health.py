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
    """200 while the store can answer, with how far the workers are; 503 before and when it cannot."""
    context = getattr(request.app.state, "context", None)
    if context is None:
        return JSONResponse({"status": "starting"}, 503)
    try:
        await context.unrestricted.check_ready()
    except StoreUnavailable as error:
        return JSONResponse({"status": "unavailable", "reason": str(error)}, 503)
    standings = getattr(request.app.state, "standings", {})
    return JSONResponse({"status": "ready", "workers": {name: _tell(each) for name, each in standings.items()}})


def _tell(standing: Standing) -> dict[str, object]:
    """How far a worker is, as this process knows it without asking the store."""
    return {"holder": standing.holder, "here": standing.here, **standing.report}
