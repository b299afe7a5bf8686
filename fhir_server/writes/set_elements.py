"""Elements that a rule sets in a planned write; every other byte stays as the client wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_server.fhir.json_tree import encode
from fhir_server.fhir.resource import join_members, parse, split_at_version, split_members
from fhir_server.requests.context import Context
from fhir_server.store.operations import Content
from fhir_server.store.protocol import Stored
from fhir_server.writes.identity import build_stored_tree
from fhir_server.writes.plan import Plan, is_unchanged


def set_elements(
    context: Context, draft: Plan, number: int, elements: Mapping[str, Any], current: Stored | None
) -> None:
    """Set top-level elements of a planned write (None: take out); every other byte stays as the client wrote it."""
    target, position = draft.steps[number]
    assert isinstance(position, int) and draft.pending is not None
    write = draft.writes[position]
    assert write.content is not None
    parts: dict[str, Any] = dict(split_members(write.content.build_text(1, 0)))
    parts |= {name: encode(value) for name, value in elements.items()}
    text = parse(join_members({name: part for name, part in parts.items() if elements.get(name, part) is not None}))
    tree = build_stored_tree(text.tree, target.id)
    head, tail = split_at_version(text, write.type, write.id)
    if current is not None and is_unchanged(current, head, tail):
        draft.pending.put(target.reference, tree)
        _drop_write(draft, number, position, current)
        return
    entries = context.index.make_entries(write.type, tree, draft.caller.base)
    for reference in set(write.entries.references) - set(entries.references):
        if reference in draft.required and draft.required[reference][0] is target:
            del draft.required[reference]
    draft.pending.put(target.reference, tree, entries)
    draft.writes[position] = write._replace(content=Content(head, tail), entries=entries)


def _drop_write(draft: Plan, number: int, position: int, current: Stored) -> None:
    """Answer a step with the stored version instead of writing it again."""
    target = draft.steps[number][0]
    del draft.writes[position]
    draft.steps = [
        (each, step - 1 if isinstance(step, int) and step > position else step) for each, step in draft.steps
    ]
    draft.steps[number] = (target, current)
