"""The value sets and code systems that R4 itself publishes (https://hl7.org/fhir/R4/terminologies.html).

They are read from `tables/terminology/r4.json`, which `scripts/generate_terminology.py` writes from the
official package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson

from fhir_server.fhir.definitions import TABLES

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PublishedTerminology:
    """ValueSets and CodeSystems by canonical URL, without texts, and the systems that coded elements imply.

    `implied`: path of an element of type code (`Patient.gender`), or `boolean` → the systems its codes are from.
    """

    value_sets: Mapping[str, Json]
    code_systems: Mapping[str, Json]
    implied: Mapping[str, tuple[str, ...]]


@cache
def load_published_terminology() -> PublishedTerminology:
    """Read the table on first use (about 20 ms), since most processes never need it; the result is never changed."""
    table = orjson.loads((TABLES / "terminology" / "r4.json").read_bytes())
    return PublishedTerminology(
        {row["url"]: row for row in table["valueSets"]},
        {row["url"]: row for row in table["codeSystems"]},
        {path: tuple(systems) for path, systems in table["implied"].items()},
    )
