"""The composition root: builds store, search, validation, policy and API, and connects them."""

from __future__ import annotations

import functools
import gc
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import orjson
from fastapi import FastAPI

from fhir_server import __version__
from fhir_server.access_control import build_authentication, build_scope_policy, build_smart_source, open_audit
from fhir_server.api.application import Application, build_application
from fhir_server.api.authorization import METADATA_PATH, name_metadata_path
from fhir_server.api.cors import add_cors
from fhir_server.api.guard import guard
from fhir_server.api.log import Log, make_log
from fhir_server.api.request import Receive, Scope
from fhir_server.api.response import Send
from fhir_server.api.routes import dispatch
from fhir_server.api.site import build_site, is_of_site
from fhir_server.fhir import definitions as fhir_definitions
from fhir_server.interactions.capabilities import Facts, build_statement
from fhir_server.interactions.table import INTERACTIONS
from fhir_server.operations import OPERATIONS
from fhir_server.operations.core.reindex import supervise
from fhir_server.operations.rules import list_rules
from fhir_server.partners import read_partners
from fhir_server.requests.background import Background
from fhir_server.requests.bases import KnownBases
from fhir_server.requests.context import Context
from fhir_server.requests.ids import make_id_source, make_request_ids
from fhir_server.requests.search_parameters import SearchParameters, Snapshot
from fhir_server.search.index import Index
from fhir_server.search.parameters import Criteria
from fhir_server.search.registry import Registry, build
from fhir_server.security.authentication import Authenticate, accept_anybody
from fhir_server.security.policy import AllowAll, Policy
from fhir_server.security.request_rate import RequestRate
from fhir_server.security.roles import read_roles
from fhir_server.settings import Settings, read_settings
from fhir_server.store import memory, sqlite
from fhir_server.store.protocol import BUDGET, Budget, Clock, Opener, Store, StoreError
from fhir_server.validation.structure import StructureValidator
from fhir_server.workers.hl7v2_sending import begin_sends
from fhir_server.workers.running import Team, run_workers, select_workers
from fhir_server.workers.table import WORKERS
from fhir_server.writes.conformance_resources import store_conformance_resources
from fhir_server.writes.rules import Rules


async def _open_mongo(uri: str, clock: Clock, budget: Budget = BUDGET, create: bool = True) -> Store:
    # Imported here, because the driver costs a start 0.2 s and 15 MB.
    from fhir_server.store import mongo

    return await mongo.open_store(uri, clock, budget)


async def _open_memory(uri: str, clock: Clock, budget: Budget = BUDGET, create: bool = True) -> Store:
    # For tests and trials: every search is evaluated on every resource, without a budget.
    return await memory.open_store(uri, clock)


STORES: dict[str, Opener] = {
    "memory": _open_memory,
    "sqlite": sqlite.open_store,
    "mongodb": _open_mongo,
    "mongodb+srv": _open_mongo,
}

ALLOW_ALL = AllowAll()

GC_THRESHOLD = 20_000

_NOT_SERVED = frozenset({"Parameters"})


def hide_secrets(uri: str) -> str:
    """A store URI as it may be shown: scheme, hosts and database. A user and options may hold passwords."""
    scheme, separator, rest = uri.partition("://")
    if scheme == "sqlite":
        return uri
    place, _, options = rest.partition("?")
    # Where a user ends cannot be told when an `@` comes later than it may.
    return f"{scheme}{separator}{'…' if '@' in options else place.rpartition('@')[2]}"


class UnknownStore(ValueError):
    """The store URI names no store of this server."""


def read_clock() -> int:
    """The time, µs since 1970 UTC."""
    return time.time_ns() // 1000


def make_unknown_store_error(uri: str) -> UnknownStore:
    """The error for a URI whose scheme no store has."""
    known = ", ".join(f"`{scheme}://…`" for scheme in STORES)
    return UnknownStore(f"`{hide_secrets(uri)}` names no store; stores are {known}.")


async def open_store(uri: str, clock: Clock = read_clock, budget: Budget = BUDGET, create: bool = False) -> Store:
    """Open the store of a URI; `create`: a missing file is made. Raises UnknownStore, or StoreError."""
    opener = STORES.get(uri.partition(":")[0])
    if opener is None:
        raise make_unknown_store_error(uri)
    return await opener(uri, clock, budget, create)


def read_served_types(settings: Settings, definitions: fhir_definitions.Definitions) -> tuple[str, ...]:
    """The resource types to serve: all concrete ones but Parameters, or those that the capability file lists."""
    all_types = tuple(type for type in definitions.resource_types if type not in _NOT_SERVED)
    path = _find_capability_file(settings)
    try:
        capability = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"The capability file `{path}` cannot be read: {error.strerror}.") from None
    except orjson.JSONDecodeError as error:
        raise ValueError(f"The capability file `{path}` is not JSON: {error}.") from None
    # With another key, a misspelt file would silently serve every type.
    listed = (
        capability["resourceTypes"] if isinstance(capability, dict) and set(capability) == {"resourceTypes"} else ()
    )
    if listed is None:
        return all_types
    if not listed or not isinstance(listed, list) or not all(isinstance(type, str) for type in listed):
        raise ValueError(
            f"The capability file `{path}` must be an object with `resourceTypes` alone: null for all of R4, or a list "
            'of names such as `{"resourceTypes": ["Patient", "Practitioner"]}`.'
        )
    unknown = sorted(set(listed) - set(all_types))
    if unknown:
        raise ValueError(f"The capability file lists {', '.join(unknown)}, which R4 does not have (or cannot store).")
    return tuple(sorted(set(listed)))


def _find_capability_file(settings: Settings) -> Path:
    return Path(settings.capability) if settings.capability else find_shipped("profiles") / "capability.json"


def find_shipped(folder: str) -> Path:
    """A folder that ships with the server: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / f"_{folder}"
    return inside if inside.exists() else package.parent / folder


def find_partner_folders(settings: Settings) -> list[Path]:
    """Where the files of partners are: with what ships, and in the site's own folder of profiles."""
    folders = [find_shipped("profiles"), *([Path(settings.profiles)] if settings.profiles else [])]
    return [folder / "partners" for folder in folders]


def find_roles(settings: Settings) -> Mapping[str, Sequence[str]]:
    """The roles that ship, and those of the site's own file. Raises ValueError."""
    folders = [find_shipped("profiles"), *([Path(settings.profiles)] if settings.profiles else [])]
    return read_roles(folder / "roles.json" for folder in folders)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The definitions and what is derived from them once, shared by all processes of a server."""

    definitions: fhir_definitions.Definitions
    types: tuple[str, ...]
    registry: Registry
    validator: StructureValidator


def load_knowledge(settings: Settings) -> Knowledge:
    """Read the definitions and compile what needs them; the slow part of a start."""
    definitions = fhir_definitions.load()
    types = read_served_types(settings, definitions)
    validator = StructureValidator(definitions, invariants=settings.invariants == "enforce")
    return Knowledge(definitions, types, build(definitions, types), validator)


@dataclass(frozen=True, slots=True)
class Seams:
    """What a deployment or a test may replace: clock, authentication, policy, business rules, shipped definitions."""

    clock: Clock = read_clock
    authenticate: Authenticate = accept_anybody
    policy: Policy = ALLOW_ALL
    rules: Rules | None = None
    """None: those of the server, as the settings have them."""
    definitions: Path | None = field(default_factory=lambda: find_shipped("profiles"))
    """The folder of the definitions that ship; None for a store that begins empty."""


def build_context(settings: Settings, known: Knowledge, store: Store, page_key: bytes, seams: Seams) -> Context:
    """The context of all interactions."""
    if settings.code_sets and not Path(settings.code_sets).is_dir():
        raise ValueError(f"There is no folder of code sets `{settings.code_sets}`; `fhir-server codes load` makes it.")
    clock = seams.clock
    zone = ZoneInfo(settings.time_zone) if settings.time_zone != "UTC" else UTC
    bases = KnownBases(store)
    index = Index(known.registry, known.definitions, zone, settings.full_text, bases.include)
    parameters = SearchParameters(store, known.definitions, known.registry, index, settings.full_text)

    def make_criteria(base: str) -> Criteria:
        terms = (parameters.current.registry, bases.include(base), clock(), zone)
        return Criteria(*terms, full_text=settings.full_text)

    authenticate, policy = seams.authenticate, seams.policy
    if settings.authentication == "on":
        authenticate = build_authentication(settings, find_roles(settings), store, clock)
        policy = build_scope_policy(settings, known.definitions, known.registry, make_criteria)
    return Context(
        unrestricted=store,
        definitions=known.definitions,
        parameters=parameters,
        bases=bases,
        background=Background(),
        validator=known.validator,
        settings=settings,
        clock=clock,
        new_id=make_id_source(clock),
        authenticate=authenticate,
        policy=policy,
        rules=list_rules(settings) if seams.rules is None else seams.rules,
        audit=None,
        types=frozenset(known.types),
        page_key=page_key,
        criteria=make_criteria,
        dispatch=dispatch,
        capability=_make_capability(settings, known, parameters, clock),
        partners=read_partners(find_partner_folders(settings)),
    )


def _make_capability(
    settings: Settings, known: Knowledge, parameters: SearchParameters, clock: Clock
) -> Callable[[str], bytes]:
    """Base URL → CapabilityStatement, made on first use and again when the search parameters have changed."""
    # once for all base URLs, which clients choose by any IP address: each stands in it where it has a mark
    mark = "base URL of the request"

    @functools.lru_cache(maxsize=2)
    def write_statement(snapshot: Snapshot) -> bytes:
        date = datetime.fromtimestamp(clock() / 1_000_000, UTC).isoformat(timespec="seconds")
        facts = Facts(INTERACTIONS, OPERATIONS, known.definitions, snapshot.registry, settings, __version__, date)
        return orjson.dumps(build_statement(facts, mark))

    return lambda base: write_statement(parameters.current).replace(mark.encode(), orjson.dumps(base)[1:-1])


@dataclass(frozen=True, slots=True)
class Server:
    """A server in this process: the FHIR API as an ASGI application, and its context."""

    api: Application
    context: Context


@asynccontextmanager
async def open_server(
    settings: Settings,
    log: Log | None = None,
    known: Knowledge | None = None,
    seams: Seams | None = None,
    create: bool = False,
) -> AsyncIterator[Server]:
    """The FHIR API on its open store; the store is closed at the end. `create`: a missing file is made."""
    seams = seams or Seams()
    budget = Budget(settings.search_seconds, settings.search_rows)
    store = await open_store(settings.store, seams.clock, budget, create)
    try:
        if settings.full_text:
            await store.check_full_text()
        context = build_context(settings, known or load_knowledge(settings), store, await store.page_key(), seams)
        await context.bases.reload()
        # before anything is stored: what is new for an empty type needs no reindex
        await context.parameters.reload_and_mark_empty_types()
        for folder in (seams.definitions, Path(settings.profiles) if settings.profiles else None):
            if folder is not None:
                await store_conformance_resources(context, folder)
        await context.parameters.reload_and_mark_empty_types()
        await begin_sends(context)
        log = log or make_log(sys.stderr.buffer, settings.log_level)
        async with open_audit(context) as audit:
            smart = build_smart_source(settings, seams.clock)
            rate = RequestRate(settings.request_rate, seams.clock)
            context = replace(context, audit=audit, smart=smart, roles=find_roles(settings), rate=rate)
            api = build_application(context, log, make_request_ids())
            try:
                yield Server(add_cors(api, settings, store, seams.clock), context)
            finally:
                await context.background.close()
                context.long_work.close()
    finally:
        await store.close()


def create_server(known: Knowledge | None = None, check_file: Callable[[], None] = lambda: None) -> Application:
    """The whole server for one process, configured by the environment; the HTTP server calls this.

    `check_file` raises StoreError at the start when the file is not the one that the other workers have open.
    """
    settings = read_settings()
    around = build_site(__version__, settings.path)
    root, below = settings.path, settings.path.rstrip("/") + "/"
    api: list[Application] = []

    metadata = name_metadata_path(root)

    def answer_http(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path: str = scope["path"]
        if path == metadata:
            path = below + "/".join(METADATA_PATH)
            scope = {**scope, "path": path, "raw_path": path.encode()}
        is_fhir = (path.startswith(below) or path == root) and not (root == "/" and is_of_site(path))
        application: Application = api[0] if is_fhir else around  # type: ignore[assignment]
        return application(scope, receive, send)

    guarded = guard(answer_http, settings, make_log(sys.stderr.buffer, settings.log_level), make_request_ids())

    def start() -> AbstractAsyncContextManager[Server]:
        check_file()
        return open_server(settings, known=known)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _run_lifespan(start, around, api, receive, send)
        elif scope["type"] == "http":
            await guarded(scope, receive, send)

    return answer


def _begin_work(context: Context, around: FastAPI) -> None:
    """Start what goes on beside the requests of this process."""
    context.background.start(supervise(context))
    context.background.start(context.bases.follow())
    if context.settings.workers == "on":
        team = Team(context, make_log(sys.stderr.buffer, context.settings.log_level))
        around.state.standings = team.standings
        context.background.start(run_workers(team, select_workers(context.settings, WORKERS.values())))


def spare_collections() -> None:
    """Once all is open: what exists lives as long as the process, and parsed trees, many as come, have no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)


async def _run_lifespan(
    start: Callable[[], AbstractAsyncContextManager[Server]],
    around: FastAPI,
    api: list[Application],
    receive: Receive,
    send: Send,
) -> None:
    """Open the store when the HTTP server starts this process, and close it when it stops it."""
    await receive()
    stage = "startup"
    try:
        async with start() as server:
            api.append(server.api)
            around.state.context = server.context
            spare_collections()
            _begin_work(server.context, around)
            stage = "shutdown"
            await send({"type": "lifespan.startup.complete"})
            await receive()
    except (StoreError, ValueError, OSError) as error:
        await send({"type": f"lifespan.{stage}.failed", "message": str(error)})
        return
    await send({"type": "lifespan.shutdown.complete"})
