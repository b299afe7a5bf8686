"""FHIRPath Patch of a resource: operations in a Parameters resource (https://hl7.org/fhir/R4/fhirpatch.html).

A wrong patch (unknown operation, element or type) answers 400; one that does not fit this resource (nothing at the
path, several elements, an index outside the list) answers 422. The result is not validated here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fhir_server.fhir.definitions import Definitions, Property
from fhir_server.fhir.json_tree import Tree, copy_tree
from fhir_server.fhir.locate import Child, Node, Steps, find_choices, make_root, parse, select
from fhir_server.fhir.outcome import FhirError, Invalid, Unprocessable

# Name of a part → the keys that its value may have.
_PARTS = {
    "type": ("valueCode", "valueString"),
    "path": ("valueString",),
    "name": ("valueString",),
    "index": ("valueInteger",),
    "source": ("valueInteger",),
    "destination": ("valueInteger",),
}
_TEXTS = frozenset({"type", "path", "name"})


@dataclass(frozen=True, slots=True)
class Content:
    """New content of an element: its JSON key, its value, and a primitive's id and extensions."""

    key: str
    property: Property
    value: Tree
    sibling: Tree


@dataclass(frozen=True, slots=True)
class _Slot:
    """One JSON key of an object, and the `_key` array or object beside it."""

    holder: dict[str, Any]
    key: str

    def pad_lists(self) -> tuple[list[Tree], list[Tree]]:
        """The arrays of values and of siblings, created where absent and padded to equal length."""
        values = self.holder.setdefault(self.key, [])
        siblings = self.holder.setdefault(f"_{self.key}", [])
        if not isinstance(values, list) or not isinstance(siblings, list):
            raise Invalid(f"`{self.key}` must be a JSON array.", code="structure")
        length = max(len(values), len(siblings))
        values += [None] * (length - len(values))
        siblings += [None] * (length - len(siblings))
        return values, siblings

    def is_present(self) -> bool:
        """Whether the element has a value or a sibling."""
        return self.key in self.holder or f"_{self.key}" in self.holder


def apply(tree: Tree, parameters: Mapping[str, Any], definitions: Definitions) -> Tree:
    """A new tree with all operations of a Parameters resource applied in order; `tree` stays as it is.

    Raises Invalid (400), NotSupported (400) and Unprocessable (422), located as `Parameters.parameter[1]`.
    """
    if parameters.get("resourceType") != "Parameters" or not isinstance(parameters.get("parameter"), list):
        raise Invalid("A FHIRPath Patch is a Parameters resource with one `operation` parameter per change.")
    patched = make_root(copy_tree(tree))
    for index, parameter in enumerate(parameters["parameter"]):
        try:
            _run_operation(patched, parameter, definitions)
        except FhirError as error:
            raise error.relocate(f"Parameters.parameter[{index}]") from None
    return _prune(patched.value)


def _run_operation(resource: Node, parameter: Any, definitions: Definitions) -> None:
    parts = _parse_parts(parameter)
    type = _get_scalar(parts, "type")
    if type not in _OPERATIONS:
        raise Invalid(f"`type` must be one of {', '.join(_OPERATIONS)}, not `{type}`.", code="value")
    function, names = _OPERATIONS[type]
    if parts.keys() - {"type"} != set(names):
        raise Invalid(f"The operation `{type}` has the parts {', '.join(names)}, and no others.", code="required")
    arguments = [parts[name] if name == "value" else _get_scalar(parts, name) for name in names[1:]]
    function(resource, parse(_get_scalar(parts, "path")), *arguments, definitions)


def _parse_parts(parameter: Any) -> dict[str, Any]:
    """The parts of one operation by name."""
    if not isinstance(parameter, dict) or parameter.get("name") != "operation":
        raise Invalid("Each parameter of a FHIRPath Patch is named `operation` and has parts.", code="structure")
    parts: dict[str, Any] = {}
    for part in _list_parts(parameter):
        if part["name"] in parts:
            raise Invalid(f"The operation has the part `{part['name']}` twice.", code="structure")
        parts[part["name"]] = part
    return parts


def _list_parts(parameter: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = parameter.get("part")
    if not isinstance(parts, list) or not all(isinstance(p, dict) and isinstance(p.get("name"), str) for p in parts):
        raise Invalid(f"`{parameter.get('name')}` needs `part`, each with a name.", code="structure")
    return parts


def _get_scalar(parts: Mapping[str, Any], name: str) -> Any:
    """The text or integer of a part."""
    part, keys = parts.get(name, {}), _PARTS[name]
    value = next((part[key] for key in keys if key in part), None)
    if type(value) is not (str if name in _TEXTS else int):
        raise Invalid(f"The operation needs the part `{name}` with a {keys[0]}.", code="required")
    return value


def _select_one(resource: Node, steps: Steps, definitions: Definitions) -> Node:
    nodes = select(resource, steps, definitions)
    if not nodes:
        raise Unprocessable("The path leads to no element of the resource.", code="not-found")
    return _require_one(nodes)


def _require_one(nodes: list[Node]) -> Node:
    if len(nodes) > 1:
        raise Unprocessable(f"The path leads to {len(nodes)} elements; it must name one.", code="multiple-matches")
    return nodes[0]


def _add(resource: Node, steps: Steps, name: str, value: Any, definitions: Definitions) -> None:
    parent = _select_one(resource, steps, definitions)
    choices = find_choices(parent.type, name, definitions)
    content = _parse_content(value, choices, definitions)
    _put(_find_object(parent, definitions), content, choices)


def _insert(resource: Node, steps: Steps, value: Any, index: int, definitions: Definitions) -> None:
    parent, choices = _find_list(resource, steps, definitions)
    content = _parse_content(value, choices, definitions)
    values, siblings = _Slot(_find_object(parent, definitions), content.key).pad_lists()
    _check_index(index, len(values) + 1, values)
    values.insert(index, content.value)
    siblings.insert(index, content.sibling)


def _delete(resource: Node, steps: Steps, definitions: Definitions) -> None:
    nodes = select(resource, steps, definitions)
    if not nodes:
        return
    node = _require_one(nodes)
    _require_property(node)
    if node.index is None:
        node.holder.pop(node.key, None)
        node.holder.pop(f"_{node.key}", None)
        return
    for items in _Slot(node.holder, node.key).pad_lists():
        del items[node.index]


def _replace(resource: Node, steps: Steps, value: Any, definitions: Definitions) -> None:
    node = _select_one(resource, steps, definitions)
    name = _require_property(node).element.name
    content = _parse_content(value, find_choices(node.owner, name, definitions), definitions)
    if node.index is not None:
        values, siblings = _Slot(node.holder, node.key).pad_lists()
        values[node.index], siblings[node.index] = content.value, content.sibling
        return
    # All members are set again: another type of a choice (`valueString` for `valueQuantity`) keeps the position.
    members = dict(node.holder)
    node.holder.clear()
    for key, member in members.items():
        if key.removeprefix("_") != node.key:
            node.holder[key] = member
        elif not _Slot(node.holder, content.key).is_present():
            _set(node.holder, content)


def _move(resource: Node, steps: Steps, source: int, destination: int, definitions: Definitions) -> None:
    parent, choices = _find_list(resource, steps, definitions)
    lists = _Slot(_find_object(parent, definitions), next(iter(choices))).pad_lists()
    for index in (source, destination):
        _check_index(index, len(lists[0]), lists[0])
    for items in lists:
        items.insert(destination, items.pop(source))


def _check_index(index: int, end: int, values: list[Tree]) -> None:
    if not 0 <= index < end:
        raise Unprocessable(f"The index {index} is outside the list of {len(values)} elements.", code="value")


def _require_property(node: Node) -> Property:
    if node.definition is None:
        raise Unprocessable("The path names the whole resource; a patch changes elements in it.", code="not-supported")
    return node.definition


def _find_list(resource: Node, steps: Steps, definitions: Definitions) -> tuple[Node, Mapping[str, Property]]:
    """The parent and the JSON keys of a repeating element, which may be absent."""
    last = steps[-1] if steps else None
    if not isinstance(last, Child):
        raise Invalid("The path must name a list, such as `Patient.name`.", code="value")
    parent = _select_one(resource, steps[:-1], definitions)
    choices = find_choices(parent.type, last.name, definitions)
    if not all(property.element.repeats for property in choices.values()):
        raise Invalid(f"`{parent.type}.{last.name}` does not repeat: use add or replace.", code="structure")
    return parent, choices


def _find_object(node: Node, definitions: Definitions) -> dict[str, Any]:
    """The JSON object that holds a node's children; that of a primitive is created when absent."""
    if node.type not in definitions.primitives:
        holder = node.value
    elif node.index is None:
        holder = node.holder.setdefault(f"_{node.key}", {})
    else:
        siblings = _Slot(node.holder, node.key).pad_lists()[1]
        holder = siblings[node.index] = {} if siblings[node.index] is None else siblings[node.index]
    if not isinstance(holder, dict):
        raise Invalid(f"`{node.key}` must be a JSON object.", code="structure")
    return holder


def _put(holder: dict[str, Any], content: Content, choices: Mapping[str, Property]) -> None:
    """Append to a list, or set an element that is absent (in every type of a choice)."""
    if content.property.element.repeats:
        values, siblings = _Slot(holder, content.key).pad_lists()
        values.append(content.value)
        siblings.append(content.sibling)
        return
    for key in choices:
        if _Slot(holder, key).is_present():
            raise Unprocessable(f"`{key}` is there already and does not repeat: use replace.", code="duplicate")
    _set(holder, content)


def _set(holder: dict[str, Any], content: Content) -> None:
    if content.value is not None:
        holder[content.key] = content.value
    if content.sibling is not None:
        holder[f"_{content.key}"] = content.sibling


def _parse_content(part: Mapping[str, Any], choices: Mapping[str, Property], definitions: Definitions) -> Content:
    """The content of a part: `value[x]`, a `resource`, or nested parts, one for each child element."""
    for key, property in choices.items():
        name = _find_value_key(property.type)
        if name in part or f"_{name}" in part:
            return Content(key, property, copy_tree(part.get(name)), copy_tree(part.get(f"_{name}")))
    key, property = next(iter(choices.items()))
    if "part" in part and len(choices) == 1 and property.type not in definitions.primitives:
        return Content(key, property, _build_object(part, property.type, definitions), None)
    expected = " or ".join(_find_value_key(property.type) for property in choices.values())
    raise Invalid(
        f"The value of `{property.element.path}` must be given as {expected}"
        f"{'' if property.type in definitions.primitives else ', or in parts where that is no parameter type'}.",
        code="structure",
    )


def _find_value_key(type: str) -> str:
    """The key of a value of the type in a Parameters part; xhtml, which Parameters lacks, is a string there."""
    if type == "Resource":
        return "resource"
    return "valueString" if type == "xhtml" else f"value{type[0].upper()}{type[1:]}"


def _build_object(part: Mapping[str, Any], type: str, definitions: Definitions) -> dict[str, Any]:
    """An object of `type` from nested parts, each named as a child element; equal names repeat."""
    members: dict[str, Any] = {}
    for child in _list_parts(part):
        choices = find_choices(type, child["name"], definitions)
        _put(members, _parse_content(child, choices, definitions), choices)
    return members


def _prune(tree: Tree) -> Tree:
    """The tree without the empty objects and arrays that operations leave: FHIR has no empty elements."""
    if not isinstance(tree, dict):
        return tree
    members: dict[str, Any] = {}
    for key, value in tree.items():
        pruned = _prune_items(tree, key, value) if isinstance(value, list) else _prune(value)
        if pruned not in ({}, []):
            members[key] = pruned
    return members


def _prune_items(tree: dict[str, Any], key: str, items: list[Tree]) -> list[Tree]:
    """The items that are not empty here or in the sibling array (`_key` or `key`); [] for a `_key` array of nulls."""
    sibling = tree.get(key[1:] if key.startswith("_") else f"_{key}")
    others = sibling if isinstance(sibling, list) else []
    pruned = [None if item == {} else item for item in map(_prune, items)]
    if key.startswith("_") and all(item is None for item in pruned):
        return []
    return [
        item
        for index, item in enumerate(pruned)
        if item is not None or (index < len(others) and _prune(others[index]) not in (None, {}))
    ]


# Each operation's function and its parts besides `type`.
_OPERATIONS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "add": (_add, ("path", "name", "value")),
    "insert": (_insert, ("path", "value", "index")),
    "delete": (_delete, ("path",)),
    "replace": (_replace, ("path", "value")),
    "move": (_move, ("path", "source", "destination")),
}
