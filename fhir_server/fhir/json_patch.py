"""JSON Patch of a resource (https://hl7.org/fhir/R4/http.html#patch, https://www.rfc-editor.org/rfc/rfc6902).

A patch that is not a JSON Patch document answers 400; one that is, but cannot be applied to this resource (a path
that is not there, a `test` that fails), answers 422, as https://www.rfc-editor.org/rfc/rfc5789#section-2.2 has it.
Written here and not taken from a library because numbers keep their text, because `test` must tell `1` from `true`,
and because each error names its operation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from fhir_server.fhir.json_tree import Tree, copy_tree, encode, normalize_value
from fhir_server.fhir.outcome import FhirError, Invalid, TooCostly, Unprocessable

Pointer = tuple[str, ...]
"""The reference tokens of a JSON Pointer, unescaped (RFC 6901); () is the whole document."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_ESCAPE = re.compile(r"~(?![01])")
_MISSING = object()
# A few lines of `copy` can double a resource again and again; what all of them copy together has this many bytes.
_SIZE_LIMIT = 16 * 1024 * 1024


def apply(tree: Tree, operations: Tree) -> Tree:
    """A new tree with all operations applied in order; `tree` stays as it is.

    Raises Invalid (400) for a malformed document and Unprocessable (422) for an operation that fails; the issue's
    expression is the operation's place, such as `[2].path`.
    """
    if not isinstance(operations, list):
        raise Invalid("A JSON Patch document is an array of operations.", code="structure")
    parsed = [_call_for_operation(index, _parse, operation) for index, operation in enumerate(operations)]
    result = copy_tree(tree)
    left = _SIZE_LIMIT
    for index, (operation, arguments) in enumerate(parsed):
        if operation is _copy:
            left -= _call_for_operation(index, _measure, result, arguments[0], left)
        result = _call_for_operation(index, operation, result, *arguments)
    return result


def _call_for_operation(index: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result; its error names the operation."""
    try:
        return function(*arguments)
    except RecursionError:
        raise Unprocessable("The patch nests the resource too deeply.", expression=[f"[{index}]"]) from None
    except FhirError as error:
        (issue,) = error.issues
        member = "".join(f".{path}" for path in issue.expression)
        problem = f"Operation [{index}] of the patch: {issue.diagnostics}"
        raise type(error)(problem, code=issue.code, expression=[f"[{index}]{member}"]) from None


def _parse(operation: Tree) -> tuple[Callable[..., Tree], tuple[Any, ...]]:
    """The function of an operation and its arguments after the tree."""
    if not isinstance(operation, Mapping):
        raise Invalid("Each operation of a JSON Patch is an object.", code="structure")
    name = operation.get("op")
    if not isinstance(name, str) or name not in _OPERATIONS:
        raise Invalid(f"`op` must be one of {', '.join(_OPERATIONS)}, not `{name}`.", code="value", expression=["op"])
    function, members = _OPERATIONS[name]
    for member in members:
        if member not in operation:
            raise Invalid(f"The operation `{name}` needs `{member}`.", code="required", expression=[member])
    return function, tuple(_MEMBERS[member](operation[member], member) for member in members)


def _parse_pointer(text: Tree, member: str) -> Pointer:
    if not isinstance(text, str) or (text and not text.startswith("/")) or _ESCAPE.search(text):
        problem = f"`{member}` must be a JSON Pointer such as `/name/0/given`, not `{text}`."
        raise Invalid(problem, code="value", expression=[member])
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in text.split("/")[1:])


def _pass_value(value: Tree, _: str) -> Tree:
    return value


def _write_pointer(pointer: Pointer) -> str:
    return "".join(f"/{token.replace('~', '~0').replace('/', '~1')}" for token in pointer)


def _make_error(pointer: Pointer, problem: str, member: str = "path") -> Unprocessable:
    return Unprocessable(f"`{_write_pointer(pointer)}` {problem}.", code="processing", expression=[member])


def _find_index(parent: list[Tree], pointer: Pointer, end: int) -> int:
    """The array index of the last token, below `end`; `-` is the one after the last element."""
    token = pointer[-1]
    if token == "-":
        index = len(parent)
    elif _INDEX.fullmatch(token):
        index = int(token)
    else:
        raise _make_error(pointer, f"goes into an array, where `{token}` is no index")
    if index >= end:
        raise _make_error(pointer, f"is outside the array of {len(parent)} elements")
    return index


def _find_child(parent: Tree, pointer: Pointer) -> Tree:
    """The element that the last token names in `parent`."""
    if isinstance(parent, list):
        return parent[_find_index(parent, pointer, len(parent))]
    found = parent.get(pointer[-1], _MISSING) if isinstance(parent, dict) else _MISSING
    if found is _MISSING:
        raise _make_error(pointer, "is not there")
    return found


def _find_value(tree: Tree, pointer: Pointer) -> Tree:
    for depth in range(1, len(pointer) + 1):
        tree = _find_child(tree, pointer[:depth])
    return tree


def _add(tree: Tree, pointer: Pointer, value: Tree) -> Tree:
    return _put(tree, pointer, copy_tree(value))


def _put(tree: Tree, pointer: Pointer, value: Tree) -> Tree:
    if not pointer:
        return value
    parent = _find_value(tree, pointer[:-1])
    if isinstance(parent, list):
        parent.insert(_find_index(parent, pointer, len(parent) + 1), value)
    elif isinstance(parent, dict):
        parent[pointer[-1]] = value
    else:
        raise _make_error(pointer, "cannot be added: its parent is neither an object nor an array")
    return tree


def _remove(tree: Tree, pointer: Pointer) -> Tree:
    if not pointer:
        raise Unprocessable("A patch cannot remove the whole resource: use DELETE.", expression=["path"])
    parent = _find_value(tree, pointer[:-1])
    _find_child(parent, pointer)
    if isinstance(parent, list):
        del parent[int(pointer[-1])]
    else:
        del parent[pointer[-1]]
    return tree


def _replace(tree: Tree, pointer: Pointer, value: Tree) -> Tree:
    value = copy_tree(value)
    if not pointer:
        return value
    parent = _find_value(tree, pointer[:-1])
    _find_child(parent, pointer)
    parent[int(pointer[-1]) if isinstance(parent, list) else pointer[-1]] = value
    return tree


def _move(tree: Tree, source: Pointer, pointer: Pointer) -> Tree:
    moved = _find_value(tree, source)
    if source == pointer:
        return tree
    if pointer[: len(source)] == source:
        raise _make_error(source, f"cannot be moved into itself, to `{_write_pointer(pointer)}`", "from")
    return _put(_remove(tree, source), pointer, moved)


def _copy(tree: Tree, source: Pointer, pointer: Pointer) -> Tree:
    return _add(tree, pointer, _find_value(tree, source))


def _measure(tree: Tree, source: Pointer, left: int) -> int:
    """The bytes of what is to be copied. Raises TooCostly when they are more than are left."""
    size = len(encode(_find_value(tree, source)))
    if size > left:
        raise TooCostly(
            f"The patch copies more than {_SIZE_LIMIT} bytes, the most that one may copy.", expression=["from"]
        )
    return size


def _test(tree: Tree, pointer: Pointer, value: Tree) -> Tree:
    if not _are_equal(_find_value(tree, pointer), value):
        raise _make_error(pointer, "does not have the value that `test` expects")
    return tree


def _are_equal(left: Tree, right: Tree) -> bool:
    """Equality as RFC 6902 section 4.6 defines it for `test`: numbers by value, so that `185` finds `185.0`."""
    if isinstance(left, dict):
        if not isinstance(right, dict) or left.keys() != right.keys():
            return False
        return all(_are_equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(_are_equal, left, right))
    return normalize_value(left) == normalize_value(right)


# Each operation's function and the members that become its arguments.
_OPERATIONS: dict[str, tuple[Callable[..., Tree], tuple[str, ...]]] = {
    "add": (_add, ("path", "value")),
    "remove": (_remove, ("path",)),
    "replace": (_replace, ("path", "value")),
    "move": (_move, ("from", "path")),
    "copy": (_copy, ("from", "path")),
    "test": (_test, ("path", "value")),
}
_MEMBERS: dict[str, Callable[[Tree, str], Any]] = {"path": _parse_pointer, "from": _parse_pointer, "value": _pass_value}
