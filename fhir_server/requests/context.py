"""What every interaction works with: the store, the definitions, the search parameters in force, the settings."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fhir_server.fhir.definitions import Definitions
from fhir_server.partners import Partners
from fhir_server.requests.background import Background
from fhir_server.requests.bases import KnownBases
from fhir_server.requests.long_work import LongWork
from fhir_server.requests.request import Caller, Request, Response
from fhir_server.requests.search_parameters import SearchParameters
from fhir_server.requests.time_limit import TimeLimits
from fhir_server.search.index import Index
from fhir_server.search.parameters import Criteria
from fhir_server.search.registry import Registry
from fhir_server.security.access import Reader, Restrictions
from fhir_server.security.audit import Audit
from fhir_server.security.authentication import Authenticate
from fhir_server.security.bounded_cache import BoundedCache
from fhir_server.security.check import LinkedCheck, compile_linked_check, weigh_check
from fhir_server.security.policy import Policy
from fhir_server.security.request_rate import RequestRate
from fhir_server.security.smart_configuration import SmartConfiguration
from fhir_server.settings import Settings
from fhir_server.store.protocol import Clock, Store
from fhir_server.validation.structure import StructureValidator


@dataclass(frozen=True, slots=True)
class Context:
    """Everything an interaction works with; built once, by `app.py`."""

    unrestricted: Store
    """The store itself: writes, values and jobs, and the reads that no answer shows. Answers come from `reader`."""
    definitions: Definitions
    parameters: SearchParameters
    bases: KnownBases
    background: Background
    validator: StructureValidator
    settings: Settings
    clock: Clock
    new_id: Callable[[], str]
    authenticate: Authenticate
    policy: Policy
    rules: Mapping[str, Callable[..., Awaitable[Any]]]
    """Business rules by resource type; see `writes.rules`."""
    audit: Audit | None
    types: frozenset[str]
    page_key: bytes
    criteria: Callable[[str], Criteria]
    """The search criteria context for a base URL, at the present time."""
    dispatch: Dispatch
    """Routes, authorises and carries out one request; a batch sends its entries through it."""
    capability: Callable[[str], bytes]
    """The CapabilityStatement for a base URL."""
    partners: Partners
    """By name, with whom messages are exchanged."""
    roles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Name → scopes."""
    logins: asyncio.Lock = field(default_factory=asyncio.Lock)
    """The turn of a login: the hash of a password takes 64 MiB and a tenth of a second, so one at a time."""
    rate: RequestRate | None = None
    """How often a principal may ask."""
    smart: SmartConfiguration | None = None
    """Where apps get their tokens; None where none are needed."""
    long_work: LongWork = field(default_factory=LongWork)
    """Where the work on large texts is done."""
    time_limits: TimeLimits = field(default_factory=TimeLimits)
    """Those of the requests that are being answered."""
    snapshots: dict[str, Any] = field(default_factory=dict)
    """What a domain read of the store and brings up to date before each use, by the domain's name."""
    checks: BoundedCache[LinkedCheck] = field(default_factory=lambda: BoundedCache(4096, 200_000, weigh_check))
    """By grant and type, what is asked of a resource before it is shown."""
    answers: BoundedCache[bool] = field(default_factory=lambda: BoundedCache(20_000, 20_000, lambda *_: 1))
    """By grant and version, whether it may be shown: neither ever changes."""
    restrictions: BoundedCache[Restrictions] = field(default_factory=lambda: BoundedCache(1024, 1024, lambda *_: 1))
    """By grant, operation, emergency and base URL, what a caller may read."""
    planning: asyncio.Lock = field(default_factory=asyncio.Lock)
    """The turn of a long plan: one at a time is made, the next while the one before is written."""

    def reader(self, caller: Caller) -> Reader:
        """What the caller may read."""
        restricted = self.policy.restricts(caller.principal)
        return Reader(self.unrestricted, self._find_restrictions(caller) if restricted else None)

    def _find_restrictions(self, caller: Caller) -> Restrictions:
        base, principal = caller
        if principal.grant is None:
            return self._build_restrictions(caller)
        key = (principal.grant, principal.operation, principal.emergency, base, self.parameters.current.number)
        restrictions = self.restrictions.recall(key)
        if restrictions is None:
            restrictions = self._build_restrictions(caller)
            self.restrictions.keep(key, restrictions)
        return restrictions

    def _build_restrictions(self, caller: Caller) -> Restrictions:
        policy, principal = self.policy, caller.principal
        index = functools.partial(self.index.make_some_entries, base=caller.base)
        restriction = functools.partial(policy.restriction, principal)

        def find_check(type: str) -> LinkedCheck:
            def make() -> LinkedCheck:
                return compile_linked_check(restriction(type))

            # a grant is never changed; what a principal without one may see, a policy may change its mind about
            return make() if principal.grant is None else self.checks.find((principal.grant, type), make)

        return Restrictions(
            restriction,
            functools.partial(policy.search_restriction, principal),
            functools.partial(policy.criteria_restriction, principal),
            index,
            self.registry.types,
            self.long_work.run,
            find_check,
            principal.grant and (principal.grant, caller.base, self.parameters.current.number),
            self.answers,
        )

    @property
    def registry(self) -> Registry:
        """The search parameters in force now."""
        return self.parameters.current.registry

    @property
    def index(self) -> Index:
        """What makes index entries by the search parameters in force now."""
        return self.parameters.current.index


Dispatch = Callable[[Context, Request], Awaitable[Response]]
