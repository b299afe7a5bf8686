"""JSON trees in which every number keeps the text it was written with (https://hl7.org/fhir/R4/json.html#decimal).

`1.10` is not `1.1` in FHIR. A tree is what `json` parses, except that each number that is not a plain integer is a
`Number`: its text, compared as text and written back unchanged.
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import msgspec
import orjson

from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.resource import split_members

Tree = Any
"""dict | list | str | int | bool | None | Number."""

Number = msgspec.Raw
"""A number as written (`1.10`, `-0`, `1e3`); equal when the texts are equal."""

# Longer integers may not fit 64 bits, and Python refuses to parse very long ones.
_INTEGER_DIGITS = 18
# Members of `meta` that differ between versions without any change by the client.
_SET_BY_SERVER = frozenset({"versionId", "lastUpdated"})


def decode(raw: bytes) -> Tree:
    """The tree of a JSON text in UTF-8. Raises Invalid when it is not JSON."""
    try:
        text = raw.decode()
        if "\\u" in text:
            orjson.loads(text)  # refuses lone surrogates, which `json` accepts and UTF-8 cannot encode
        return _decoder.decode(text)
    except RecursionError:
        raise Invalid("The JSON text is nested too deeply.", code="structure") from None
    except ValueError as error:
        raise Invalid(f"The text is not JSON: {error}.", code="structure") from None


def encode(tree: Tree) -> bytes:
    """The compact JSON text of a tree; members keep their order and numbers their text."""
    return _encoder.encode(tree)


def are_equal(left: Tree, right: Tree) -> bool:
    """Whether two trees are the same JSON: members in any order, `1.0` unlike `1.00`, `1` unlike `true`."""
    return _canonical_encoder.encode(left) == _canonical_encoder.encode(right)


def copy_tree(tree: Tree) -> Tree:
    """A copy that shares no object or array with `tree`."""
    if isinstance(tree, dict):
        return {key: copy_tree(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [copy_tree(value) for value in tree]
    return tree


def normalize_value(value: Tree) -> tuple[type, Any]:
    """A scalar in a form that compares by value: `1` equals `1.0` but not `true`."""
    if isinstance(value, bool) or not isinstance(value, int | Number):
        return type(value), value
    text = str(value) if isinstance(value, int) else bytes(value).decode()
    try:
        return Decimal, Decimal(text)
    except InvalidOperation:  # an exponent that Decimal cannot hold
        return Number, text


def has_same_content(left: bytes, right: bytes) -> bool:
    """Whether two texts of a resource are equal JSON apart from `meta.versionId` and `meta.lastUpdated`.

    Only the top-level members whose texts differ are parsed.
    """
    if left == right:
        return True
    ours, theirs = split_members(left), split_members(right)
    if not are_equal(_parse_client_meta(ours.pop("meta", None)), _parse_client_meta(theirs.pop("meta", None))):
        return False
    return ours.keys() == theirs.keys() and all(_are_equal_texts(text, theirs[key]) for key, text in ours.items())


def _are_equal_texts(left: msgspec.Raw, right: msgspec.Raw) -> bool:
    return left == right or are_equal(decode(bytes(left)), decode(bytes(right)))


def _parse_client_meta(text: msgspec.Raw | None) -> Tree:
    """The part of `meta` that a client decides; no meta and an empty one are the same."""
    meta = decode(bytes(text)) if text is not None else {}
    return {key: value for key, value in meta.items() if key not in _SET_BY_SERVER} if isinstance(meta, dict) else meta


def _parse_integer(text: str) -> int | Number:
    return Number(text) if text == "-0" or len(text) > _INTEGER_DIGITS else int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_decoder = json.JSONDecoder(parse_float=Number, parse_int=_parse_integer, parse_constant=_refuse_constant)
_encoder = msgspec.json.Encoder()
_canonical_encoder = msgspec.json.Encoder(order="sorted")
