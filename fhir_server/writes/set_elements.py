"""Elements that a rule sets in a planned write; every other byte stays as the client wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_server.fhir.json_tree import encode
from fhir_server.fhir.resource import Text, join_members, parse, split_at_version, split_members
from fhir_server.requests.context import Context
from fhir_server.store.operations import Content, Write
from fhir_server.store.protocol import Stored
from fhir_server.writes.identity import build_stored_tree
from fhir_server.writes.pending_writes import Tree
from fhir_server.writes.plan import Plan, is_unchanged, require_targets

_SET_FIRST = frozenset(("resourceType", "id", "meta"))


def set_elements(
    context: Context, draft: Plan, number: int, elements: Mapping[str, Any], current: Stored | None
) -> None:
    """Set top-level elements of a planned write (None: take out); every other byte stays as the client wrote it."""
    target, position = draft.steps[number]
    assert isinstance(position, int) and draft.pending is not None
    write = draft.writes[position]
    assert write.content is not None
    tree, content = _set(write, draft.pending.get(target.reference) or {}, elements)
    received = draft.late.pop(number, None) if draft.late else None
    if current is not None and is_unchanged(current, content.head, content.tail):
        draft.pending.put(target.reference, tree)
        _drop_write(draft, number, position, current)
        return
    entries = context.index.make_entries(write.type, tree, draft.caller.base)
    draft.pending.put(target.reference, tree, entries)
    draft.writes[position] = write._replace(content=content, entries=entries)
    if received is not None:
        require_targets(context, draft, target, received, entries)
        received.forget_tree()
        return
    for reference in set(write.entries.references) - set(entries.references):
        if reference in draft.required and draft.required[reference][0] is target:
            del draft.required[reference]


def _set(write: Write, tree: Tree, elements: Mapping[str, Any]) -> tuple[dict[str, Any], Content]:
    """The tree and the text with the elements."""
    assert write.content is not None
    head, tail = write.content
    if all(value is not None and name not in tree and name not in _SET_FIRST for name, value in elements.items()):
        added = b"".join([b',"%b":%b' % (name.encode(), encode(value)) for name, value in elements.items()])
        return {**tree, **elements}, Content(head, tail[: tail.rindex(b"}")] + added + b"}")
    parts: dict[str, Any] = dict(split_members(write.content.build_text(1, 0)))
    parts |= {name: encode(value) for name, value in elements.items()}
    text: Text = parse(join_members({n: part for n, part in parts.items() if elements.get(n, part) is not None}))
    return build_stored_tree(text.tree, write.id), Content(*split_at_version(text, write.type, write.id))


def _drop_write(draft: Plan, number: int, position: int, current: Stored) -> None:
    """Answer a step with the stored version instead of writing it again."""
    target = draft.steps[number][0]
    del draft.writes[position]
    draft.steps = [
        (each, step - 1 if isinstance(step, int) and step > position else step) for each, step in draft.steps
    ]
    draft.steps[number] = (target, current)
