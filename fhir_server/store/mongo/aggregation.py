"""The aggregations of a search, which all stay within what one search may take (https://www.mongodb.com/docs/manual/reference/command/aggregate/)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DocumentTooLarge, ExecutionTimeout

from fhir_server.search.query import Clause, Scope
from fhir_server.store.mongo.compile import compile_current
from fhir_server.store.mongo.indexes import Database, Document
from fhir_server.store.mongo.plans import MOST_COUNTED, Counts
from fhir_server.store.protocol import Budget, BudgetExceeded

Filter = dict[str, Any]
Stage = Mapping[str, Any]
Listen = Callable[[str, Sequence[Stage]], None]
"""Takes (type, pipeline) of each aggregation before it runs."""

FEW = 3
"""Types, each asked by itself; of more, those of which nothing was ever stored are left out."""


def ignore_pipeline(type: str, pipeline: Sequence[Stage]) -> None:
    """The Listen of a search that is not explained."""


@dataclass(frozen=True, slots=True)
class Aggregations:
    """The aggregations of one search: where, in which open transaction, and until when (`time.monotonic`)."""

    database: Database
    session: AsyncClientSession | None
    budget: Budget
    deadline: float
    listen: Listen = ignore_pipeline
    counts: Counts = field(default_factory=Counts)
    types: set[str] = field(default_factory=set)
    """The types of which something was ever stored, once it was asked."""

    def compute_remaining_ms(self) -> int:
        """The time left for the search. Raises BudgetExceeded when there is none."""
        left = int((self.deadline - time.monotonic()) * 1000)
        if left <= 0:
            raise self.budget.build_time_error()
        return left

    @asynccontextmanager
    async def open_cursor(self, type: str, pipeline: Sequence[Stage]) -> AsyncIterator[AsyncIterator[Document]]:
        """The documents of an aggregation; it may not use the disk of the database."""
        self.listen(type, pipeline)
        async with await self.database[type].aggregate(
            pipeline, session=self.session, maxTimeMS=self.compute_remaining_ms(), allowDiskUse=False
        ) as cursor:
            yield cursor

    async def find_all(self, type: str, pipeline: Sequence[Stage], most: int | None = None) -> list[Document]:
        """All documents of an aggregation; those after texts of more than `most` bytes lose their own."""
        found: list[Document] = []
        size = 0
        async with self.open_cursor(type, pipeline) as cursor:
            async for document in cursor:
                if most is not None and size > most:
                    document["raw"] = None
                size += len(document.get("raw") or b"")
                found.append(document)
        return found

    async def count_matches(self, type: str, clause: Clause) -> int:
        """How many resources of a type a criterion finds, or found a while ago; MOST_COUNTED for more."""

        async def ask() -> int:
            stages: list[Stage] = [{"$match": compile_current(clause)}, {"$limit": MOST_COUNTED}, {"$count": "found"}]
            answer = await self.find_all(type, stages)
            return int(answer[0]["found"]) if answer else 0

        return await self.counts.get(type, clause, ask)

    async def has_type(self, type: str) -> bool:
        """Whether something of a type was ever stored; not asked in a transaction, which may list no collections."""
        if self.session is not None:
            return True
        if not self.types:
            self.compute_remaining_ms()
            self.types.update(await self.database.list_collection_names())
        return type in self.types

    async def list_stored(self, scopes: Sequence[Scope]) -> list[Scope]:
        """The scopes in the order of their types; of more than FEW those of types of which something was ever stored.

        R4 has 148 types, and a question takes its time also where the answer is nothing.
        """
        stored = [scope for scope in scopes if len(scopes) <= FEW or await self.has_type(scope.type)]
        return sorted(stored, key=lambda scope: scope.type)

    async def check_rows(self, type: str, where: Filter) -> None:
        """Raises BudgetExceeded when more resources match than a search may look at.

        A type that holds no more is not asked: the database knows how many there are, deletions included.
        """
        rows = self.budget.rows
        # Outside the transaction, which may not ask it.
        if await self.database[type].estimated_document_count(maxTimeMS=self.compute_remaining_ms()) <= rows:
            return
        one_more: list[Stage] = [{"$match": where}, {"$skip": rows}, {"$limit": 1}, {"$project": {"_id": 1}}]
        if await self.find_all(type, one_more):
            raise self.budget.build_rows_error()


@contextmanager
def translate_limits(budget: Budget) -> Iterator[None]:
    """Raises BudgetExceeded for an aggregation that the database stopped, or that is larger than a document may be."""
    try:
        yield
    except ExecutionTimeout as error:
        raise budget.build_time_error() from error
    except DocumentTooLarge as error:
        raise BudgetExceeded(
            "The criteria name more values or resources than the database takes in one question. Ask for less at once."
        ) from error
