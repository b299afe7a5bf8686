"""JSON Patch: the examples of RFC 6902 appendix A, its errors, and what FHIR adds (numbers as written)."""

from __future__ import annotations

from typing import Any

import jsonpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_server.fhir import json_patch, json_tree
from fhir_server.fhir.outcome import FhirError, Invalid, TooCostly, Unprocessable

# (document, patch, result), after RFC 6902 appendix A.1 to A.16; each number is the section.
APPLIED: dict[str, tuple[Any, Any, Any]] = {
    "A.1": ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"foo": "bar", "baz": "qux"}),
    "A.2": ({"foo": ["a", "c"]}, [{"op": "add", "path": "/foo/1", "value": "b"}], {"foo": ["a", "b", "c"]}),
    "A.3": ({"baz": 1, "foo": 2}, [{"op": "remove", "path": "/baz"}], {"foo": 2}),
    "A.4": ({"foo": ["a", "b", "c"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["a", "c"]}),
    "A.5": ({"baz": "qux", "foo": 1}, [{"op": "replace", "path": "/baz", "value": "b"}], {"baz": "b", "foo": 1}),
    "A.6": (
        {"foo": {"bar": 1, "waldo": 2}, "qux": {"corge": 3}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": 1}, "qux": {"corge": 3, "thud": 2}},
    ),
    "A.7": (
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    "A.8": (
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    "A.10": ({"foo": 1}, [{"op": "add", "path": "/child", "value": {"g": {}}}], {"foo": 1, "child": {"g": {}}}),
    "A.11": ({"foo": 1}, [{"op": "add", "path": "/baz", "value": 2, "xyz": 3}], {"foo": 1, "baz": 2}),
    "A.14": ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    "A.16": ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["a"]}], {"foo": ["bar", ["a"]]}),
    "4.1 add replaces a member": ({"a": 1}, [{"op": "add", "path": "/a", "value": 2}], {"a": 2}),
    "4.5 copy": ({"a": [1]}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": [1], "b": [1]}),
    "5 in order": (
        {},
        [{"op": "add", "path": "/a", "value": []}, {"op": "add", "path": "/a/-", "value": 1}],
        {"a": [1]},
    ),
    "root replaced": ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
    "null is a value": ({"a": 1}, [{"op": "add", "path": "/b", "value": None}], {"a": 1, "b": None}),
}


@pytest.mark.parametrize("section", APPLIED)
def test_the_operations_of_rfc_6902(section: str) -> None:
    document, patch, expected = APPLIED[section]
    assert json_patch.apply(document, patch) == expected


# RFC 5789 section 2.2: 400 for a malformed patch document, 422 for one that cannot be applied.
REFUSED: list[tuple[Any, type[FhirError], str]] = [
    ({}, Invalid, ""),
    ([1], Invalid, "[0]"),
    ([{"path": "/a"}], Invalid, "[0].op"),
    ([{"op": "delete", "path": "/a"}], Invalid, "[0].op"),
    ([{"op": ["add"], "path": "/a"}], Invalid, "[0].op"),
    ([{"op": "test", "path": "/a", "value": 1}, {"op": "remove"}], Invalid, "[1].path"),
    ([{"op": "add", "path": "/a"}], Invalid, "[0].value"),
    ([{"op": "move", "path": "/a"}], Invalid, "[0].from"),
    ([{"op": "remove", "path": "a"}], Invalid, "[0].path"),
    ([{"op": "remove", "path": "/a~2"}], Invalid, "[0].path"),
    ([{"op": "remove", "path": 7}], Invalid, "[0].path"),
    ([{"op": "test", "path": "/a", "value": 2}], Unprocessable, "[0].path"),
    ([{"op": "test", "path": "/t", "value": 1}], Unprocessable, "[0].path"),
    ([{"op": "test", "path": "/a", "value": "1"}], Unprocessable, "[0].path"),
    ([{"op": "remove", "path": "/x"}], Unprocessable, "[0].path"),
    ([{"op": "remove", "path": ""}], Unprocessable, "[0].path"),
    ([{"op": "replace", "path": "/x", "value": 1}], Unprocessable, "[0].path"),
    ([{"op": "add", "path": "/x/y", "value": 1}], Unprocessable, "[0].path"),
    ([{"op": "add", "path": "/a/y", "value": 1}], Unprocessable, "[0].path"),
    ([{"op": "add", "path": "/l/3", "value": 1}], Unprocessable, "[0].path"),
    ([{"op": "add", "path": "/l/01", "value": 1}], Unprocessable, "[0].path"),
    ([{"op": "add", "path": "/l/-1", "value": 1}], Unprocessable, "[0].path"),
    ([{"op": "remove", "path": "/l/-"}], Unprocessable, "[0].path"),
    ([{"op": "replace", "path": "/l/2", "value": 1}], Unprocessable, "[0].path"),
    ([{"op": "move", "from": "/l", "path": "/l/0"}], Unprocessable, "[0].from"),
    ([{"op": "copy", "from": "/x", "path": "/y"}], Unprocessable, "[0].path"),
]


@pytest.mark.parametrize(("patch", "error", "place"), REFUSED, ids=str)
def test_a_patch_is_refused_whole_and_names_its_operation(patch: Any, error: type[FhirError], place: str) -> None:
    document = {"a": 1, "t": True, "l": [1, 2]}
    with pytest.raises(error) as raised:
        json_patch.apply(document, patch)
    assert raised.value.issues[0].expression == ((place,) if place else ())
    assert document == {"a": 1, "t": True, "l": [1, 2]}


def test_nothing_is_changed_when_a_later_operation_fails() -> None:
    document = {"list": [1]}
    with pytest.raises(Unprocessable):
        json_patch.apply(
            document, [{"op": "add", "path": "/list/-", "value": 2}, {"op": "test", "path": "/list", "value": []}]
        )
    assert document == {"list": [1]}


def test_numbers_that_are_not_touched_keep_their_text_and_new_ones_have_theirs() -> None:
    tree = json_tree.decode(b'{"valueQuantity":{"value":1.10,"unit":"g"},"x":1E2}')
    patch = json_tree.decode(b'[{"op":"add","path":"/y","value":2.500},{"op":"copy","from":"/x","path":"/z"}]')
    patched = json_tree.encode(json_patch.apply(tree, patch))
    assert patched == b'{"valueQuantity":{"value":1.10,"unit":"g"},"x":1E2,"y":2.500,"z":1E2}'


@pytest.mark.parametrize(
    ("stored", "tested", "passes"),
    [(b"185.0", b"185", True), (b"1.10", b"1.1", True), (b"1e2", b"100", True), (b"1.1", b"1.2", False)],
)
def test_test_compares_numbers_by_value(stored: bytes, tested: bytes, passes: bool) -> None:
    """RFC 6902 section 4.6: numbers are equal when their values are numerically equal."""
    tree = json_tree.decode(b'{"v":[%b]}' % stored)
    patch = json_tree.decode(b'[{"op":"test","path":"/v","value":[%b]}]' % tested)
    if passes:
        assert json_tree.are_equal(json_patch.apply(tree, patch), tree)
    else:
        with pytest.raises(Unprocessable):
            json_patch.apply(tree, patch)


def test_values_are_not_shared_between_places() -> None:
    patch: list[dict[str, Any]] = [
        {"op": "add", "path": "/b", "value": {"list": []}},
        {"op": "copy", "from": "/b", "path": "/c"},
        {"op": "add", "path": "/b/list/-", "value": 1},
    ]
    assert json_patch.apply({}, patch) == {"b": {"list": [1]}, "c": {"list": []}}
    assert patch[0]["value"] == {"list": []}


def test_a_patch_that_doubles_the_resource_again_and_again_is_too_costly() -> None:
    doubling = [{"op": "copy", "from": "/l", "path": "/l/-"}] * 60
    with pytest.raises(TooCostly):
        json_patch.apply({"l": ["x" * 1000]}, [*doubling[:1], *doubling])


TOKENS = st.sampled_from(["a", "b", "0", "1", "-"])
PATHS = st.lists(TOKENS, max_size=3).map(lambda tokens: "".join(f"/{token}" for token in tokens))
TREES = st.recursive(
    st.sampled_from([0, 1, "x", None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=8,
)
OPERATIONS = st.one_of(
    st.fixed_dictionaries({"op": st.sampled_from(["add", "replace", "test"]), "path": PATHS, "value": TREES}),
    st.fixed_dictionaries({"op": st.just("remove"), "path": PATHS}),
    st.fixed_dictionaries({"op": st.sampled_from(["move", "copy"]), "from": PATHS, "path": PATHS}),
)


@given(st.dictionaries(st.sampled_from("ab"), TREES, max_size=2), st.lists(OPERATIONS, max_size=4))
@settings(max_examples=150, deadline=None)
def test_where_the_jsonpatch_library_applies_a_patch_the_result_is_the_same(
    document: dict[str, Any], patch: list[dict[str, Any]]
) -> None:
    try:
        ours = json_patch.apply(document, patch)
    except FhirError:
        return
    # The library reads `-` as an index for reading too, and cannot replace or remove the root: no claim is made there.
    try:
        theirs = jsonpatch.apply_patch(document, patch)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError, AttributeError):
        return
    assert ours == theirs
