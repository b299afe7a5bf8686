"""A named lease that one process at a time holds: a value of the store, changed by compare-and-set alone.

Guaranteed: of all that hold or take a lease, one compare-and-set wins, and the fence number rises with each holder.
A holder that renews every HEARTBEAT is never taken for silent, however the clocks of the processes jump: silence is
what the watcher itself saw pass between its looks at an unchanged value, LONGEST_LOOK at most from one to the next.

Not guaranteed: that a holder which was stopped for longer than SILENCE (a suspended machine) knows so before it goes
on. What it writes has to assert the version that it read; `Lease.check` before each item keeps the window small.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

import orjson

from fhir_server.store.protocol import Clock, Store

HEARTBEAT = 15.0
"""Seconds after which a holder gives a sign of life."""

SILENCE = 60_000_000
"""µs without a sign of life after which a lease is taken over."""

LOOK = 5.0
"""Seconds between the looks of a process that waits for a lease."""

LONGEST_LOOK = 10_000_000
"""µs that count between two looks: a clock that jumps ahead makes no holder silent at once."""


class LeaseLost(Exception):
    """Another process has taken over, or may have."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What the value says: the holder ("" once released), its fence number, its last sign of life (µs by its clock).

    `count` makes each sign differ from the one before. `report`: what the holder tells of its work.
    """

    owner: str
    fence: int
    beat: int
    count: int = 0
    report: dict[str, object] = field(default_factory=dict)


def _encode(holding: Holding) -> bytes:
    return orjson.dumps(asdict(holding))


class Lease:
    """A lease as one process sees it. `owner` names the process and no other, now or later."""

    def __init__(self, store: Store, name: str, owner: str, clock: Clock) -> None:
        self.name = name
        self.owner = owner
        self.seen: Holding | None = None
        """What was there at the last look; of the holder itself, what it wrote last."""
        self._key = f"lease/{name}"
        self._store = store
        self._clock = clock
        self._text: bytes | None = None
        self._silence = self._looked = 0

    async def acquire(self) -> bool:
        """Take the lease if nobody holds it, or its holder has been silent; to be called every LOOK seconds."""
        text, now = await self._store.get_value(self._key), self._clock()
        unchanged = text == self._text
        self._silence = self._silence + min(max(now - self._looked, 0), LONGEST_LOOK) if unchanged else 0
        self._looked, self._text = now, text
        self.seen = Holding(**orjson.loads(text)) if text else None
        if self.seen is not None and self.seen.owner and self._silence < SILENCE:
            return False
        fence = self.seen.fence + 1 if self.seen else 1
        return await self._replace_holding(Holding(self.owner, fence, now))

    async def renew(self, report: dict[str, object] | None = None) -> None:
        """Give a sign of life. Raises LeaseLost when another process has the lease."""
        held = self._require_holding()
        told = held.report if report is None else report
        if not await self._replace_holding(replace(held, beat=self._clock(), count=held.count + 1, report=told)):
            raise LeaseLost(f"Another process has taken over `{self.name}`.")

    async def check(self) -> None:
        """Return if the lease is held for certain, which asks the store only after HEARTBEAT or a jump of the clock."""
        if not 0 <= self._clock() - self._require_holding().beat < HEARTBEAT * 1_000_000:
            await self.renew()

    async def release(self) -> None:
        """Let the next process have it at once, if it is still held."""
        held, self.seen = self.seen, None
        if held is not None and held.owner == self.owner:
            await self._replace_holding(replace(held, owner="", beat=self._clock(), count=held.count + 1))

    def _require_holding(self) -> Holding:
        if self.seen is None or self.seen.owner != self.owner:
            raise LeaseLost(f"`{self.name}` is not held here.")
        return self.seen

    async def _replace_holding(self, after: Holding) -> bool:
        """Replace what was seen. A write of our own whose answer was lost does not stand in the way."""
        text = _encode(after)
        done = await self._store.put_value_if(self._key, text, self._text)
        if not done:
            there = await self._store.get_value(self._key)
            now = Holding(**orjson.loads(there)) if there else None
            mine = now is not None and (now.owner, now.fence) == (self.owner, after.fence)
            done = mine and await self._store.put_value_if(self._key, text, there)
        if done:
            self._text, self.seen, self._silence = text, after, 0
        return done
