"""Answers of brief searches and histories that are kept, so that asked again they need no look at the file.

A decision asks the same again and again, such as what an actor has on a day. An answer is kept current for as long as
every version since then is known here: those of this process are announced before their commit, and become part of the
answers once they can be read; those of other processes are read. Where resources were removed or indexed anew, or much
was written since the last question, all is forgotten.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from bisect import insort
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fhir_server.search import query as q
from fhir_server.search.entries import Entries
from fhir_server.search.match import Candidate, Predicate
from fhir_server.store.protocol import HistoryPage, HistoryQuery, Page, Stored
from fhir_server.store.sqlite.answer_keys import Key, list_keys, list_scope_keys
from fhir_server.store.sqlite.catch_up import read_versions
from fhir_server.store.sqlite.recent import WrittenEntries, compile_plain

_STATE = (
    "SELECT coalesce((SELECT max(seq) FROM version), 0), coalesce((SELECT value FROM meta WHERE key = 'upkeep'), 0)"
)
"""The number of the newest version, and how often something else than a version has changed what searches find."""

_MOST_BYTES = 16 * 1024 * 1024
"""Texts of all answers together, those in several counted as often."""

_MOST_ANSWERS, _MOST_MATCHES, _MOST_HISTORIES = 5000, 500, 100
_EVER = -(2**62)
"""A time before every version, where a history has no `since`."""
_MOST_WAITING, _MOST_WAITING_BYTES = 2000, 4 * 1024 * 1024
"""Versions that wait to be looked at, and their texts: nobody has asked for long."""

_LOOK_SECONDS = 0.1
"""After so long the file is looked at although no process has had its turn: another program may have written."""

_Key = tuple[str, str]


@dataclass(slots=True, eq=False)
class _Answer:
    """What a query finds, by type and id (`order`); `tests` by type, `keys` by which writes that may match find it.

    `parameters`, `marking`: those of the keys, by type.
    """

    query: q.Query
    tests: Mapping[str, Predicate]
    keys: Sequence[Key]
    parameters: Mapping[str, str]
    marking: Mapping[str, frozenset[str]]
    matches: dict[_Key, Stored] = field(default_factory=dict)
    order: list[_Key] = field(default_factory=list)
    size: int = 0


class _Batch(NamedTuple):
    """The versions of one commit: those that answers may have, and the types of the others, of which no answer was.

    `updated`: the latest `last_updated` of all of them.
    """

    first: int
    last: int
    updated: int
    versions: Sequence[tuple[Stored, Entries | None]]
    size: int
    others: frozenset[str]


class _History(NamedTuple):
    """All versions of some types since a time."""

    since: int
    page: HistoryPage


class StandingAnswers:
    """The answers of one store. The event loop asks on its reading connection; who writes announces, on any thread.

    `count_others`: `process_lock.Turnstile.count_others`; while no other process has had a turn, what was announced is
    all there is, and the file is not looked at.
    """

    def __init__(self, count_others: Callable[[], int | None]) -> None:
        self._count_others = count_others
        self._looked = 0.0
        self._others: int | None = None
        """When the file was last looked at, by the monotonic clock, and what `count_others` told then."""
        self._confirmed = 0
        """The number of the last version that was announced and is committed."""
        self._doubted = False
        """Something else than announced versions was written here."""
        self._answers: OrderedDict[int, _Answer] = OrderedDict()
        """By the identity of the query: whoever asks often keeps it, and hashing it takes longer than an answer."""
        self._by_key: defaultdict[Key, set[_Answer]] = defaultdict(set)
        self._holders: defaultdict[_Key, set[_Answer]] = defaultdict(set)
        self._histories: dict[tuple[tuple[str, ...], int], _History] = {}
        """By types and the most versions of a page; while nothing of these types is written, later ones follow."""
        self._horizon = _EVER
        """The latest `last_updated` of the versions that were followed: what commits later is not before it."""
        self._parameters: dict[str, frozenset[str]] = {}
        """By type that answers or histories are about, the parameters by whose terms answers are found."""
        self._marking: dict[str, frozenset[str]] = {}
        """By type, the parameters by whose dates and terms the marks of these keys are found."""
        self._size = 0
        self._newest, self._upkeep = 0, 0
        self._is_followed = False
        """In this turn of the event loop: what it knows of others came before."""
        self._lock = threading.Lock()
        self._waiting: deque[_Batch] = deque()
        self._waiting_versions, self._waiting_bytes = 0, 0
        self._uncommitted: _Batch | None = None
        self._lost = False

    def announce(self, written: Sequence[WrittenEntries], list_stored: Callable[[], Sequence[Stored]]) -> None:
        """Note what is about to be committed; `list_stored`: the versions of what is written."""
        if not written or self._lost:
            return
        if not self._parameters:  # nobody has asked: the first question reads where things stand
            self._lost = True
            return
        known, stored = frozenset(self._parameters), list_stored()
        pairs = zip(written, stored, strict=True)
        found = [(version, write.entries) for write, version in pairs if write.type in known]
        size = sum(len(version.raw or b"") for version, _ in found)
        others = frozenset([write.type for write in written]) - known
        updated = max([version.last_updated for version in stored])
        batch = _Batch(written[0].seq, written[-1].seq, updated, found, size, others)
        with self._lock:
            self._waiting.append(batch)
            self._uncommitted = batch
            self._count(batch, 1)
            if self._waiting_versions > _MOST_WAITING or self._waiting_bytes > _MOST_WAITING_BYTES:
                self._waiting.clear()
                self._waiting_versions = self._waiting_bytes = 0
                self._uncommitted = None
                self._lost = True

    def _count(self, batch: _Batch, sign: int) -> None:
        self._waiting_versions += sign * (1 + len(batch.versions))
        self._waiting_bytes += sign * batch.size

    def confirm(self) -> None:
        """What was announced last is committed."""
        if self._uncommitted is None:
            self._doubted = True  # it does not wait here
        else:
            self._confirmed = self._uncommitted.last
            self._uncommitted = None

    def doubt(self) -> None:
        """Something else was committed than versions that were announced: the file has to be looked at."""
        self._doubted = True

    def withdraw(self) -> None:
        """What was announced last is not committed."""
        with self._lock:
            if self._uncommitted is not None and self._waiting and self._waiting[-1] is self._uncommitted:
                self._count(self._waiting.pop(), -1)
            self._uncommitted = None

    def find(self, query: q.Query, connection: sqlite3.Connection) -> Page | None:
        """The page of a brief query as things are now; None: it is not known."""
        self._follow_once(connection)
        answer = self._answers.get(id(query))
        if answer is None or answer.query is not query:
            self._follow(connection, looks=True)  # to what the search is about to find
            return None
        self._answers.move_to_end(id(query))
        if len(answer.matches) > query.count or (query.most_bytes is not None and answer.size > query.most_bytes):
            return None
        found = answer.matches
        return Page(tuple([found[key] for key in answer.order]), None, self._newest)

    def keep(self, query: q.Query, page: Page) -> None:
        """Keep the answer of a brief query that was just searched for, where it can be kept current."""
        if page.next is not None or page.seen != self._newest or len(page.matches) > _MOST_MATCHES:
            return
        answer, before = _make_answer(query), self._answers.get(id(query))
        if answer is None:
            return
        if before is not None:
            self._drop(before)
        for type, parameter in answer.parameters.items():
            self._parameters[type] = self._parameters.get(type, frozenset()) | {parameter}
            self._marking[type] = self._marking.get(type, frozenset()) | answer.marking[type]
        self._answers[id(query)] = answer
        for key in answer.keys:
            self._by_key[key].add(answer)
        for match in page.matches:
            self._add(answer, match)
        while len(self._answers) > _MOST_ANSWERS or self._size > _MOST_BYTES:
            self._drop(next(iter(self._answers.values())))

    def find_history(self, query: HistoryQuery, connection: sqlite3.Connection) -> HistoryPage | None:
        """The page of a brief history, while nothing was written of its types; None: it is not known."""
        self._follow_once(connection)
        kept, since = self._histories.get((query.types, query.count)), _get_since(query)
        if kept is None or since is None or since < kept.since:
            self._follow(connection, looks=True)
            return None
        versions = kept.page.versions
        if since > kept.since and versions:
            versions = tuple([each for each in versions if each.last_updated >= since])
            if not versions:  # who goes on from here asks for nothing before it again
                self._histories[query.types, query.count] = _History(since, kept.page._replace(versions=()))
        return HistoryPage(versions, None, max(kept.page.horizon, self._horizon))

    def keep_history(self, query: HistoryQuery, page: HistoryPage) -> None:
        """Keep the page of a brief history of some types that was just read."""
        since = _get_since(query)
        if page.next is None and query.types and since is not None:
            for type in query.types:
                self._parameters.setdefault(type, frozenset())
            if len(self._histories) >= _MOST_HISTORIES:
                self._histories.clear()
            self._histories[query.types, query.count] = _History(since, page)

    def _follow_once(self, connection: sqlite3.Connection) -> None:
        """As `_follow`, once in a turn of the event loop: what anybody asks for in it began before."""
        if not self._is_followed:
            asyncio.get_running_loop().call_soon(self._end_turn)  # before the look: what is scheduled later sees more
            self._follow(connection)
            self._is_followed = True

    def _end_turn(self) -> None:
        self._is_followed = False

    def _follow(self, connection: sqlite3.Connection, looks: bool = False) -> None:
        """Bring the answers to the state that the connection sees; `looks`: however certain that is without a look."""
        newest, upkeep = self._find_state(connection, looks)
        with self._lock:
            if self._lost or upkeep != self._upkeep:
                self._forget()
                self._lost, self._upkeep = False, upkeep
            ready: list[_Batch] = []
            while self._waiting and self._waiting[0].last <= newest:
                ready.append(self._waiting.popleft())
                self._count(ready[-1], -1)
        for batch in ready:
            if batch.last <= self._newest:
                continue
            if batch.first != self._newest + 1:
                self._catch_up(connection, batch.first - 1)
            self._horizon = max(self._horizon, batch.updated)
            if not batch.others.isdisjoint(self._parameters):  # asked about since it was announced
                self._catch_up(connection, batch.last)
                continue
            for version, entries in batch.versions:
                self._apply(version, entries)
            self._newest = batch.last
        if self._newest != newest:
            self._catch_up(connection, newest)

    def _find_state(self, connection: sqlite3.Connection, looks: bool) -> tuple[int, int]:
        """See `_STATE`; with a look at the file where another process may have written, or this one in silence."""
        others, now = self._count_others(), time.monotonic()  # before the look: what comes during it is looked at again
        doubted, self._doubted = self._doubted or self._lost, False
        known = others is not None and others == self._others and now - self._looked <= _LOOK_SECONDS
        if known and not (doubted or looks):
            return max(self._newest, self._confirmed), self._upkeep
        self._others, self._looked = others, now
        newest, upkeep = connection.execute(_STATE).fetchone()
        return newest, upkeep

    def _catch_up(self, connection: sqlite3.Connection, newest: int) -> None:
        """Add what another process wrote."""
        kept = self._answers or self._histories
        versions = read_versions(connection, self._newest, newest) if kept else None
        if versions is None:
            self._forget()
        for _, version, entries in versions or ():
            self._horizon = max(self._horizon, version.last_updated)
            self._apply(version, entries)
        self._newest = newest

    def _apply(self, version: Stored, entries: Entries | None) -> None:
        type, id = version.type, version.id
        for key in [key for key in self._histories if type in key[0]]:
            del self._histories[key]
        holders = self._holders.get((type, id), _NONE)
        touched = set(holders)
        if entries is not None:
            by_key = self._by_key
            for each in list_keys(type, entries, self._parameters.get(type, ()), self._marking.get(type, ())):
                if each in by_key:
                    touched |= by_key[each]
        if not touched:
            return
        candidate = Candidate(type, id, version.last_updated, entries) if entries is not None else None
        for answer in touched:
            if candidate is not None and answer.tests[type](candidate):
                self._add(answer, version)
            elif answer in holders:
                self._remove(answer, (type, id))

    def _add(self, answer: _Answer, version: Stored) -> None:
        key = (version.type, version.id)
        self._remove(answer, key)
        answer.matches[key] = version
        insort(answer.order, key)
        self._holders[key].add(answer)
        size = len(version.raw or b"")
        answer.size += size
        self._size += size

    def _remove(self, answer: _Answer, key: _Key) -> None:
        version = answer.matches.pop(key, None)
        if version is None:
            return
        answer.order.remove(key)
        size = len(version.raw or b"")
        answer.size -= size
        self._size -= size
        holders = self._holders[key]
        holders.discard(answer)
        if not holders:
            del self._holders[key]

    def _drop(self, answer: _Answer) -> None:
        for key in list(answer.matches):
            self._remove(answer, key)
        del self._answers[id(answer.query)]
        for each in answer.keys:
            self._by_key[each].discard(answer)
            if not self._by_key[each]:
                del self._by_key[each]

    def _forget(self) -> None:
        self._answers.clear()
        self._by_key.clear()
        self._holders.clear()
        self._histories.clear()
        self._size = 0


def _get_since(query: HistoryQuery) -> int | None:
    """Since when a history is asked for; None where its page says more than what came since."""
    if query.id is not None or query.at is not None or query.before is not None or query.most_bytes is not None:
        return None
    return _EVER if query.since is None else query.since


_NONE: frozenset[_Answer] = frozenset()


def _make_answer(query: q.Query) -> _Answer | None:
    """An empty answer; None where not every scope is plain and has an equality that each of its matches fulfils."""
    if query.sort or query.after is not None:
        return None
    keys: list[Key] = []
    parameters: dict[str, str] = {}
    marking: dict[str, frozenset[str]] = {}
    tests: dict[str, Predicate] = {}
    for scope in query.scopes:
        found, test = list_scope_keys(scope), compile_plain(scope.where)
        if found is None or test is None:
            return None
        keys += found.keys
        tests[scope.type], parameters[scope.type], marking[scope.type] = test, found.parameter, found.marking
    return _Answer(query, tests, keys, parameters, marking)
