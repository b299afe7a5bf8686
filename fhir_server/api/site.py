"""What FastAPI serves around the FHIR API: `/`, health, `/docs` and `/openapi.json`; nothing of FHIR passes here."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from fhir_server.api.endpoints import Offer, list_endpoints
from fhir_server.api.health import health
from fhir_server.api.negotiation import accepts, takes_gzip
from fhir_server.requests.context import Context
from fhir_server.store.protocol import StoreUnavailable

PATHS = frozenset({"livez", "readyz", "docs", "openapi.json"})
"""The first parts of the paths that are answered here even when the FHIR API is at the root."""


def is_of_site(path: str) -> bool:
    """Whether a path is one of these, and not a path of a FHIR API at the root."""
    return path[1:].partition("/")[0] in PATHS


class OpenApi:
    """The OpenAPI document of the search parameters in force: made when first asked for and after they changed."""

    def __init__(self) -> None:
        self._of: object = None
        self._packed = b""
        self._turn = asyncio.Lock()

    async def packed(self, context: Context) -> bytes:
        """The document, gzipped: 0.2 MB are kept instead of 5."""
        await context.parameters.reload()
        async with self._turn:
            if context.parameters.current is not self._of:
                of = context.parameters.current
                self._packed = await asyncio.to_thread(_packed_document, context)
                self._of = of
        return self._packed


def _packed_document(context: Context) -> bytes:
    # loaded here: a server whose document nobody asks for does not pay for it
    from fhir_server.api.openapi import describe

    settings = context.settings
    described = describe(_offer(context), _statement(context), settings.base_url or f".{settings.path}".rstrip("/"))
    return gzip.compress(orjson.dumps(described), 6)


def _statement(context: Context) -> dict[str, Any]:
    """The CapabilityStatement; its base URL plays no part here."""
    statement: dict[str, Any] = orjson.loads(context.capability(context.settings.base_url or context.settings.path))
    return statement


def _offer(context: Context) -> Offer:
    return Offer(context.settings, context.definitions, context.types)


def wants_page(accept: str) -> bool:
    """Whether an `Accept` header is a browser's: it names HTML, and no JSON."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return "text/html" in kinds and accepts(",".join(kind for kind in kinds if "*" not in kind)) is None


pages = APIRouter()


@pages.get("/")
async def about(request: Request) -> Response:
    """What is where; for people, a page."""
    path: str = request.app.state.path
    if wants_page(request.headers.get("accept", "")):
        from fhir_server.api.pages import home_page

        return _html(home_page(request.app.version, _below_root(path)))
    paths = {"fhir": path, "metadata": f"{path.rstrip('/')}/metadata", "docs": "/docs", "openapi": "/openapi.json"}
    return JSONResponse({**paths, "live": "/livez", "ready": "/readyz"}, headers={"vary": "accept"})


@pages.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """The OpenAPI document."""
    packed = await request.app.state.document.packed(request.app.state.context)
    headers = {"vary": "accept-encoding", "cache-control": "no-cache"}
    if takes_gzip(request.headers.get("accept-encoding", "")):
        return Response(packed, media_type="application/json", headers={**headers, "content-encoding": "gzip"})
    return Response(gzip.decompress(packed), media_type="application/json", headers=headers)


@pages.get("/docs")
async def index(request: Request) -> HTMLResponse:
    """The documentation of the system."""
    from fhir_server.api.pages import index_page

    context: Context = request.app.state.context
    await context.parameters.reload()
    rest = _statement(context)["rest"][0]
    return _html(index_page(rest, list_endpoints(_offer(context)), _below_root(context.settings.path)))


@pages.get("/docs/{type}")
async def of_type(request: Request, type: str) -> HTMLResponse:
    """The documentation of one resource type."""
    from fhir_server.api.pages import missing_page, type_page

    context: Context = request.app.state.context
    await context.parameters.reload()
    for resource in _statement(context)["rest"][0]["resource"]:
        if resource["type"] == type:
            endpoints = list_endpoints(_offer(context), type)
            return _html(type_page(resource, endpoints, _below_root(context.settings.path)))
    return _html(missing_page(type), 404)


async def unavailable(request: Request, error: Exception) -> Response:
    """503: the store, which knows the search parameters, cannot answer."""
    return JSONResponse({"status": "unavailable", "reason": str(error)}, 503)


def site(version: str, path: str) -> FastAPI:
    """The application; `path` is that of the FHIR API. It expects the server's context in `app.state.context`."""
    app = FastAPI(title="fhir-server", version=version, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.path, app.state.document = path, OpenApi()
    app.include_router(health)
    app.include_router(pages)
    app.add_exception_handler(StoreUnavailable, unavailable)
    return app


def _below_root(path: str) -> str:
    """`/fhir` → `fhir/`: what a relative link begins with."""
    return f"{path[1:]}/" if len(path) > 1 else ""


def _html(text: str, status: int = 200) -> HTMLResponse:
    from fhir_server.api.pages import POLICY

    headers = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "vary": "accept"}
    return HTMLResponse(text, status, headers)
