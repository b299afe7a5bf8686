"""`/livez` and `/readyz`, and the page that tells where the API is; the part that FastAPI serves."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fhir_server.store.protocol import Store, StoreUnavailable

HEALTH_PATHS = frozenset({"/livez", "/readyz"})


def health_application(version: str, path: str) -> FastAPI:
    """The application around the FHIR API; it expects the open store in `app.state.store`."""
    app = FastAPI(title="fhir-server", version=version, docs_url=None, redoc_url=None, openapi_url=None)

    async def live(request: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def ready(request: Request) -> Response:
        store: Store | None = getattr(request.app.state, "store", None)
        if store is None:
            return JSONResponse({"status": "starting"}, 503)
        try:
            await store.ready()
        except StoreUnavailable as error:
            return JSONResponse({"status": "unavailable", "reason": str(error)}, 503)
        return JSONResponse({"status": "ready"})

    async def about(request: Request) -> Response:
        return JSONResponse({"fhir": path, "metadata": f"{path}/metadata", "live": "/livez", "ready": "/readyz"})

    app.add_route("/", about, methods=["GET"])
    app.add_route("/livez", live, methods=["GET"])
    app.add_route("/readyz", ready, methods=["GET"])
    return app
