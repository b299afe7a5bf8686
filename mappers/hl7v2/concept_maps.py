"""A ConceptMap as translations of a partner's codes (https://hl7.org/fhir/R4/conceptmap.html)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mappers.hl7v2.partner import Target

TRANSLATING = frozenset({"equivalent", "equal", "relatedto", "wider", "subsumes", "narrower", "specializes", "inexact"})
"""The equivalences under which a target stands for the code; `unmatched` and `disjoint` say that it does not."""


def read_concept_map(resource: Mapping[str, Any]) -> dict[str, Target]:
    """By code of the source its first target that translates it; the first group that has the code wins."""
    targets: dict[str, Target] = {}
    for group in resource.get("group", ()):
        for element in group.get("element", ()):
            found = [each for each in element.get("target", ()) if each.get("equivalence") in TRANSLATING]
            code = next((each["code"] for each in found if each.get("code")), "")
            if element.get("code") and code:
                display = next(each.get("display", "") for each in found if each.get("code") == code)
                targets.setdefault(element["code"], Target(code, group.get("target", ""), display))
    return targets
