"""The base URLs by which the resources of this store were written: below each of them, a reference is to this server.

They are kept with the store, so that neither a reindex nor a move to another name changes what a reference leads to
(https://hl7.org/fhir/R4/references.html#literal). Each process remembers them and looks now and then whether another
one has learnt more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from fhir_server.fhir.outcome import Conflict, TooCostly
from fhir_server.store.protocol import Store, StoreError

MOST_BASES = 64
"""Base URLs of one store: whoever writes by ever new names does not fill it."""

LOOK_SECONDS = 1.0
"""Within this time a process knows a base URL by which another one has begun to write."""

_PREFIX = "base "


class KnownBases:
    """The base URLs of one store as this process knows them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.known: tuple[str, ...] = ()

    def include(self, base: str) -> tuple[str, ...]:
        """All names of this server: those that are known, and `base`, by which a request came ("" for none)."""
        return self.known if not base or base in self.known else _sort((base, *self.known))

    async def reload(self) -> None:
        """Read them from the store again."""
        page = await self._store.list_values(_PREFIX, limit=MOST_BASES)
        self.known = _sort(key.removeprefix(_PREFIX) for key, _ in page.values)

    async def follow(self) -> None:
        """Reload for as long as the server runs."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(StoreError):
                await self.reload()

    async def remember(self, base: str) -> None:
        """Keep a base URL before the first write by it. Raises TooCostly when there are too many, and StoreError."""
        if not base or base in self.known:
            return
        await self.reload()
        if base not in self.known:
            if len(self.known) >= MOST_BASES:
                raise TooCostly(
                    f"This store was written by {MOST_BASES} base URLs already, and `{base}` is another one; nothing "
                    "was written. Use one of them, or take one away with `fhir-server bases retire`."
                )
            await self._store.put_value_if(_PREFIX + base, b"{}", None)  # False: another process was faster
            await self.reload()

    async def retire(self, base: str) -> bool:
        """Forget a base URL; False if it was not known."""
        value = await self._store.get_value(_PREFIX + base)
        removed = value is not None and await self._store.remove_value_if(_PREFIX + base, value)
        await self.reload()
        return removed

    def require_one(self) -> None:
        """Raises Conflict when none is known: an earlier version wrote this store, and did not note by which names."""
        if not self.known:
            raise Conflict(
                "It is not known by which base URL the resources of this store were written, so a reindex could take "
                "its own absolute references for foreign ones. Name it first: "
                "`fhir-server bases add https://fhir.clinic.example/fhir`."
            )


def _sort(bases: Iterable[str]) -> tuple[str, ...]:
    """The longest first: one may be below another."""
    return tuple(sorted(bases, key=lambda base: (-len(base), base)))
