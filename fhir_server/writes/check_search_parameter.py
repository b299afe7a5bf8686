"""A SearchParameter that is written, checked before it can be in force (https://hl7.org/fhir/R4/searchparameter.html)."""

from __future__ import annotations

import re
from typing import Any

from fhir_server.fhir.outcome import TooCostly, Unprocessable
from fhir_server.requests.context import Context
from fhir_server.search.custom import ACTIVE

_BRANCHING = re.compile(r"\||\b(?:and|or)\b")
# So many types may have each branch of a SearchParameter's expression; R4 itself has 33 types with 33 branches.
_TYPES_SHARING = 35


def check_search_parameter(context: Context, tree: dict[str, Any], written: dict[str, dict[str, Any] | None]) -> None:
    """Refuse a SearchParameter that would be in force, but cannot be applied, or only at too great a cost."""
    branches = len(_BRANCHING.findall(tree.get("expression", ""))) + 1
    types = len(context.registry.types) if "Resource" in tree["base"] else len(tree["base"])
    most = context.settings.max_search_parameter_branches
    if tree["status"] == ACTIVE and max(branches, branches * types // _TYPES_SHARING) > most:
        raise TooCostly(
            f"The expression has {branches:,} branches and conditions for {types:,} resource types; {most:,} are "
            f"possible (setting `max_search_parameter_branches`), fewer for more than {_TYPES_SHARING} types.",
            expression=("SearchParameter.expression",),
        )
    issues = context.parameters.find_faults(tree, written)
    if issues:
        raise Unprocessable(issues=issues)
    written[tree["id"]] = tree
