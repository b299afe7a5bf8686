"""The composition root: the one place that builds store, search, validation, policy and API, and wires them."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import orjson
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from fhir_server import __version__
from fhir_server.api.application import Application, fhir_application
from fhir_server.api.log import Log, json_log
from fhir_server.api.request import Receive, Scope
from fhir_server.api.response import Send
from fhir_server.api.routes import dispatch
from fhir_server.api.site import is_of_site, site
from fhir_server.fhir import definitions as fhir_definitions
from fhir_server.fhir.definitions import Definitions
from fhir_server.interactions.capabilities import Facts, build_statement
from fhir_server.interactions.table import INTERACTIONS
from fhir_server.operations import OPERATIONS
from fhir_server.operations.core.reindex import supervise
from fhir_server.operations.scheduling.rule import BOOKING_RULES
from fhir_server.partners import read_partners
from fhir_server.requests.background import Background
from fhir_server.requests.context import Context
from fhir_server.requests.search_parameters import SearchParameters, Snapshot
from fhir_server.search.index import Index
from fhir_server.search.parameters import Criteria
from fhir_server.search.registry import Registry, build
from fhir_server.security.audit import no_audit
from fhir_server.security.authentication import accept_anybody
from fhir_server.security.policy import AllowAll, Policy
from fhir_server.settings import Settings
from fhir_server.store import memory, sqlite
from fhir_server.store.protocol import BUDGET, Budget, Clock, Opener, Store, StoreError
from fhir_server.validation.structure import StructureValidator
from fhir_server.workers.running import Team, run_workers, select_workers
from fhir_server.workers.table import WORKERS
from fhir_server.writes.conformance_resources import store_conformance_resources
from fhir_server.writes.rules import Rules


async def _open_mongo(uri: str, clock: Clock, budget: Budget = BUDGET) -> Store:
    # the driver is loaded only where it is used: it costs a start 0.2 s and 15 MB
    from fhir_server.store import mongo

    return await mongo.open_store(uri, clock, budget)


async def _open_memory(uri: str, clock: Clock, budget: Budget = BUDGET) -> Store:
    # for tests and trials: it evaluates every search on every resource, and nothing stops it
    return await memory.open_store(uri, clock)


STORES: dict[str, Opener] = {
    "memory": _open_memory,
    "sqlite": sqlite.open_store,
    "mongodb": _open_mongo,
    "mongodb+srv": _open_mongo,
}

ALLOW_ALL = AllowAll()

RULES: Rules = {**BOOKING_RULES}
"""Resource type → its business rule."""

GC_THRESHOLD = 20_000

_NOT_SERVED = frozenset({"Parameters"})


def without_password(uri: str) -> str:
    """A store URI fit to be shown: what stands before `@` may hold a password."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


class UnknownStore(ValueError):
    """The store URI names no store of this server."""


def now() -> int:
    """The time, µs since 1970 UTC."""
    return time.time_ns() // 1000


def id_source(clock: Clock) -> Callable[[], str]:
    """Fresh resource ids: UUIDs of version 7 (RFC 9562), which begin with the time.

    Ids in the order of their making keep neighbours in the index neighbours in time; random ones would touch a page
    each (`docs/decisions/0010`). Random bits are drawn many at a time: each call to the system costs 20 µs.
    """
    fresh: list[int] = []
    moment = count = 0

    def new_id() -> str:
        nonlocal moment, count
        if not fresh:
            pool = os.urandom(8 * 256)
            fresh.extend(int.from_bytes(pool[at : at + 8]) for at in range(0, len(pool), 8))
        chance, milliseconds = fresh.pop(), clock() // 1000
        if milliseconds > moment:
            moment, count = milliseconds, 0
        elif count < 0xFFF:
            count += 1
        else:
            moment, count = moment + 1, 0
        digits = f"{moment << 16 | 0x7000 | count:016x}{chance & 2**62 - 1 | 1 << 63:016x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    return new_id


def unknown_store(uri: str) -> UnknownStore:
    """The error for a URI whose scheme no store has."""
    known = ", ".join(f"`{scheme}://…`" for scheme in STORES)
    return UnknownStore(f"`{without_password(uri)}` names no store; stores are {known}.")


async def open_store(uri: str, clock: Clock = now, budget: Budget = BUDGET) -> Store:
    """The store of a URI. Raises UnknownStore, or what the store says when it cannot open."""
    opener = STORES.get(uri.partition(":")[0])
    if opener is None:
        raise unknown_store(uri)
    return await opener(uri, clock, budget)


def served_types(settings: Settings, definitions: Definitions) -> tuple[str, ...]:
    """The resource types to serve: all concrete ones but Parameters, or those that the capability file lists."""
    all_types = tuple(type for type in definitions.resource_types if type not in _NOT_SERVED)
    path = _capability_file(settings)
    try:
        capability = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"The capability file `{path}` cannot be read: {error.strerror}.") from None
    except orjson.JSONDecodeError as error:
        raise ValueError(f"The capability file `{path}` is not JSON: {error}.") from None
    # A key of another name would leave every type switched on in silence.
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


def _capability_file(settings: Settings) -> Path:
    return Path(settings.capability) if settings.capability else shipped("profiles") / "capability.json"


def shipped(folder: str) -> Path:
    """A folder that comes with the program: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / f"_{folder}"
    return inside if inside.exists() else package.parent / folder


def partner_folders(settings: Settings) -> list[Path]:
    """Where the files of partners are: with what ships, and in the site's own folder of profiles."""
    folders = [shipped("profiles"), *([Path(settings.profiles)] if settings.profiles else [])]
    return [folder / "partners" for folder in folders]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is derived from the definitions once and shared by everything."""

    definitions: Definitions
    types: tuple[str, ...]
    registry: Registry
    validator: StructureValidator


def learn(settings: Settings) -> Knowledge:
    """Read the definitions; the costly part of a start."""
    definitions = fhir_definitions.load()
    types = served_types(settings, definitions)
    return Knowledge(definitions, types, build(definitions, types), StructureValidator(definitions))


@dataclass(frozen=True, slots=True)
class Seams:
    """What a deployment or a test may put in the place of what ships: clock, policy, business rules, definitions."""

    clock: Clock = now
    policy: Policy = ALLOW_ALL
    rules: Rules = field(default_factory=lambda: RULES)
    definitions: Path | None = field(default_factory=lambda: shipped("profiles"))
    """The folder of the definitions that ship; None for a store that begins empty."""


def build_context(settings: Settings, known: Knowledge, store: Store, page_key: bytes, seams: Seams) -> Context:
    """Everything that the interactions work with."""
    clock = seams.clock
    zone = ZoneInfo(settings.time_zone) if settings.time_zone != "UTC" else UTC
    index = Index(known.registry, known.definitions, zone, settings.full_text)
    parameters = SearchParameters(store, known.definitions, known.registry, index, settings.full_text)
    return Context(
        unrestricted=store,
        definitions=known.definitions,
        parameters=parameters,
        background=Background(),
        validator=known.validator,
        settings=settings,
        clock=clock,
        new_id=id_source(clock),
        authenticate=accept_anybody,
        policy=seams.policy,
        rules=seams.rules,
        audit=no_audit,
        types=frozenset(known.types),
        page_key=page_key,
        criteria=lambda base: Criteria(
            zone=zone,
            now=clock(),
            base=base,
            registry=parameters.current.registry,
            full_text=settings.full_text,
        ),
        dispatch=dispatch,
        capability=_capability(settings, known, parameters, clock),
        partners=read_partners(partner_folders(settings)),
    )


def _capability(
    settings: Settings, known: Knowledge, parameters: SearchParameters, clock: Clock
) -> Callable[[str], bytes]:
    """The CapabilityStatement by base URL, made when it is first asked for and after the parameters changed."""

    @functools.lru_cache(maxsize=16)
    def made(base: str, in_force: Snapshot) -> bytes:
        date = datetime.fromtimestamp(clock() / 1_000_000, UTC).isoformat(timespec="seconds")
        facts = Facts(INTERACTIONS, OPERATIONS, known.definitions, in_force.registry, settings, __version__, date)
        return orjson.dumps(build_statement(facts, base))

    return lambda base: made(base, parameters.current)


@dataclass(frozen=True, slots=True)
class Running:
    """A server in this process: the FHIR API as an ASGI application, and what it is made of."""

    api: Application
    context: Context


@asynccontextmanager
async def running(
    settings: Settings, log: Log | None = None, known: Knowledge | None = None, seams: Seams | None = None
) -> AsyncIterator[Running]:
    """The FHIR API on its open store; the store is closed at the end."""
    seams = seams or Seams()
    store = await open_store(settings.store, seams.clock, Budget(settings.search_seconds, settings.search_rows))
    try:
        if settings.full_text:
            await store.check_full_text()
        context = build_context(settings, known or learn(settings), store, await store.page_key(), seams)
        for folder in (seams.definitions, Path(settings.profiles) if settings.profiles else None):
            if folder is not None:
                await store_conformance_resources(context, folder)
        await context.parameters.reload_and_mark_empty_types()
        api = fhir_application(context, log or json_log(sys.stderr.buffer, settings.log_level), request_ids())
        try:
            yield Running(_with_cors(api, settings), context)
        finally:
            await context.background.close()
            context.long_work.close()
    finally:
        await store.close()


def request_ids() -> Callable[[], str]:
    """Ids for requests that bring none: a random part for the process, and a count."""
    process, count = secrets.token_hex(4), itertools.count(1)
    return lambda: f"{process}{next(count):08x}"


def _with_cors(api: Application, settings: Settings) -> Application:
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    if not origins:
        return api
    cors: Application = CORSMiddleware(  # type: ignore[assignment]
        api,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["*"],
        expose_headers=["ETag", "Location", "Last-Modified", "X-Request-Id"],
    )

    async def only_for_browsers(scope: Scope, receive: Receive, send: Send) -> None:
        crosses = any(name == b"origin" for name, _ in scope["headers"])
        await (cors if crosses else api)(scope, receive, send)

    return only_for_browsers


def create(known: Knowledge | None = None) -> Application:
    """The whole server for one process, configured by the environment; the HTTP server calls this."""
    settings = Settings()
    around = site(__version__, settings.path)
    root, below = settings.path, settings.path.rstrip("/") + "/"
    api: list[Application] = []

    async def server(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(functools.partial(running, settings, known=known), around, api, receive, send)
        elif scope["type"] == "http":
            path: str = scope["path"]
            ours = (path.startswith(below) or path == root) and not (root == "/" and is_of_site(path))
            answers: Application = api[0] if ours else around  # type: ignore[assignment]
            await answers(scope, receive, send)

    return server


def _begin_work(context: Context, around: FastAPI) -> None:
    """Start what goes on beside the requests of this process."""
    context.background.start(supervise(context))
    if context.settings.workers == "on":
        team = Team(context, json_log(sys.stderr.buffer, context.settings.log_level))
        around.state.standings = team.standings
        context.background.start(run_workers(team, select_workers(context.settings, WORKERS.values())))


async def _lifespan(
    start: Callable[[], AbstractAsyncContextManager[Running]],
    around: FastAPI,
    api: list[Application],
    receive: Receive,
    send: Send,
) -> None:
    """Open the store when the HTTP server starts the worker, close it when it stops it."""
    await receive()
    stage = "startup"
    try:
        async with start() as server:
            api.append(server.api)
            around.state.context = server.context
            # What was made at start lives as long as the process: no collection needs to look at it again. Parsed trees
            # come by the hundred thousand and hold no cycles, so collections may come less often than by default.
            gc.collect()
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD, 20, 50)
            _begin_work(server.context, around)
            stage = "shutdown"
            await send({"type": "lifespan.startup.complete"})
            await receive()
    except (StoreError, ValueError, OSError) as error:
        await send({"type": f"lifespan.{stage}.failed", "message": str(error)})
        return
    await send({"type": "lifespan.shutdown.complete"})
