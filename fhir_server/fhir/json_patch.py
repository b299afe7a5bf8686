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

from fhir_server.fhir.json_tree import Tree, by_value, copied, encode
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
    parsed = [_located(index, _parse, operation) for index, operation in enumerate(operations)]
    result = copied(tree)
    left = _SIZE_LIMIT
    for index, (operation, arguments) in enumerate(parsed):
        if operation is _copy:
            left -= _located(index, _measure, result, arguments[0], left)
        result = _located(index, operation, result, *arguments)
    return result


def _located(index: int, function: Callable[..., Any], *arguments: Any) -> Any:
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


def _pointer(text: Tree, member: str) -> Pointer:
    if not isinstance(text, str) or (text and not text.startswith("/")) or _ESCAPE.search(text):
        problem = f"`{member}` must be a JSON Pointer such as `/name/0/given`, not `{text}`."
        raise Invalid(problem, code="value", expression=[member])
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in text.split("/")[1:])


def _value(value: Tree, _: str) -> Tree:
    return value


def _written(pointer: Pointer) -> str:
    return "".join(f"/{token.replace('~', '~0').replace('/', '~1')}" for token in pointer)


def _fail(pointer: Pointer, problem: str, member: str = "path") -> Unprocessable:
    return Unprocessable(f"`{_written(pointer)}` {problem}.", code="processing", expression=[member])


def _position(parent: list[Tree], pointer: Pointer, end: int) -> int:
    """The array index of the last token, below `end`; `-` is the one after the last element."""
    token = pointer[-1]
    if token == "-":
        index = len(parent)
    elif _INDEX.fullmatch(token):
        index = int(token)
    else:
        raise _fail(pointer, f"goes into an array, where `{token}` is no index")
    if index >= end:
        raise _fail(pointer, f"is outside the array of {len(parent)} elements")
    return index


def _child(parent: Tree, pointer: Pointer) -> Tree:
    """The element that the last token names in `parent`."""
    if isinstance(parent, list):
        return parent[_position(parent, pointer, len(parent))]
    found = parent.get(pointer[-1], _MISSING) if isinstance(parent, dict) else _MISSING
    if found is _MISSING:
        raise _fail(pointer, "is not there")
    return found


def _get(tree: Tree, pointer: Pointer) -> Tree:
    for depth in range(1, len(pointer) + 1):
        tree = _child(tree, pointer[:depth])
    return tree


def _add(tree: Tree, pointer: Pointer, value: Tree) -> Tree:
    return _put(tree, pointer, copied(value))


def _put(tree: Tree, pointer: Pointer, value: Tree) -> Tree:
    if not pointer:
        return value
    parent = _get(tree, pointer[:-1])
    if isinstance(parent, list):
        parent.insert(_position(parent, pointer, len(parent) + 1), value)
    elif isinstance(parent, dict):
        parent[pointer[-1]] = value
    else:
        raise _fail(pointer, "cannot be added: its parent is neither an object nor an array")
    return tree


def _remove(tree: Tree, pointer: Pointer) -> Tree:
    if not pointer:
        raise Unprocessable("A patch cannot remove the whole resource: use DELETE.", expression=["path"])
    parent = _get(tree, pointer[:-1])
    _child(parent, pointer)
    if isinstance(parent, list):
        del parent[int(pointer[-1])]
    else:
        del parent[pointer[-1]]
    return tree


def _replace(tree: Tree, pointer: Pointer, value: Tree) -> Tree:
    value = copied(value)
    if not pointer:
        return value
    parent = _get(tree, pointer[:-1])
    _child(parent, pointer)
    parent[int(pointer[-1]) if isinstance(parent, list) else pointer[-1]] = value
    return tree


def _move(tree: Tree, source: Pointer, pointer: Pointer) -> Tree:
    moved = _get(tree, source)
    if source == pointer:
        return tree
    if pointer[: len(source)] == source:
        raise _fail(source, f"cannot be moved into itself, to `{_written(pointer)}`", "from")
    return _put(_remove(tree, source), pointer, moved)


def _copy(tree: Tree, source: Pointer, pointer: Pointer) -> Tree:
    return _add(tree, pointer, _get(tree, source))


def _measure(tree: Tree, source: Pointer, left: int) -> int:
    """The bytes of what is to be copied. Raises TooCostly when they are more than are left."""
    size = len(encode(_get(tree, source)))
    if size > left:
        raise TooCostly(
            f"The patch copies more than {_SIZE_LIMIT} bytes, the most that one may copy.", expression=["from"]
        )
    return size


def _test(tree: Tree, pointer: Pointer, value: Tree) -> Tree:
    if not _same(_get(tree, pointer), value):
        raise _fail(pointer, "does not have the value that `test` expects")
    return tree


def _same(left: Tree, right: Tree) -> bool:
    """Equality as RFC 6902 section 4.6 defines it for `test`: numbers by value, so that `185` finds `185.0`."""
    if isinstance(left, dict):
        if not isinstance(right, dict) or left.keys() != right.keys():
            return False
        return all(_same(value, right[key]) for key, value in left.items())
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(_same, left, right))
    return by_value(left) == by_value(right)


# Each operation's function and the members that become its arguments.
_OPERATIONS: dict[str, tuple[Callable[..., Tree], tuple[str, ...]]] = {
    "add": (_add, ("path", "value")),
    "remove": (_remove, ("path",)),
    "replace": (_replace, ("path", "value")),
    "move": (_move, ("from", "path")),
    "copy": (_copy, ("from", "path")),
    "test": (_test, ("path", "value")),
}
_MEMBERS: dict[str, Callable[[Tree, str], Any]] = {"path": _pointer, "from": _pointer, "value": _value}
