"""A small FHIR server for the tests of the client commands: it keeps resources in a dict and insists on references."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

JSON = dict[str, Any]


class Refused(Exception):
    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.outcome = {
            "resourceType": "OperationOutcome",
            "issue": [{"severity": "error", "code": code, "diagnostics": text}],
        }


@dataclass
class FakeFhir:
    """`resources`: `Type/id` → (version, resource). `posted`: bundles as received. `broken`: a status for all.

    `parameters`: the search parameters of all types that its CapabilityStatement lists.
    """

    resources: dict[str, tuple[int, JSON]] = field(default_factory=dict)
    posted: list[bytes] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    broken: int | None = None
    parameters: tuple[str, ...] = ()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        routes = [Route("/{rest:path}", self.answer, methods=["GET", "POST", "PUT", "DELETE", "HEAD"])]
        await Starlette(routes=routes)(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        path = request.url.path.removeprefix("/fhir").strip("/")
        self.requests.append((request.method, f"{path}?{request.url.query}" if request.url.query else path))
        body = await request.body()
        if self.broken is not None and path != "metadata":
            return Response("it broke", self.broken)
        try:
            if request.method == "POST" and not path:
                self.posted.append(body)
                return self._json(200, self._bundle(json.loads(body)))
            status, resource, headers = self._one(request.method, path, body, dict(request.query_params))
        except Refused as refused:
            return self._json(refused.status, refused.outcome)
        return Response(b"" if status == 204 else json.dumps(resource), status, headers, "application/fhir+json")

    def _json(self, status: int, tree: JSON) -> Response:
        return Response(json.dumps(tree), status, media_type="application/fhir+json")

    def _bundle(self, bundle: JSON) -> JSON:
        atomic, before = bundle["type"] == "transaction", dict(self.resources)
        ids = {}
        for entry in bundle["entry"]:
            type, _, id = entry["request"]["url"].partition("/")
            ids[entry.get("fullUrl", f"{type}/{id}")] = f"{type}/{id or uuid.uuid4()}"
        try:
            done = [self._entry(entry, ids, atomic) for entry in bundle["entry"]]
            for index, entry in enumerate(bundle["entry"] if atomic else ()):
                self._check(entry.get("resource"), f"Bundle.entry[{index}]")
        except Refused:
            self.resources = before
            raise
        return {"resourceType": "Bundle", "type": bundle["type"] + "-response", "entry": done}

    def _entry(self, entry: JSON, ids: dict[str, str], atomic: bool) -> JSON:
        request = entry["request"]
        try:
            text = json.dumps(entry.get("resource"))
            if atomic:
                for full_url, reference in ids.items():
                    text = text.replace(f'"reference": "{full_url}"', f'"reference": "{reference}"')
            if entry.get("resource"):
                entry["resource"] = json.loads(text)
            if not atomic:
                self._check(entry.get("resource"), "Bundle.entry")
            if request.get("ifNoneExist"):
                found = self._identified(request["url"], request["ifNoneExist"])
                if found:
                    return {"response": {"status": "200", "etag": 'W/"1"', "location": found}}
            url = ids[entry["fullUrl"]] if request["method"] == "POST" and "fullUrl" in entry else request["url"]
            method = "PUT" if "/" in url and request["method"] == "POST" else request["method"]
            status, _, headers = self._one(method, url, text.encode(), {})
        except Refused as refused:
            if atomic:
                raise
            return {"response": {"status": str(refused.status), "outcome": refused.outcome}}
        return {"response": {"status": str(status), **{key.lower(): value for key, value in headers.items()}}}

    def _check(self, resource: JSON | None, where: str) -> None:
        for found in _references(resource):
            if found.startswith("urn:") or found not in self.resources:
                raise Refused(422, "business-rule", f"{where}: the reference `{found}` has no target.")

    def _identified(self, type: str, criteria: str) -> str | None:
        value = criteria.partition("=")[2].rpartition("|")[2]
        for key, (_, resource) in self.resources.items():
            if key.startswith(f"{type}/") and value in [one.get("value") for one in resource.get("identifier", ())]:
                return key
        return None

    def _one(self, method: str, path: str, body: bytes, query: dict[str, str]) -> tuple[int, JSON, dict[str, str]]:
        if path == "metadata":
            listed = [{"name": name} for name in self.parameters]
            return 200, {"resourceType": "CapabilityStatement", "rest": [{"searchParam": listed}]}, {}
        if method == "GET" and "/" not in path:
            return 200, self._search(path, query), {}
        if method == "POST":
            path = f"{path}/{uuid.uuid4()}"
        version, old = self.resources.get(path, (0, None))
        if method in ("POST", "PUT"):
            new = json.loads(body) | {"id": path.partition("/")[2]}
            if new.get("active") not in (None, True, False):
                raise Refused(400, "invalid", f"`{path}`: `active` is not a boolean.")
            if new != old:
                self.resources[path] = (version + 1, new)
            headers = {"ETag": f'W/"{self.resources[path][0]}"', "Location": f"http://x/fhir/{path}/_history/1"}
            return 200 if version else 201, new, headers
        if old is None:
            raise Refused(404, "not-found", f"`{path}` is not known.")
        if method == "DELETE":
            del self.resources[path]
            return 204, {}, {}
        return 200, old, {"ETag": f'W/"{version}"'}

    def _search(self, type: str, query: dict[str, str]) -> JSON:
        found = [resource for key, (_, resource) in self.resources.items() if key.startswith(f"{type}/")]
        page = [] if query.get("_summary") == "count" else found[: int(query.get("_count", 20))]
        entries = [{"resource": resource, "search": {"mode": "match"}} for resource in page]
        return {"resourceType": "Bundle", "type": "searchset", "total": len(found), "entry": entries}


def _references(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == "reference" and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _references(value)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The FHIR base URL of `app`, served on a free loopback port until the block ends."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/fhir"
    server.should_exit = True
    thread.join(5)
