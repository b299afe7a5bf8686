"""Matches in the order of their score: the words of all are read and scored here (https://hl7.org/fhir/R4/search.html#sort)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cmp_to_key, partial

from fhir_server.search.match import compare_keys
from fhir_server.search.query import Query, SortKey
from fhir_server.search.words import MAX_SCORED, describe_too_many_scored, score
from fhir_server.store.mongo import order
from fhir_server.store.mongo.aggregation import Stage
from fhir_server.store.mongo.compile import Filter
from fhir_server.store.mongo.indexes import Document
from fhir_server.store.mongo.sortkeys import FIELD
from fhir_server.store.protocol import BudgetExceeded


def build_pipeline(where: Filter, keys: Sequence[order.Key]) -> list[Stage]:
    """The aggregation that reads what the matches are ordered by, one more than can be ordered."""
    computed = {key.field: key.expression for key in keys if key.expression}
    return [
        {"$match": where},
        {"$limit": MAX_SCORED + 1},
        {"$project": {"updated": 1, "texts": 1, FIELD: 1} | computed},
    ]


def score_page(found: Sequence[Document], query: Query, type: str, limit: int) -> dict[str, SortKey]:
    """The ids of the first `limit` matches after the query's position, in order, with their positions.

    Raises BudgetExceeded for more matches than can be ordered.
    """
    if len(found) > MAX_SCORED:
        raise BudgetExceeded(describe_too_many_scored(type))
    keys = order.build_keys(query.sort, type)
    words = next(key.words for key in query.sort if key.kind == "score")
    positions: list[SortKey] = []
    for document in found:
        document[order.SCORE] = score(words, document.get("texts", {}))
        positions.append((*(key.read_value(document) for key in keys), f"{type}/{document['_id']}"))
    if query.after is not None:
        after = query.after
        positions = [each for each in positions if compare_keys(query.sort, each, after) > 0]
    positions.sort(key=cmp_to_key(partial(compare_keys, query.sort)))
    return {str(each[-1]).partition("/")[2]: each for each in positions[:limit]}
