"""The walk over a trie as one Python function, whose source is written here and run by `exec` (http://hl7.org/fhirpath/N1/).

For a trie in which `status` is a token and each `name` has a `family` (`x0`, `x1`: the extractors):

    def walk(v0, found, around):
        s0 = found[0]
        if 'status' in v0:
            v1 = v0['status']
            e = x0(v1, around)
            if e:
                s0['status'] = e
        if 'name' in v0:
            v1 = v0['name']
            for v1 in v1:
                if v1 is not None:
                    if 'family' in v1:
                        v2 = v1['family']
                        e = x1(v2, around)
                        if e:
                            if 'family' in s0: add(s0, 'family', e)
                            else: s0['family'] = e

Where a code has one leaf and no list above it, its sink cannot hold it already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from fhir_server.search.parameters.criteria import Surroundings
from fhir_server.search.trie import Node, Sinks, add

Walk = Callable[[Any, Sinks, Surroundings], None]
"""Adds the entries of an element, and of all below it, to `found`."""


def unroll_lazily(build: Callable[[], Node]) -> Walk:
    """The walk from the node that `build` returns, compiled when first called: it delays no start of the server."""
    compiled: list[Walk] = []

    def walk(value: Any, found: Sinks, around: Surroundings) -> None:
        if not compiled:
            compiled.append(unroll(build()))
        compiled[0](value, found, around)

    return walk


def unroll(node: Node) -> Walk:
    """The walk from a node. Raises SyntaxError for one that is nested deeper than Python takes: some twenty lists."""
    names: dict[str, Any] = {"add": add}
    counts = Counter((kind, code) for _, kind, codes in _iterate_leaves(node) for code in codes)
    sinks = [f"s{kind} = found[{kind}]" for kind in sorted({kind for kind, _ in counts})]
    lines = [*sinks, *_write_lines(node, 0, False, names, counts), "return"]
    exec("def walk(v0, found, around):\n" + "".join(f" {line}\n" for line in lines), names)
    walk: Walk = names["walk"]
    return walk


def _iterate_leaves(node: Node) -> Iterator[tuple[Any, int, list[str]]]:
    yield from node.leaves
    for below in node.iterate_children():
        yield from _iterate_leaves(below)


def _write_lines(
    node: Node, depth: int, repeats: bool, names: dict[str, Any], counts: Counter[tuple[int, str]]
) -> Iterator[str]:
    """The statements for the element in `v{depth}`, which is not None; `repeats`: it may be one of several."""
    value, child = f"v{depth}", f"v{depth + 1}"
    for extract, kind, codes in node.leaves:
        yield f"e = {_name_object(extract, names)}({value}, around)"
        yield "if e:"
        for code in codes:
            if repeats or counts[kind, code] > 1:
                yield f" if {code!r} in s{kind}: add(s{kind}, {code!r}, e)"
                yield f" else: s{kind}[{code!r}] = e"
            else:
                yield f" s{kind}[{code!r}] = e"
    for group in node.groups:
        yield f"{_name_object(group, names)}({value}, found, around)"
    for accepts, below in ((accepts, below) for _, accepts, below in node.filters):
        yield f"if {_name_object(accepts, names)}({value}, around):"
        yield from (f" {line}" for line in _write_lines(below, depth, repeats, names, counts))
    for key, index, below in node.picked:
        yield f"for {child} in {value}.get({key!r}, ())[{index}:{index + 1}]:"
        yield f" if {child} is not None:"
        yield from (f"  {line}" for line in _write_lines(below, depth + 1, repeats, names, counts))
    for key, below in node.members.items():
        yield f"if {key!r} in {value}:"
        yield f" {child} = {value}[{key!r}]"
        inner = _write_lines(below, depth + 1, repeats or below.repeats, names, counts)
        if not below.repeats:
            yield from (f" {line}" for line in inner)
            continue
        yield f" for {child} in {child}:"
        yield f"  if {child} is not None:"  # a list of primitives has null where a value has only extensions
        yield from (f"   {line}" for line in inner)


def _name_object(thing: Any, names: dict[str, Any]) -> str:
    """The name under which the function finds an object."""
    for name, other in names.items():
        if other is thing:
            return name
    names[name := f"x{len(names)}"] = thing
    return name
