"""Finds the interaction or operation of a request, and dispatches it: authorised, answered, audited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fhir_server.fhir.outcome import FhirError, MethodNotAllowed, NotFound, NotSupported, TooCostly
from fhir_server.interactions.table import INTERACTIONS, Handler
from fhir_server.operations import OPERATIONS
from fhir_server.operations.core.job import build_progress
from fhir_server.requests.authorisation import audit, authorise
from fhir_server.requests.context import Context
from fhir_server.requests.request import FHIR_JSON, Request, Response
from fhir_server.workers.operation_jobs import start_operation, wants_job

Shape = tuple[str, ...]

_LITERALS = frozenset({"_history", "_search"})


@dataclass(frozen=True, slots=True)
class Route:
    """The handler of a request and its `code`: that of the interaction, or `$operation`. The rest: see `Operation`."""

    code: str
    handler: Handler
    keyed: bool = False
    gives: tuple[str, ...] = (FHIR_JSON,)
    as_job: bool = False
    most_bytes: int | None = None


def _pattern_to_shape(pattern: str) -> Shape:
    return tuple("*" if part.startswith("{") else part for part in pattern.split("/") if part)


def _build_table() -> Mapping[Shape, Mapping[str, Route]]:
    table: dict[Shape, dict[str, Route]] = {}
    for interaction in INTERACTIONS:
        route = Route(interaction.code, interaction.handler)
        table.setdefault(_pattern_to_shape(interaction.pattern), {}).setdefault(interaction.method, route)
    return table


_ROUTES = _build_table()


def find_route(context: Context, method: str, path: tuple[str, ...]) -> Route:
    """The route of a request. Raises NotFound or MethodNotAllowed with a sentence that names what exists."""
    if path and path[-1].startswith("$"):
        return _find_operation(context, method, path)
    # `metadata` is a keyword only as the whole path; elsewhere it is a possible id.
    shape = path if path == ("metadata",) else tuple([part if part in _LITERALS else "*" for part in path])
    methods = _ROUTES.get(shape)
    # A HEAD is a GET whose body is not sent.
    route = methods.get("GET" if method == "HEAD" else method) if methods is not None else None
    if path and shape[0] == "*":
        check_type(context, path[0])
        if route is not None and len(path) > 2 and shape[2] == "*" and path[2] != "*":
            check_type(context, path[2])
    if route is not None:
        return route
    url = "/".join(path)
    if methods is None:
        raise NotFound(f"There is nothing at `{url}`; see `metadata` for what this server offers.")
    allowed = sorted({*methods, *(("HEAD",) if "GET" in methods else ())})
    raise MethodNotAllowed(
        f"`{url or 'the base URL'}` does not answer {method}; it answers {', '.join(allowed)}.",
        headers=(("Allow", ", ".join(allowed)),),
    )


def check_type(context: Context, type: str) -> None:
    """Raise NotFound for what is no resource type of this server."""
    if type in context.types:
        return
    if type in context.definitions.resource_types:
        raise NotFound(f"The resource type `{type}` is not served here; `metadata` lists the ones that are.")
    raise NotFound(f"`{type}` is no FHIR R4 resource type; names are written as in `Patient` or `MedicationRequest`.")


def _find_operation(context: Context, method: str, path: tuple[str, ...]) -> Route:
    code = path[-1][1:]
    operation = OPERATIONS.get(code)
    if operation is None or (operation.setting and not getattr(context.settings, operation.setting)):
        offered = ", ".join(f"`${name}`" for name, each in OPERATIONS.items() if not each.setting)
        reason = f" (the setting `{operation.setting}` is off)" if operation is not None else ""
        raise NotFound(f"There is no operation `${code}` here{reason}. Operations are {offered}.", code="not-supported")
    if path[0] != path[-1]:
        check_type(context, path[0])
    if _find_level(path) not in operation.list_levels(path[0] if len(path) > 1 else None):
        forms = " or ".join(f"`{form}`" for form in operation.list_forms())
        raise NotFound(f"`${code}` is called on {forms}.", code="not-supported")
    if ("GET" if method == "HEAD" else method) not in operation.methods:
        allowed = ", ".join((*operation.methods, *(("HEAD",) if "GET" in operation.methods else ())))
        raise MethodNotAllowed(
            f"`${code}` does not answer {method}; it answers {allowed}.", headers=(("Allow", allowed),)
        )
    return Route(
        f"${code}", operation.handler, operation.keyed, operation.gives, operation.as_job, operation.most_bytes
    )


def _find_level(path: tuple[str, ...]) -> str:
    """The level of an operation's path: the system, a type, an instance or one of its versions."""
    if len(path) == 5:
        return "version" if path[2] == "_history" else ""
    return {1: "system", 2: "type", 3: "instance"}.get(len(path), "")


async def dispatch(context: Context, request: Request) -> Response:
    """Answer one request, or one entry of a batch."""
    route = find_route(context, request.method, request.path)
    status = 500
    try:
        if not route.keyed:
            authorise(context, request, route.code)
        if route.code.startswith("$") and context.policy.restricts(request.principal):
            request = request._replace(principal=replace(request.principal, operation=route.code[1:]))
        if request.where and FHIR_JSON not in route.gives:
            text = f"`{route.code}` answers `{route.gives[0]}`, which no Bundle entry can hold; send it by itself."
            raise NotSupported(text)
        if route.most_bytes is not None and len(request.body) > route.most_bytes:
            raise TooCostly(
                f"The body of `{route.code}` has {len(request.body):,} bytes, more than the {route.most_bytes:,} that "
                "it takes; send less at once."
            )
        if route.as_job and wants_job(request):
            response = build_progress(await start_operation(context, request))
        else:
            response = await route.handler(context, request)
        status = response.status
        return response
    except FhirError as error:
        status = error.status
        raise
    finally:
        audit(context, request, route.code, status)
