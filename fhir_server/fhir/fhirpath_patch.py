"""FHIRPath Patch of a resource: operations in a Parameters resource (https://hl7.org/fhir/R4/fhirpatch.html).

A patch that is wrong in itself (unknown operation, element or type) answers 400; one that does not fit this resource
(nothing at the path, several elements, an index outside the list) answers 422. The result is not validated here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fhir_server.fhir.definitions import Definitions, Property
from fhir_server.fhir.json_tree import Tree, copy_tree
from fhir_server.fhir.locate import Child, Node, Steps, Walk, find_choices, make_root, parse, select
from fhir_server.fhir.outcome import FhirError, Invalid, Unprocessable

# The name of each part and the keys its value may stand under.
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
    """What goes into an element: under which JSON key, its value, and a primitive's id and extensions."""

    key: str
    property: Property
    value: Tree
    sibling: Tree


@dataclass(frozen=True, slots=True)
class _Slot:
    """One JSON key of an object, and the `_key` array or object beside it."""

    holder: dict[str, Any]
    key: str

    def lists(self) -> tuple[list[Tree], list[Tree]]:
        """The arrays of values and of siblings, both put there and made equally long."""
        values = self.holder.setdefault(self.key, [])
        siblings = self.holder.setdefault(f"_{self.key}", [])
        if not isinstance(values, list) or not isinstance(siblings, list):
            raise Invalid(f"`{self.key}` must be a JSON array.", code="structure")
        length = max(len(values), len(siblings))
        values += [None] * (length - len(values))
        siblings += [None] * (length - len(siblings))
        return values, siblings

    def present(self) -> bool:
        return self.key in self.holder or f"_{self.key}" in self.holder


def apply(tree: Tree, parameters: Mapping[str, Any], definitions: Definitions) -> Tree:
    """A new tree with all operations of a Parameters resource applied in order; `tree` stays as it is.

    Raises Invalid (400), NotSupported (400) and Unprocessable (422), located as `Parameters.parameter[1]`.
    """
    if parameters.get("resourceType") != "Parameters" or not isinstance(parameters.get("parameter"), list):
        raise Invalid("A FHIRPath Patch is a Parameters resource with one `operation` parameter per change.")
    patched, walk = make_root(copy_tree(tree)), Walk(definitions)
    for index, parameter in enumerate(parameters["parameter"]):
        try:
            _run_operation(patched, parameter, walk)
        except FhirError as error:
            raise error.relocate(f"Parameters.parameter[{index}]") from None
    return _prune(patched.value)


def _run_operation(resource: Node, parameter: Any, walk: Walk) -> None:
    parts = _parse_parts(parameter)
    type = _get_scalar(parts, "type")
    if type not in _OPERATIONS:
        raise Invalid(f"`type` must be one of {', '.join(_OPERATIONS)}, not `{type}`.", code="value")
    function, needed = _OPERATIONS[type]
    if parts.keys() - {"type"} != set(needed):
        raise Invalid(f"The operation `{type}` has the parts {', '.join(needed)}, and no others.", code="required")
    arguments = [parts[name] if name == "value" else _get_scalar(parts, name) for name in needed[1:]]
    function(resource, parse(_get_scalar(parts, "path")), *arguments, walk)


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


def _select_one(resource: Node, steps: Steps, walk: Walk) -> Node:
    found = select(resource, steps, walk)
    if not found:
        raise Unprocessable("The path leads to no element of the resource.", code="not-found")
    return _require_one(found)


def _require_one(found: list[Node]) -> Node:
    if len(found) > 1:
        raise Unprocessable(f"The path leads to {len(found)} elements; it must name one.", code="multiple-matches")
    return found[0]


def _add(resource: Node, steps: Steps, name: str, value: Any, walk: Walk) -> None:
    parent = _select_one(resource, steps, walk)
    content = _parse_content(value, find_choices(parent.type, name, walk), walk)
    _put(_find_object(parent, walk), content, find_choices(parent.type, name, walk))


def _insert(resource: Node, steps: Steps, value: Any, index: int, walk: Walk) -> None:
    parent, found = _find_list(resource, steps, walk)
    content = _parse_content(value, found, walk)
    values, siblings = _Slot(_find_object(parent, walk), content.key).lists()
    if not 0 <= index <= len(values):
        raise Unprocessable(f"The index {index} is outside the list of {len(values)} elements.", code="value")
    values.insert(index, content.value)
    siblings.insert(index, content.sibling)


def _delete(resource: Node, steps: Steps, walk: Walk) -> None:
    found = select(resource, steps, walk)
    if not found:
        return
    node = _require_one(found)
    _require_property(node)
    if node.index is None:
        node.holder.pop(node.key, None)
        node.holder.pop(f"_{node.key}", None)
        return
    for items in _Slot(node.holder, node.key).lists():
        del items[node.index]


def _replace(resource: Node, steps: Steps, value: Any, walk: Walk) -> None:
    node = _select_one(resource, steps, walk)
    name = _require_property(node).element.name
    content = _parse_content(value, find_choices(node.owner, name, walk), walk)
    if node.index is not None:
        values, siblings = _Slot(node.holder, node.key).lists()
        values[node.index], siblings[node.index] = content.value, content.sibling
        return
    # Rebuilt in place so that another type of a choice (`valueString` for `valueQuantity`) keeps the position.
    members = dict(node.holder)
    node.holder.clear()
    for key, member in members.items():
        if key.removeprefix("_") != node.key:
            node.holder[key] = member
        elif not _Slot(node.holder, content.key).present():
            _set(node.holder, content)


def _move(resource: Node, steps: Steps, source: int, destination: int, walk: Walk) -> None:
    parent, found = _find_list(resource, steps, walk)
    lists = _Slot(_find_object(parent, walk), next(iter(found))).lists()
    for index in (source, destination):
        if not 0 <= index < len(lists[0]):
            raise Unprocessable(f"The index {index} is outside the list of {len(lists[0])} elements.", code="value")
    for items in lists:
        items.insert(destination, items.pop(source))


def _require_property(node: Node) -> Property:
    if node.definition is None:
        raise Unprocessable("The path names the whole resource; a patch changes elements in it.", code="not-supported")
    return node.definition


def _find_list(resource: Node, steps: Steps, walk: Walk) -> tuple[Node, Mapping[str, Property]]:
    """The parent and the JSON key of a repeating element; the list itself may be empty."""
    last = steps[-1] if steps else None
    if not isinstance(last, Child):
        raise Invalid("The path must name a list, such as `Patient.name`.", code="value")
    parent = _select_one(resource, steps[:-1], walk)
    found = find_choices(parent.type, last.name, walk)
    if not all(property.element.repeats for property in found.values()):
        raise Invalid(f"`{parent.type}.{last.name}` does not repeat: use add or replace.", code="structure")
    return parent, found


def _find_object(node: Node, walk: Walk) -> dict[str, Any]:
    """The JSON object that holds a node's children; a primitive's is made when it has none."""
    if node.type not in walk.primitives:
        made = node.value
    elif node.index is None:
        made = node.holder.setdefault(f"_{node.key}", {})
    else:
        siblings = _Slot(node.holder, node.key).lists()[1]
        made = siblings[node.index] = {} if siblings[node.index] is None else siblings[node.index]
    if not isinstance(made, dict):
        raise Invalid(f"`{node.key}` must be a JSON object.", code="structure")
    return made


def _put(holder: dict[str, Any], content: Content, found: Mapping[str, Property]) -> None:
    """Append to a list, or set what is not there yet (in any type of a choice)."""
    if content.property.element.repeats:
        values, siblings = _Slot(holder, content.key).lists()
        values.append(content.value)
        siblings.append(content.sibling)
        return
    for key in found:
        if _Slot(holder, key).present():
            raise Unprocessable(f"`{key}` is there already and does not repeat: use replace.", code="duplicate")
    _set(holder, content)


def _set(holder: dict[str, Any], content: Content) -> None:
    if content.value is not None:
        holder[content.key] = content.value
    if content.sibling is not None:
        holder[f"_{content.key}"] = content.sibling


def _parse_content(part: Mapping[str, Any], found: Mapping[str, Property], walk: Walk) -> Content:
    """The content that a part gives: `value[x]`, a `resource`, or nested parts, one for each child element."""
    for key, property in found.items():
        given = _find_value_key(property.type)
        if given in part or f"_{given}" in part:
            return Content(key, property, copy_tree(part.get(given)), copy_tree(part.get(f"_{given}")))
    key, property = next(iter(found.items()))
    if "part" in part and len(found) == 1 and property.type not in walk.primitives:
        return Content(key, property, _build_object(part, property.type, walk), None)
    expected = " or ".join(_find_value_key(property.type) for property in found.values())
    raise Invalid(
        f"The value of `{property.element.path}` must be given as {expected}"
        f"{'' if property.type in walk.primitives else ', or in parts where that is no parameter type'}.",
        code="structure",
    )


def _find_value_key(type: str) -> str:
    """Under which key a Parameters part holds a value of the type; xhtml, which Parameters lacks, comes as a string."""
    if type == "Resource":
        return "resource"
    return "valueString" if type == "xhtml" else f"value{type[0].upper()}{type[1:]}"


def _build_object(part: Mapping[str, Any], type: str, walk: Walk) -> dict[str, Any]:
    """An object of `type` made of nested parts, each named as a child element; equal names repeat."""
    made: dict[str, Any] = {}
    for child in _list_parts(part):
        found = find_choices(type, child["name"], walk)
        _put(made, _parse_content(child, found, walk), found)
    return made


def _prune(tree: Tree) -> Tree:
    """Without the empty objects, arrays and unused `_key` arrays that operations leave: FHIR knows no empty element."""
    if not isinstance(tree, dict):
        return tree
    kept: dict[str, Any] = {}
    for key, value in tree.items():
        pruned = _prune_items(tree, key, value) if isinstance(value, list) else _prune(value)
        if pruned not in ({}, []):
            kept[key] = pruned
    return kept


def _prune_items(tree: dict[str, Any], key: str, items: list[Tree]) -> list[Tree]:
    """The items that hold something themselves or in the `_key` (or `key`) array beside; [] for a `_key` of nulls."""
    beside = tree.get(key[1:] if key.startswith("_") else f"_{key}")
    others = beside if isinstance(beside, list) else []
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
