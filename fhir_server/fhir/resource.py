"""A resource's text: strict parsing, top-level members as raw slices, and the splice of `id` and `meta`.

The client's JSON is kept as it was written; the parsed tree serves validation and indexing only.
https://hl7.org/fhir/R4/json.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from fhir_server.fhir.outcome import Invalid

DEPTH_LIMIT = 100
ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")

_TOO_DEEP = b"\n" + b"  " * (DEPTH_LIMIT + 1)
_ESCAPED_COLON = re.compile(rb"\\u003[aA]")
# `resourceType`, `id` and `meta` where they mostly stand; `meta` without escapes and no deeper than its codings are.
_START = re.compile(
    rb"""\s*+\{\s*+"resourceType"\s*+:\s*+"[A-Za-z]++"\s*+(?:,\s*+"id"\s*+:\s*+("[^"\\]*+")\s*+)?"""
    rb"""(?:,\s*+"meta"\s*+:\s*+\{((?:[^{}"\\]++|"[^"\\]*+"|\{(?:[^{}"\\]++|"[^"\\]*+")*\})*)\}\s*+)?(?=[,}])"""
).match
_META_LAST = re.compile(rb"""\s*+"meta"\s*+:""").match
_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Text:
    """A JSON object as received: its bytes, and the tree they stand for. Neither is changed once made.

    The tree of a bundle's entry is parsed when it is first asked for, after references were rewritten in the bytes;
    then `tree` raises Invalid as `parse` does.
    """

    __slots__ = ("_tree", "raw")

    def __init__(self, raw: bytes, tree: dict[str, Any] | None = None) -> None:
        self.raw = raw
        self._tree = tree

    @property
    def tree(self) -> dict[str, Any]:
        """The parsed object."""
        if self._tree is None:
            self._tree = parse(self.raw)._tree
        assert self._tree is not None
        return self._tree

    def forget_tree(self) -> None:
        """Give the tree's memory back; `tree` parses again. The next resource's tree then finds it in the cache."""
        self._tree = None

    @property
    def type(self) -> str:
        """`resourceType`; "" when it is not there or no text."""
        type = self.tree.get("resourceType")
        return type if isinstance(type, str) else ""


def parse(raw: bytes) -> Text:
    """Parse strictly. Raises Invalid for what is not one JSON object, repeats a key or nests too deeply."""
    try:
        tree = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Invalid(_not_json(raw, error), code="structure") from None
    if not isinstance(tree, dict):
        raise Invalid(
            f"The body must be one JSON object (a FHIR resource), but it is {_json_kind(tree)}.", code="structure"
        )
    check_tree(raw, tree)
    return Text(raw, tree)


def check_tree(raw: bytes, tree: Any) -> None:
    """Refuse nesting beyond DEPTH_LIMIT and duplicate keys, which the parsers let through.

    One indented dump answers both: its deepest line tells the depth, and its colons are fewer than the text's where
    the parser merged two equal keys (an escaped colon would break the count, so its texts are looked at closely).
    """
    dump = orjson.dumps(tree, option=orjson.OPT_INDENT_2)
    if _TOO_DEEP in dump:
        raise Invalid(f"The JSON nests deeper than {DEPTH_LIMIT} levels, which is the limit.", code="structure")
    if raw.count(b":") != dump.count(b":") or (b"\\u003" in raw and _ESCAPED_COLON.search(raw)):
        refuse_duplicates(raw)


def refuse_duplicates(raw: bytes) -> None:
    """Raises Invalid when an object of the text has a key twice; slow, for texts that look as if they had."""
    json.loads(raw, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in pairs:
        if key in tree:
            raise Invalid(
                f"The JSON key `{key}` stands twice in one object; each key may stand once.", code="structure"
            )
        tree[key] = value
    return tree


def _not_json(raw: bytes, error: orjson.JSONDecodeError) -> str:
    if not raw.strip():
        return "The body is empty; a FHIR resource as JSON is needed."
    return f"The body is not valid JSON (line {error.lineno}, column {error.colno}): {error.msg}."


def _json_kind(value: Any) -> str:
    if isinstance(value, list):
        return "an array"
    return {str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")


def members(raw: bytes) -> dict[str, msgspec.Raw]:
    """The top-level members of a JSON object, each value as the bytes it was written with."""
    return _raw_members.decode(raw)


def join_members(parts: Mapping[str, bytes | msgspec.Raw]) -> bytes:
    """A JSON object of members whose values are given as text."""
    return b"{" + b",".join([b'"%b":%b' % (key.encode(), value) for key, value in parts.items()]) + b"}"


def spliced(text: Text, type: str, id: str) -> tuple[bytes, bytes]:
    """The text before and after `"versionId":…,"lastUpdated":…`, with `id` set and the rest as written.

    `resourceType`, `id` and `meta` come first; every other member keeps its bytes and its order.
    """
    head = b'{"resourceType":"%b","id":"%b","meta":{' % (type.encode(), id.encode())
    return head, _usual_tail(text) or _any_tail(text.raw)


def _usual_tail(text: Text) -> bytes | None:
    """What follows in a text whose `resourceType`, `id` and `meta` stand where they mostly do; None for any other."""
    tree, start, end = text.tree, _START(text.raw), len(text.raw)
    if start is None or ("id" in tree) != (start[1] is not None):
        return None
    own = tree.get("meta")
    if own and ("versionId" in own or "lastUpdated" in own):
        return None
    meta = start[2] or b""
    if own is not None and start[2] is None:
        end = text.raw.rfind(b",", 0, text.raw.rfind(b'"meta"'))
        meta = _last_meta(text.raw, end, own)[1:-1]
        if not meta:
            return None
    rest, meta = text.raw[start.end() : end], meta.strip()
    return (b",%b}%b" if meta else b"%b}%b") % (meta, rest) + (b"}" if end < len(text.raw) else b"")


def _last_meta(raw: bytes, comma: int, meta: Any) -> bytes:
    """The text of `meta` if it is the last member, behind the comma; b"" if that is something else."""
    key = _META_LAST(raw, comma + 1)
    if comma < 0 or key is None:
        return b""
    value = raw[key.end() : raw.rindex(b"}")].strip()
    try:
        return value if orjson.loads(value) == meta else b""
    except orjson.JSONDecodeError:  # it goes on behind what is within something else
        return b""


def _any_tail(raw: bytes) -> bytes:
    parts = members(raw)
    parts.pop("resourceType", None)
    parts.pop("id", None)
    meta = parts.pop("meta", None)
    tail = [] if meta is None else [_meta_rest(bytes(meta))]
    tail.append(b"}")
    tail += [b',"%b":%b' % (key.encode(), value) for key, value in parts.items()]
    tail.append(b"}")
    return b"".join(tail)


def _meta_rest(meta: bytes) -> bytes:
    rest = members(meta)
    rest.pop("versionId", None)
    rest.pop("lastUpdated", None)
    return b"".join([b',"%b":%b' % (key.encode(), value) for key, value in rest.items()])


def version_members(version: int, last_updated: str) -> bytes:
    """What stands between the two halves of `spliced`."""
    return b'"versionId":"%d","lastUpdated":"%b"' % (version, last_updated.encode())


def valid_id(id: str) -> bool:
    """Whether `id` is a FHIR id: 1 to 64 of letters, digits, hyphen and dot."""
    return ID.fullmatch(id) is not None
