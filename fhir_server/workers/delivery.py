"""Deliveries that have an outside effect go out: partners beside each other, those about one patient in their order.

What stays open holds back the later ones of its patient; a partner that cannot be reached, or leaves two in a row
without an answer, is left alone for a while, longer each time. Neither holds up another partner.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

from fhir_server.requests.criteria import parse_criteria
from fhir_server.search.query import Query, Scope
from fhir_server.workers.delivery_item import Attempt, Group, Item, Outbox, deliver_or_park, read_item
from fhir_server.workers.lease import Lease
from fhir_server.workers.worker import Step, StepResult, Turn

OPEN = "requested,accepted,in-progress"
PAGE = 100

LOOK_AGAIN = 1.0
"""Seconds after which partners that had nothing to be sent are looked at again while another one takes its time."""

LONGEST_STEP = 60.0
"""Seconds after which no partner is looked at again in the same step, so that the step ends and tells what it did."""

LONGEST_WAIT = 60.0
"""Seconds of the longest wait after attempts without an answer."""

MOST_UNANSWERED = 2
"""Attempts without an answer, one after the other, after which it is the partner that is not there."""


class Count(NamedTuple):
    """Deliveries that came to an end, and those that stay open."""

    ended: int
    waiting: int


@dataclass(slots=True)
class Waits:
    """Which partners and lanes are left alone until when (seconds of the event loop), and how often they failed."""

    until: dict[str, float] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)

    def holds(self, name: str) -> bool:
        """Whether a partner or a lane is left alone now."""
        return self.until.get(name, 0.0) > asyncio.get_running_loop().time()

    def set(self, name: str, seconds: float) -> None:
        """Leave it alone for so long."""
        self.until[name] = asyncio.get_running_loop().time() + seconds

    def fail(self, name: str) -> None:
        """Leave it alone for longer with each failure; after the first one, until the next step."""
        self.failures[name] += 1
        self.set(name, min(LONGEST_WAIT, 2.0 ** min(self.failures[name] - 2, 10)) if self.failures[name] > 1 else 0.0)

    def clear(self, name: str) -> None:
        """It has answered."""
        self.until.pop(name, None)
        self.failures.pop(name, None)


def run_deliveries(outbox: Outbox) -> Step:
    """The step of a worker that delivers all that is open."""
    all_waits: WeakKeyDictionary[Lease, Waits] = WeakKeyDictionary()

    async def step(turn: Turn) -> StepResult:
        waits = all_waits.setdefault(turn.lease, Waits())
        groups = outbox.list_groups(turn.context)
        ended = 0
        waiting: dict[int, int] = {}
        running: dict[int, asyncio.Task[Count]] = {}
        loop = asyncio.get_running_loop()
        again_until = loop.time() + LONGEST_STEP
        try:
            starts: Sequence[int] = range(len(groups))
            while starts or running:
                for number in starts:
                    running[number] = asyncio.create_task(_Round(turn, outbox, groups[number], waits).run())
                await asyncio.wait(running.values(), timeout=LOOK_AGAIN)
                done = {number: task for number, task in running.items() if task.done()}
                running = {number: task for number, task in running.items() if number not in done}
                if any(task.exception() for task in done.values()):
                    await asyncio.wait(running.values()) if running else None
                for number, task in done.items():
                    count = task.result()
                    ended += count.ended
                    waiting[number] = count.waiting
                starts = [number for number in done if running and loop.time() < again_until]
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)
        left = sum(waiting.values())
        # at once again only for what came meanwhile: what is blocked waits for the pause
        return StepResult(ended if not left else 0, f"{ended} delivered, {left} open", left)

    return step


class _Round:
    """One walk over what is open of a group, in the order of the ids."""

    def __init__(self, turn: Turn, outbox: Outbox, group: Group, waits: Waits) -> None:
        self._turn = turn
        self._outbox = outbox
        self._group = group
        self._waits = waits
        self._blocked: set[str] = set()
        """Partners and lanes that are left alone for the rest of this round."""
        self._parked: dict[str, str] | None = None
        """Lane → the id of its first parked delivery, which holds back those behind it."""
        self._unanswered = 0
        self._ended = 0

    async def run(self) -> Count:
        """Deliver until the end, or until the partner of the group is left alone."""
        query = await self._build_query(("status", OPEN))
        reader = self._turn.context.reader(self._turn.caller)
        while not (self._group.partner and self._leaves(self._group.partner)):
            page = await reader.search(query)
            if page.matches and self._parked is None:
                self._parked = await self._read_parked()
            for item in map(read_item, page.matches):
                await self._offer(item)
            if page.next is None:
                break
            query = Query(query.scopes, count=PAGE, after=page.next)
        return Count(self._ended, await reader.count(Query(query.scopes)))

    async def _build_query(self, *pairs: tuple[str, str]) -> Query:
        turn, all_pairs = self._turn, (*self._outbox.criteria, *self._group.criteria, *pairs)
        where = await parse_criteria(turn.context, "Task", all_pairs, turn.caller)
        return Query((Scope("Task", turn.context.reader(turn.caller).restrict_clause("Task", where)),), count=PAGE)

    async def _read_parked(self) -> dict[str, str]:
        parked: dict[str, str] = {}
        query = await self._build_query(("status", "on-hold"))
        while True:
            page = await self._turn.context.reader(self._turn.caller).search(query)
            for item in map(read_item, page.matches):
                if self._outbox.holds(item.task):
                    parked.setdefault(item.lane, item.id)
            if page.next is None:
                return parked
            query = Query(query.scopes, count=PAGE, after=page.next)

    def _leaves(self, name: str) -> bool:
        return name in self._blocked or self._waits.holds(name)

    async def _offer(self, item: Item) -> None:
        """Deliver one, unless its partner is left alone, or something holds its lane."""
        parked = (self._parked or {}).get(item.lane)
        if self._leaves(item.partner) or self._leaves(item.lane) or (parked is not None and parked < item.id):
            self._blocked.add(item.lane)  # a wait may end before the next one of the lane is looked at
            return
        if item.partner in await self._outbox.read_paused(self._turn.context):
            self._blocked.add(item.partner)
            return
        await self._turn.check()
        self._note(item, await deliver_or_park(self._turn, self._outbox, item))

    def _note(self, item: Item, attempt: Attempt) -> None:
        """What an attempt means for those behind it."""
        if attempt.end in ("ended", "parked"):
            self._ended += 1
        if attempt.end in ("ended", "parked", "refused"):
            self._unanswered = 0
            self._waits.clear(item.partner)
            self._waits.clear(item.lane)
        if attempt.end == "parked" and self._outbox.holds(item.task) and self._parked is not None:
            self._parked.setdefault(item.lane, item.id)
        if attempt.end in ("refused", "unsent", "unanswered", "changed"):
            self._blocked.add(item.lane)
        if attempt.end == "refused":
            self._waits.set(item.lane, attempt.seconds)
        if attempt.end == "unanswered":
            self._waits.fail(item.lane)
            self._unanswered += 1
        if attempt.end == "unsent" or self._unanswered >= MOST_UNANSWERED:
            self._blocked.add(item.partner)
            self._waits.fail(item.partner)
