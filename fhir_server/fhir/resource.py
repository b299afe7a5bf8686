"""A resource's text: strict parsing, top-level members as raw slices, and setting `id` and `meta` in the text.

The client's JSON is stored as it was written; the parsed tree serves validation and indexing only.
https://hl7.org/fhir/R4/json.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from fhir_server.fhir.outcome import Invalid, TooCostly

DEPTH_LIMIT = 100
MOST_VALUES = 4_000_000
"""Objects, arrays and further values of one JSON text: each takes up to 125 bytes of memory, however short it is."""
ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")

_TOO_DEEP = b"\n" + b"  " * (DEPTH_LIMIT + 1)
_JSON_TYPES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
_SET_FIRST = frozenset({"resourceType", "id", "meta"})
_SET_IN_META = frozenset({"versionId", "lastUpdated"})
_ESCAPED_COLON = re.compile(rb"\\u003[aA]")
# `resourceType`, `id` and `meta` at the start, where nearly all texts have them; `meta` without escapes and no deeper
# than its codings.
_match_start = re.compile(
    rb"""\s*+\{\s*+"resourceType"\s*+:\s*+"[A-Za-z]++"\s*+(?:,\s*+"id"\s*+:\s*+("[^"\\]*+")\s*+)?"""
    rb"""(?:,\s*+"meta"\s*+:\s*+\{((?:[^{}"\\]++|"[^"\\]*+"|\{(?:[^{}"\\]++|"[^"\\]*+")*\})*)\}\s*+)?(?=[,}])"""
).match
_match_meta = re.compile(rb"""\s*+"meta"\s*+:""").match
_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Text:
    """A JSON object as received: its bytes and its parsed tree, neither of which is ever changed.

    The tree of a bundle's entry is parsed on first use, after references were rewritten in the bytes; `tree` then
    raises Invalid as `parse` does.
    """

    __slots__ = ("raw", "tree")

    tree: dict[str, Any]
    """The parsed object."""

    def __init__(self, raw: bytes, tree: dict[str, Any] | None = None) -> None:
        self.raw = raw
        if tree is not None:
            self.tree = tree

    if not TYPE_CHECKING:  # for mypy any attribute would be there

        def __getattr__(self, name: str) -> Any:
            # Python asks here only while `tree` is not set, so that reading it costs no call afterwards.
            if name != "tree":
                raise AttributeError(name)
            self.tree = _parse_tree(self.raw)
            return self.tree

    def forget_tree(self) -> None:
        """Release the tree; `tree` would parse again. The next tree reuses the memory while the CPU has it cached."""
        try:
            del self.tree
        except AttributeError:  # it was never parsed
            return

    @property
    def type(self) -> str:
        """`resourceType`; "" when it is absent or no string."""
        type = self.tree.get("resourceType")
        return type if isinstance(type, str) else ""


def check_number_of_values(raw: bytes) -> None:
    """Raises TooCostly for a JSON text that would take very much memory; a text has no more values than bytes."""
    if len(raw) > MOST_VALUES and raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MOST_VALUES:
        raise TooCostly(
            f"The JSON has more than {MOST_VALUES:,} objects, arrays and further values, which would take too much "
            "memory; send it in parts."
        )


def parse(raw: bytes) -> Text:
    """Parse strictly. Raises Invalid for what is not one JSON object, repeats a key or nests too deeply.

    Raises TooCostly for too many values.
    """
    return Text(raw, _parse_tree(raw))


def _parse_tree(raw: bytes) -> dict[str, Any]:
    if len(raw) > MOST_VALUES:
        check_number_of_values(raw)
    try:
        tree = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Invalid(_explain_json_error(raw, error), code="structure") from None
    if not isinstance(tree, dict):
        raise Invalid(
            f"The body must be one JSON object (a FHIR resource), but it is {name_json_type(tree)}.", code="structure"
        )
    check_tree(raw, tree)
    return tree


def check_tree(raw: bytes, tree: Any) -> None:
    """Refuse nesting beyond DEPTH_LIMIT and duplicate keys, which the parsers accept.

    One indented dump shows both: its deepest line has the depth, and it has fewer colons than the text when the parser
    merged two equal keys (an escaped colon breaks the count, so a text with one is parsed again).
    """
    try:
        dump = orjson.dumps(tree, option=orjson.OPT_INDENT_2)
    except orjson.JSONEncodeError:  # it reads 1,023 levels and writes 254
        dump = _TOO_DEEP
    if _TOO_DEEP in dump:
        raise make_too_deep_error()
    if raw.count(b":") != dump.count(b":") or (b"\\u003" in raw and _ESCAPED_COLON.search(raw)):
        refuse_duplicates(raw)


def make_too_deep_error() -> Invalid:
    """The error for JSON that nests deeper than DEPTH_LIMIT."""
    return Invalid(f"The JSON nests deeper than {DEPTH_LIMIT} levels, which is the limit.", code="structure")


def refuse_duplicates(raw: bytes) -> None:
    """Raise Invalid when an object of the text has a key twice; slow, for texts that look as if they do."""
    json.loads(raw, object_pairs_hook=_refuse_duplicate_key, parse_int=str)  # an `int` has a limit of digits


def _refuse_duplicate_key(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in pairs:
        if key in tree:
            raise Invalid(
                f"The JSON key `{key}` stands twice in one object; each key may stand once.", code="structure"
            )
        tree[key] = value
    return tree


def _explain_json_error(raw: bytes, error: orjson.JSONDecodeError) -> str:
    if not raw.strip():
        return "The body is empty; a FHIR resource as JSON is needed."
    return f"The body is not valid JSON (line {error.lineno}, column {error.colno}): {error.msg}."


def name_json_type(value: Any) -> str:
    """The JSON type of a parsed value, as a sentence names it: `an array`."""
    return _JSON_TYPES.get(type(value), "a number")


def split_members(raw: bytes) -> dict[str, msgspec.Raw]:
    """The top-level members of a JSON object, each value as the bytes it was written with."""
    return _members_decoder.decode(raw)


def join_members(parts: Mapping[str, bytes | msgspec.Raw]) -> bytes:
    """The JSON object of these members, whose values are JSON texts."""
    return b"{" + b",".join([b'"%b":%b' % (key.encode(), value) for key, value in parts.items()]) + b"}"


def split_at_version(text: Text, type: str, id: str) -> tuple[bytes, bytes]:
    """The text before and after `"versionId":…,"lastUpdated":…`, with `id` set and the rest as written.

    `resourceType`, `id` and `meta` come first; every other member keeps its bytes and its order.
    """
    head = b'{"resourceType":"%b","id":"%b","meta":{' % (type.encode(), id.encode())
    return head, _find_usual_tail(text) or _build_tail(text.raw)


def _find_usual_tail(text: Text) -> bytes | None:
    """The second half of `split_at_version` for a text that begins with `resourceType`, `id` and `meta`; else None."""
    tree, start, end = text.tree, _match_start(text.raw), len(text.raw)
    if start is None or ("id" in tree) != (start[1] is not None):
        return None
    parsed = tree.get("meta")
    if parsed and ("versionId" in parsed or "lastUpdated" in parsed):
        return None
    meta = start[2] or b""
    if parsed is not None and start[2] is None:
        end = text.raw.rfind(b",", 0, text.raw.rfind(b'"meta"'))
        meta = _find_last_meta(text.raw, end, parsed)[1:-1]
        if not meta:
            return None
    rest, meta = text.raw[start.end() : end], meta.strip()
    return (b",%b}%b" if meta else b"%b}%b") % (meta, rest) + (b"}" if end < len(text.raw) else b"")


def _find_last_meta(raw: bytes, comma: int, meta: Any) -> bytes:
    """The text of `meta` when it is the last member, after `comma`; b"" when another member is."""
    key = _match_meta(raw, comma + 1)
    if comma < 0 or key is None:
        return b""
    value = raw[key.end() : raw.rindex(b"}")].strip()
    try:
        return value if orjson.loads(value) == meta else b""
    except orjson.JSONDecodeError:  # this `meta` is within another member
        return b""


def _build_tail(raw: bytes) -> bytes:
    """The second half of `split_at_version` for any text."""
    parts = split_members(raw)
    meta = split_members(bytes(parts.get("meta", b"{}")))
    return b"%b}%b}" % (_write_others(meta, _SET_IN_META), _write_others(parts, _SET_FIRST))


def _write_others(parts: Mapping[str, msgspec.Raw], names: frozenset[str]) -> bytes:
    """The members but those of `names`, each after a comma."""
    return b"".join([b',"%b":%b' % (key.encode(), value) for key, value in parts.items() if key not in names])


def write_version_members(version: int, last_updated: str) -> bytes:
    """The members between the two halves of `split_at_version`."""
    return b'"versionId":"%d","lastUpdated":"%b"' % (version, last_updated.encode())


def is_id(id: str) -> bool:
    """Whether `id` is a FHIR id: 1 to 64 of letters, digits, hyphen and dot."""
    return ID.fullmatch(id) is not None
