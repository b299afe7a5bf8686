"""Turns files into requests that can be repeated without making duplicates (https://hl7.org/fhir/R4/http.html#transaction).

A resource's own text is never re-serialised: entries are joined from slices of what was read.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import msgspec
import orjson

from fhir_server.commands.loading.inputs import Document, Failure, InputFile, read_documents
from fhir_server.fhir.resource import is_id, split_members

# Loose resources travel together; a refused group is sent again as a batch, so that each gets its own answer.
GROUP_ENTRIES = 200
GROUP_BYTES = 1_000_000

Kind = Literal["transaction", "batch", "group"]
"""`transaction`: all or nothing; `batch`: entry by entry; `group`: a transaction, and when that is refused a batch."""

T = TypeVar("T")

_UUID = re.compile(r"urn:uuid:([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})")


class _Resource(msgspec.Struct):
    resourceType: str = ""
    id: str | msgspec.UnsetType = msgspec.UNSET


class _Request(msgspec.Struct):
    method: str
    url: str
    ifNoneExist: str | None = None


class _Search(msgspec.Struct):
    mode: str | None = None


class _Entry(msgspec.Struct):
    fullUrl: str | None = None
    resource: msgspec.Raw = msgspec.Raw()
    request: _Request | None = None
    search: _Search | None = None


class _Bundle(msgspec.Struct):
    type: str | None = None
    entry: list[msgspec.Raw] = []


_resource = msgspec.json.Decoder(_Resource)
_entry = msgspec.json.Decoder(_Entry)
_bundle = msgspec.json.Decoder(_Bundle)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a bundle to post.

    `source`, `place`: where it came from. `target`: of a PUT, `Type/id`. `weight`: bytes of the file read for it alone.
    """

    source: str
    place: str
    type: str
    method: str
    text: bytes
    target: str = ""
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Submission:
    """What is posted in one piece; `weight` is its share of the input files in bytes."""

    kind: Kind
    entries: tuple[Entry, ...]
    weight: int = 0

    def write_bundle(self, type: Literal["transaction", "batch"]) -> bytes:
        """The bundle's JSON text."""
        return b'{"resourceType":"Bundle","type":"%b","entry":[%b]}' % (
            type.encode(),
            b",".join(entry.text for entry in self.entries),
        )


class InvalidInput(ValueError):
    """A text that is no FHIR resource, or an entry that cannot be loaded; str is a full sentence."""


def read_submissions(files: Iterable[InputFile], as_posted: bool = False) -> Iterator[Submission | Failure]:
    """Everything in `files`, read as it is asked for; what cannot be used comes as a Failure in its place."""
    documents = (document for file in files for document in read_documents(file))
    return _group_entries(
        document if isinstance(document, Failure) else _parse_document(document, as_posted) for document in documents
    )


def regroup(waiting: Iterable[Submission]) -> Iterator[Submission | Failure]:
    """The submissions to try again; loose entries form new groups, so that resources that point to each other meet."""
    return _group_entries(part for submission in waiting for part in _take_apart(submission))


def _take_apart(submission: Submission) -> Iterable[Submission | Entry]:
    if submission.kind != "group":
        return (submission,)
    return (replace(entry, weight=0) for entry in submission.entries)


def _group_entries(items: Iterable[Submission | Entry | Failure]) -> Iterator[Submission | Failure]:
    """The items in their order, but single entries in groups, which come when they are full or at the end."""
    loose: list[Entry] = []
    size = 0
    for item in items:
        if not isinstance(item, Entry):
            yield item
            continue
        loose.append(item)
        size += len(item.text)
        if len(loose) >= GROUP_ENTRIES or size >= GROUP_BYTES:
            yield Submission("group", tuple(loose), sum(entry.weight for entry in loose))
            loose, size = [], 0
    if loose:
        yield Submission("group", tuple(loose), sum(entry.weight for entry in loose))


def split_repeats(group: Submission) -> list[Submission]:
    """A group in parts that are to be sent one after the other: each has a resource once, the later version later.

    A transaction may not have a resource twice, and a server may answer the entries of a batch in any order.
    """
    turns: list[list[Entry]] = []
    seen: Counter[str] = Counter()
    for entry in group.entries:
        turn = seen[entry.target]
        seen[entry.target] += 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(entry)
    return [replace(group, entries=tuple(turn)) for turn in turns]


def _parse_document(document: Document, as_posted: bool) -> Submission | Entry | Failure:
    place = f"line {document.line}" if document.line else ""
    try:
        head = _decode(_resource, document.text)
        if not head.resourceType:
            raise InvalidInput("It has no `resourceType`: it is not a FHIR resource.")
        if head.resourceType == "Bundle":
            return _parse_bundle(document, place, as_posted)
        entry = _make_put(document.source, place, _Entry(resource=msgspec.Raw(document.text)))
        return replace(entry, weight=document.weight)
    except InvalidInput as error:
        where = f"`{document.source}`{' ' if place else ''}{place}"
        return Failure(document.source, place, None, f"{where}: {error}", weight=document.weight)


def _parse_bundle(document: Document, place: str, as_posted: bool) -> Submission:
    bundle = _decode(_bundle, document.text)
    prefix = f"{place} " if place else ""
    parsed = [(f"{prefix}entry[{i}]", bytes(raw), _decode(_entry, raw)) for i, raw in enumerate(bundle.entry)]
    if bundle.type in ("transaction", "batch"):
        entries = [_make_entry(document.source, at, raw, entry, as_posted) for at, raw, entry in parsed]
        kind: Kind = "transaction" if bundle.type == "transaction" else "batch"
        return Submission(kind, tuple(entries), document.weight)
    if bundle.type == "history":
        parsed = _take_newest(parsed)
    contents = [(at, entry) for at, _, entry in parsed if bytes(entry.resource) and _is_content(entry)]
    # References by `urn:uuid` are resolved inside one transaction only.
    linked = any((entry.fullUrl or "").startswith("urn:") for _, entry in contents)
    puts = tuple(_make_put(document.source, at, entry) for at, entry in contents)
    return Submission("transaction" if linked else "group", puts, document.weight)


def _make_entry(source: str, place: str, raw: bytes, entry: _Entry, as_posted: bool) -> Entry:
    """An entry of a transaction or batch: a plain create becomes a PUT, everything else stays as it is."""
    request = entry.request
    if request is None:
        raise InvalidInput(f"`{place}` has no `request`, which every entry of a transaction or batch needs.")
    creates = request.method == "POST" and bool(bytes(entry.resource)) and not request.ifNoneExist
    if creates and not as_posted and request.url.strip("/") == _decode(_resource, bytes(entry.resource)).resourceType:
        return _make_put(source, place, entry)
    target = request.url.partition("?")[0].strip("/").split("/")
    absolute = target[0] in ("http:", "https:") and len(target) > 1
    type = target[-2] if absolute else target[0]
    return Entry(source, place, type, request.method, raw)


def _make_put(source: str, place: str, entry: _Entry) -> Entry:
    text = bytes(entry.resource)
    head = _decode(_resource, text)
    if not head.resourceType:
        raise InvalidInput(f"`{place or 'resource'}` has no `resourceType`: it is not a FHIR resource.")
    id = _choose_id(entry.fullUrl or "", head, text)
    if head.id != id:
        text = _set_id(text, id, head.id is not msgspec.UNSET)
    full_url = b'"fullUrl":%b,' % orjson.dumps(entry.fullUrl) if entry.fullUrl else b""
    url = orjson.dumps(f"{head.resourceType}/{id}")
    put = b'{%b"resource":%b,"request":{"method":"PUT","url":%b}}' % (full_url, text, url)
    return Entry(source, place, head.resourceType, "PUT", put, f"{head.resourceType}/{id}")


def _choose_id(full_url: str, head: _Resource, text: bytes) -> str:
    """The id that this resource has at every load."""
    if match := _UUID.fullmatch(full_url):
        return match[1]
    if head.id is not msgspec.UNSET:
        if not is_id(head.id):
            raise InvalidInput(
                f"The id `{head.id}` of this {head.resourceType} is not 1 to 64 letters, digits, `-` and `.`."
            )
        return head.id
    if match := re.search(rf"/{re.escape(head.resourceType)}/([A-Za-z0-9\-.]{{1,64}})$", full_url):
        return match[1]
    return str(uuid.uuid5(uuid.NAMESPACE_URL, _write_canonical(text)))


def _write_canonical(text: bytes) -> str:
    """The same text for the same content: members sorted, no white space, numbers with their own digits."""
    try:
        tree = json.loads(
            text, parse_float=lambda number: f"number {number}", parse_int=lambda number: f"number {number}"
        )
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"It is not JSON: {error}.") from None
    return json.dumps(tree, sort_keys=True, separators=(",", ":"))


def _set_id(text: bytes, id: str, replaces: bool) -> bytes:
    """`text` with this id; every other member keeps its bytes."""
    if not replaces:
        return b'{"id":"%b",%b' % (id.encode(), text.lstrip()[1:])
    json.loads(text, object_pairs_hook=_refuse_repeated_keys)
    members = split_members(text)
    parts = (orjson.dumps(id) if key == "id" else bytes(raw) for key, raw in members.items())
    return b"{%b}" % b",".join(orjson.dumps(key) + b":" + part for key, part in zip(members, parts, strict=True))


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Taking a text apart would drop the first of two equal keys in silence."""
    members = dict(pairs)
    if len(members) != len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise InvalidInput(f"The key `{key}` stands twice in one object.")
    return members


def _take_newest(parsed: list[tuple[str, bytes, _Entry]]) -> list[tuple[str, bytes, _Entry]]:
    """The newest version of each resource in a history bundle, which lists the newest first."""
    newest: dict[str, tuple[str, bytes, _Entry]] = {}
    for at, raw, entry in parsed:
        newest.setdefault(entry.fullUrl or (entry.request.url if entry.request else at), (at, raw, entry))
    return list(newest.values())


def _is_content(entry: _Entry) -> bool:
    """False for the OperationOutcome that a searchset carries about the search itself."""
    return entry.search is None or entry.search.mode != "outcome"


def _decode(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"It is not FHIR: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"It is not JSON: {_locate_json_error(text) or error}.") from None


def _locate_json_error(text: bytes) -> str:
    """The error with its place; msgspec knows none, and calls half a surrogate pair the end of the text."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return str(error)
    return ""
