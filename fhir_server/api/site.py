"""The FastAPI application around the FHIR API: `/`, health, `/docs` and `/openapi.json`."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from fhir_server.api.endpoints import Offer, list_endpoints
from fhir_server.api.health import health
from fhir_server.api.negotiation import accepts_gzip, find_accepted_type
from fhir_server.requests.context import Context
from fhir_server.store.protocol import StoreUnavailable

PATHS = frozenset({"livez", "readyz", "docs", "openapi.json"})
"""First segments of the paths that are answered here even when the FHIR API is at the root."""


def is_of_site(path: str) -> bool:
    """Whether a path is answered here even when the FHIR API is at the root."""
    return path[1:].partition("/")[0] in PATHS


class OpenApi:
    """The OpenAPI document, made on first use and again when the search parameters have changed."""

    def __init__(self) -> None:
        self._snapshot: object = None
        self._packed = b""
        self._lock = asyncio.Lock()

    async def read_packed(self, context: Context) -> bytes:
        """The document, gzipped: 0.2 MB in memory instead of 5."""
        await context.parameters.reload()
        async with self._lock:
            snapshot = context.parameters.current
            if snapshot is not self._snapshot:
                self._packed = await asyncio.to_thread(_pack_document, context)
                self._snapshot = snapshot
        return self._packed


def _pack_document(context: Context) -> bytes:
    # Imported here, so that a server loads it only when the document is asked for.
    from fhir_server.api.openapi import describe

    settings = context.settings
    document = describe(
        _make_offer(context), _build_statement(context), settings.base_url or f".{settings.path}".rstrip("/")
    )
    return gzip.compress(orjson.dumps(document), 6)


def _build_statement(context: Context) -> dict[str, Any]:
    """The CapabilityStatement; its base URL is not used here."""
    statement: dict[str, Any] = orjson.loads(context.capability(context.settings.base_url or context.settings.path))
    return statement


def _make_offer(context: Context) -> Offer:
    return Offer(context.settings, context.definitions, context.types)


def wants_page(accept: str) -> bool:
    """Whether an `Accept` header is a browser's: it names HTML, and no JSON."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return "text/html" in kinds and find_accepted_type(",".join(kind for kind in kinds if "*" not in kind)) is None


pages = APIRouter()


@pages.get("/")
async def show_home(request: Request) -> Response:
    """Where to find what: JSON, or a page for browsers."""
    path: str = request.app.state.path
    if wants_page(request.headers.get("accept", "")):
        from fhir_server.api.pages import write_home_page

        return _make_page(write_home_page(request.app.version, _path_to_prefix(path)))
    paths = {"fhir": path, "metadata": f"{path.rstrip('/')}/metadata", "docs": "/docs", "openapi": "/openapi.json"}
    return JSONResponse({**paths, "live": "/livez", "ready": "/readyz"}, headers={"vary": "accept"})


@pages.get("/openapi.json")
async def send_document(request: Request) -> Response:
    """The OpenAPI document."""
    packed = await request.app.state.document.read_packed(request.app.state.context)
    headers = {"vary": "accept-encoding", "cache-control": "no-cache"}
    if accepts_gzip(request.headers.get("accept-encoding", "")):
        return Response(packed, media_type="application/json", headers={**headers, "content-encoding": "gzip"})
    return Response(gzip.decompress(packed), media_type="application/json", headers=headers)


@pages.get("/docs")
async def show_index(request: Request) -> HTMLResponse:
    """The documentation of the system."""
    from fhir_server.api.pages import write_index_page

    context: Context = request.app.state.context
    await context.parameters.reload()
    rest = _build_statement(context)["rest"][0]
    return _make_page(
        write_index_page(rest, list_endpoints(_make_offer(context)), _path_to_prefix(context.settings.path))
    )


@pages.get("/docs/{type}")
async def show_type(request: Request, type: str) -> HTMLResponse:
    """The documentation of one resource type."""
    from fhir_server.api.pages import write_missing_page, write_type_page

    context: Context = request.app.state.context
    await context.parameters.reload()
    for resource in _build_statement(context)["rest"][0]["resource"]:
        if resource["type"] == type:
            endpoints = list_endpoints(_make_offer(context), type)
            return _make_page(write_type_page(resource, endpoints, _path_to_prefix(context.settings.path)))
    return _make_page(write_missing_page(type), 404)


async def report_unavailable(request: Request, error: Exception) -> Response:
    """503: the store, which knows the search parameters, cannot answer."""
    return JSONResponse({"status": "unavailable", "reason": str(error)}, 503)


def build_site(version: str, path: str) -> FastAPI:
    """The application; `path` is that of the FHIR API. It expects the server's context in `app.state.context`."""
    app = FastAPI(title="fhir-server", version=version, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.path, app.state.document = path, OpenApi()
    app.include_router(health)
    app.include_router(pages)
    app.add_exception_handler(StoreUnavailable, report_unavailable)
    return app


def _path_to_prefix(path: str) -> str:
    """`/fhir` → `fhir/`: the beginning of a relative link."""
    return f"{path[1:]}/" if len(path) > 1 else ""


def _make_page(text: str, status: int = 200) -> HTMLResponse:
    from fhir_server.api.pages import POLICY

    headers = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "vary": "accept"}
    return HTMLResponse(text, status, headers)
