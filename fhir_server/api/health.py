"""`/livez` tells that the process runs, `/readyz` whether its store can answer."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from fhir_server.store.protocol import StoreUnavailable

health = APIRouter()


@health.get("/livez")
async def report_liveness() -> JSONResponse:
    """200 while the process runs."""
    return JSONResponse({"status": "live"})


@health.get("/readyz")
async def report_readiness(request: Request) -> JSONResponse:
    """200 while the store can answer; 503 before and when it cannot."""
    context = getattr(request.app.state, "context", None)
    if context is None:
        return JSONResponse({"status": "starting"}, 503)
    try:
        await context.unrestricted.check_ready()
    except StoreUnavailable as error:
        return JSONResponse({"status": "unavailable", "reason": str(error)}, 503)
    return JSONResponse({"status": "ready"})
