"""What a site says about its calendars, read once in each process and brought up to date before each use.

Schedules, roles, places and services change seldom and every booking needs them. The history of these types since the
last look tells what changed, in one query (https://hl7.org/fhir/R4/http.html#history).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date

import orjson

from fhir_server.fhir.outcome import Issue
from fhir_server.requests.context import Context
from fhir_server.search.query import Query, Scope
from fhir_server.settings import Settings
from fhir_server.store.protocol import HistoryPage, HistoryQuery, Store, Stored
from fhir_server.writes.state import State
from mappers.scheduling.calendars import Calendar, Practice, build_calendar, read_practice
from mappers.scheduling.elements import Resource, reference_of
from mappers.scheduling.hours import Holiday
from mappers.scheduling.parameters import SchedulingParameters

TYPES = ("HealthcareService", "Location", "PractitionerRole", "Schedule")
_OF_SITE = frozenset(TYPES)
_PAGE = 1000


class Site:
    """The practice as this process knows it; `read` looks for changes first."""

    def __init__(self, settings: Settings) -> None:
        # UTC is where nobody said anything: a practice that keeps it says so in the setting
        named = "time_zone" in settings.model_fields_set or settings.time_zone != "UTC"
        self._default = SchedulingParameters(zone=settings.time_zone if named else None)
        days = [day for day in settings.holidays.split(",") if day]
        self._holidays = tuple(Holiday(date.fromisoformat(day)) for day in days)
        self._resources: dict[str, Resource] = {}
        self._versions: dict[str, int] = {}
        self._changes: HistoryQuery | None = None
        """What was written since the last change that was read; None before the first look."""
        self._practice = self._build(())
        self._stale = False
        self._turn = asyncio.Lock()
        self._looks = 0
        """Looks for changes that have begun and not failed."""
        self._overlay: tuple[tuple[object, ...], Practice] = ((), self._practice)
        self._calendars: dict[tuple[str, frozenset[str]], tuple[Calendar | None, list[Issue]]] = {}

    async def read(self, store: Store) -> Practice:
        """The practice as it is stored now. Those who ask while a look is under way share the next one."""
        before = self._looks
        async with self._turn:
            if self._looks <= before:
                self._looks += 1
                try:
                    await self._update(store)
                except BaseException:
                    self._looks -= 1
                    raise
        return self._practice

    async def _update(self, store: Store) -> None:
        query = self._changes
        if query is None:
            page = await store.history(HistoryQuery(TYPES, count=1))
            await self._read_all(store)
        else:
            page = await store.history(query)
            if not page.versions:
                return
            await self._read_changes(store, query, page)
        self._changes = HistoryQuery(TYPES, since=page.horizon, count=_PAGE, brief=True)
        if self._stale:
            self._stale = False
            self._practice, self._calendars = self._build(self._resources.values()), {}

    def lay_over(self, practice: Practice, pending: Mapping[str, object]) -> Practice:
        """The practice with what a transaction is about to write; None for a deletion."""
        if not pending:
            return practice
        key = (id(practice), *((name, id(tree)) for name, tree in pending.items()))
        if self._overlay[0] != key:
            together = {**practice.directory, **pending}
            self._overlay = (key, self._build(tree for tree in together.values() if isinstance(tree, dict)))
        return self._overlay[1]

    def calendar(self, schedule: Resource, types: frozenset[str], practice: Practice) -> Calendar | None:
        """The calendar of a Schedule for these appointment types; None when no zone is known."""
        return self.build_calendar(schedule, types, practice)[0]

    def build_calendar(
        self, schedule: Resource, types: frozenset[str], practice: Practice
    ) -> tuple[Calendar | None, list[Issue]]:
        """The calendar and what is wrong with it; remembered while the practice does not change."""
        if practice is not self._practice:
            return build_calendar(schedule, types, practice)
        key = (reference_of(schedule), types)
        if key not in self._calendars:
            self._calendars[key] = build_calendar(schedule, types, practice)
        return self._calendars[key]

    def _build(self, resources: Iterable[Resource]) -> Practice:
        return read_practice(resources, self._default, self._holidays)[0]

    async def _read_all(self, store: Store) -> None:
        for type in TYPES:
            query: Query | None = Query((Scope(type),), count=_PAGE)
            while query is not None:
                page = await store.search(query)
                for stored in page.matches:
                    self._apply(stored)
                query = Query((Scope(type),), count=_PAGE, after=page.next) if page.next is not None else None

    async def _read_changes(self, store: Store, query: HistoryQuery, page: HistoryPage) -> None:
        """Apply the changes, of which `page` has the newest."""
        while True:
            for stored in page.versions:
                self._apply(stored)
            if page.next is None:
                return
            page = await store.history(replace(query, before=page.next, brief=False))

    def _apply(self, stored: Stored) -> None:
        if self._versions.get(stored.reference, 0) >= stored.version:
            return
        self._versions[stored.reference] = stored.version
        self._stale = True
        self._resources.pop(stored.reference, None)
        if stored.raw is not None:
            self._resources[stored.reference] = orjson.loads(stored.raw)


def site_of(context: Context) -> Site:
    """The site of this process."""
    site = context.snapshots.get("scheduling")
    if not isinstance(site, Site):
        site = context.snapshots["scheduling"] = Site(context.settings)
    return site


async def read_site(state: State) -> Practice:
    """The practice as a decision sees it: what is stored, under what its transaction writes."""
    site = site_of(state.context)
    practice = await site.read(state.context.unrestricted)
    return site.lay_over(practice, state.list_pending(_OF_SITE))
