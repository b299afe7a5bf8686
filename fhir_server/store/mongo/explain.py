"""How a search was found: its aggregations, and what the database says of each (https://www.mongodb.com/docs/manual/reference/explain-results/)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from fhir_server.search.query import Query
from fhir_server.store.mongo.aggregation import Stage, translate_limits
from fhir_server.store.mongo.indexes import Database
from fhir_server.store.mongo.search import Search
from fhir_server.store.protocol import Budget

MOST_AGGREGATIONS = 10
MOST_CHARACTERS = 2_000
"""What of a pipeline a sentence shows at most; it says how long the rest is."""


async def explain(database: Database, query: Query, budget: Budget) -> tuple[str, ...]:
    """Runs the search once more, listening, then has the database explain each question that it was asked.

    Raises BudgetExceeded and the driver's errors.
    """
    asked: list[tuple[str, Sequence[Stage]]] = []
    search = Search(database, budget, listen=lambda type, pipeline: asked.append((type, pipeline)))
    started = time.perf_counter()
    page = await search.find_page(query)
    took = (time.perf_counter() - started) * 1000
    lines = []
    for type, pipeline in asked[:MOST_AGGREGATIONS]:
        command = {"aggregate": type, "pipeline": list(pipeline), "cursor": {}}
        with translate_limits(budget):
            told = await database.command(
                "explain",
                command,
                verbosity="executionStats",
                maxTimeMS=max(1, int(budget.seconds * 1000)),
                read_preference=database.read_preference,
            )
        lines.append(f"MongoDB: `{type}` is asked `{_format_pipeline(pipeline)}`: {_format_plans(told)}.")
    lines.append(
        f"The search asked {len(asked)} questions in {took:.2f} ms and found {len(page.matches)} on this page."
    )
    return tuple(lines)


def _format_pipeline(pipeline: Sequence[Stage]) -> str:
    text = json.dumps(pipeline, ensure_ascii=False)
    more = len(text) - MOST_CHARACTERS
    return f"{text[:MOST_CHARACTERS]}…` and {more} characters more, `…" if more > 0 else text


def _format_plans(answer: dict[str, Any]) -> str:
    """The stages of the winning plans from the outermost inwards, and what they took."""
    parts = []
    for each in _iterate_executions(answer):
        plan = each.get("queryPlanner", {}).get("winningPlan", {})
        said = " over ".join(_iterate_stages(plan)) or "a plan that the database does not tell"
        stats = each.get("executionStats")
        if stats:
            said += (
                f", {stats.get('totalKeysExamined', 0)} index keys and {stats.get('totalDocsExamined', 0)} documents"
                f" examined for {stats.get('nReturned', 0)} found in {stats.get('executionTimeMillis', 0)} ms"
            )
        parts.append(said)
    return "; ".join(parts) or "the database tells no plan"


def _iterate_executions(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What has a plan of its own: each shard, the cursor that feeds an aggregation, or the whole of it."""
    if "shards" in answer:
        for shard in answer["shards"].values():
            yield from _iterate_executions(shard)
    elif "stages" in answer:
        yield from (stage["$cursor"] for stage in answer["stages"] if "$cursor" in stage)
    elif "queryPlanner" in answer:
        yield answer


def _iterate_stages(plan: dict[str, Any]) -> Iterator[str]:
    inner = plan.get("queryPlan", plan)  # the slot-based engine wraps its plan
    if "stage" in inner:
        index = f" `{inner['indexName']}`" if "indexName" in inner else ""
        yield f"{inner['stage']}{index}"
    for below in (inner.get("inputStage"), *inner.get("inputStages", ())):
        if below:
            yield from _iterate_stages(below)
