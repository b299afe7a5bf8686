"""Criteria of conditional interactions that name another entry of the bundle by its `urn:uuid:` or `urn:oid:`.

They are resolved after the entries that they name, as references are (https://hl7.org/fhir/R4/http.html#trules).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from fhir_server.fhir.outcome import Invalid
from fhir_server.requests.context import Context
from fhir_server.requests.request import Pairs
from fhir_server.search.escapes import split
from fhir_server.writes.action import Action

MOST_ROUNDS = 20
"""How many entries may stand in a row, each named by the criteria of the next."""

_is_urn = re.compile(r"urn:(?:uuid|oid):.+", re.IGNORECASE).fullmatch


def split_linked(context: Context, actions: Iterable[Action]) -> tuple[list[Action], list[Action]]:
    """Those whose criteria can be read at once, and those whose criteria name other entries."""
    plain: list[Action] = []
    linked: list[Action] = []
    for action in actions:
        (linked if any(_list_links(context, action)) else plain).append(action)
    return plain, linked


def split_ready(
    context: Context, linked: Sequence[Action], references: Mapping[str, str]
) -> tuple[list[Action], list[Action]]:
    """Those whose links all lead to a resolved entry (full URL → `Type/id`), and those that wait for others.

    Raises Invalid where none is ready.
    """
    ready = [action for action in linked if all(link in references for link in _list_links(context, action))]
    if not ready:
        action = linked[0]
        link = next(link for link in _list_links(context, action) if link not in references)
        raise Invalid(
            f"The criteria name `{link}`, which is no entry of this bundle with a resource, or one that waits for this "
            "entry; correct them, or add the entry.",
            code="value",
            expression=(action.where,) if action.where else (),
        )
    chosen = set(map(id, ready))
    return ready, [action for action in linked if id(action) not in chosen]


def replace_links(context: Context, action: Action, references: Mapping[str, str]) -> Action:
    """The action with each link in its criteria replaced by the reference of the entry."""
    assert action.criteria is not None
    pairs: Pairs = tuple(
        (name, ",".join(references.get(each, each) for each in split(value, ",")))
        if _is_reference(context, action.type, name)
        else (name, value)
        for name, value in action.criteria
    )
    return action._replace(criteria=pairs)


def _list_links(context: Context, action: Action) -> list[str]:
    return [
        each
        for name, value in action.criteria or ()
        if "urn:" in value.lower() and _is_reference(context, action.type, name)
        for each in split(value, ",")
        if _is_urn(each)
    ]


def _is_reference(context: Context, type: str, name: str) -> bool:
    """Whether a criterion asks for a reference itself; a chain ends in something else."""
    parameter = context.registry.parameters(type).get(name.partition(":")[0]) if "." not in name else None
    return parameter is not None and parameter.type == "reference" and not name.endswith(":identifier")
