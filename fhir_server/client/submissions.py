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

from fhir_server.client.inputs import Document, Failure, InputFile, read

# Loose resources travel together; a refused group is sent again as a batch, so that each gets its own answer.
GROUP_ENTRIES = 200
GROUP_BYTES = 1_000_000

Kind = Literal["transaction", "batch", "group"]
"""`transaction`: all or nothing; `batch`: entry by entry; `group`: a transaction, and when that is refused a batch."""

T = TypeVar("T")

_UUID = re.compile(r"urn:uuid:([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


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
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a bundle to post: where it came from, what it does, its JSON text, and of a PUT `Type/id`."""

    source: str
    place: str
    type: str
    method: str
    text: bytes
    target: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """What is posted in one piece; `weight` is its share of the input files in bytes."""

    kind: Kind
    entries: tuple[Entry, ...]
    weight: int = 0

    def bundle(self, type: Literal["transaction", "batch"]) -> bytes:
        """The bundle's JSON text."""
        return b'{"resourceType":"Bundle","type":"%b","entry":[%b]}' % (
            type.encode(),
            b",".join(entry.text for entry in self.entries),
        )


class Unfit(ValueError):
    """A text that is no FHIR resource, or an entry that cannot be loaded; str is a full sentence."""


def submissions(files: Iterable[InputFile], as_posted: bool = False) -> Iterator[Submission | Failure]:
    """Everything in `files`, read as it is asked for; what cannot be used comes as a Failure in its place."""
    loose: list[Entry] = []
    weight = size = 0
    for document in (document for file in files for document in read(file)):
        made = document if isinstance(document, Failure) else _understood(document, as_posted)
        if not isinstance(made, Entry):
            yield made
            continue
        loose.append(made)
        weight += document.weight
        size += len(made.text)
        if len(loose) >= GROUP_ENTRIES or size >= GROUP_BYTES:
            yield Submission("group", tuple(loose), weight)
            loose, weight, size = [], 0, 0
    if loose:
        yield Submission("group", tuple(loose), weight)


def in_turns(group: Submission) -> list[Submission]:
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


def regroup(waiting: Iterable[Submission]) -> Iterator[Submission]:
    """The submissions to try again; loose entries form new groups, so that resources that point to each other meet."""
    loose: list[Entry] = []
    size = 0
    for submission in waiting:
        if submission.kind != "group":
            yield submission
            continue
        for entry in submission.entries:
            loose.append(entry)
            size += len(entry.text)
            if len(loose) >= GROUP_ENTRIES or size >= GROUP_BYTES:
                yield Submission("group", tuple(loose))
                loose, size = [], 0
    if loose:
        yield Submission("group", tuple(loose))


def _understood(document: Document, as_posted: bool) -> Submission | Entry | Failure:
    place = f"line {document.line}" if document.line else ""
    try:
        head = _decoded(_resource, document.text)
        if not head.resourceType:
            raise Unfit("It has no `resourceType`: it is not a FHIR resource.")
        if head.resourceType == "Bundle":
            return _bundle_submission(document, place, as_posted)
        return _put(document.source, place, _Entry(resource=msgspec.Raw(document.text)))
    except Unfit as error:
        where = f"`{document.source}`{' ' if place else ''}{place}"
        return Failure(document.source, place, None, f"{where}: {error}", weight=document.weight)


def _bundle_submission(document: Document, place: str, as_posted: bool) -> Submission:
    bundle = _decoded(_bundle, document.text)
    prefix = f"{place} " if place else ""
    raws = [(f"{prefix}entry[{index}]", bytes(raw)) for index, raw in enumerate(bundle.entry)]
    parsed = [(at, raw, _decoded(_entry, raw)) for at, raw in raws]
    if bundle.type in ("transaction", "batch"):
        entries = [_requested(document.source, at, raw, entry, as_posted) for at, raw, entry in parsed]
        kind: Kind = "transaction" if bundle.type == "transaction" else "batch"
        return Submission(kind, tuple(entries), document.weight)
    if bundle.type == "history":
        parsed = list(_newest(parsed))
    held = [(at, entry) for at, _, entry in parsed if bytes(entry.resource) and _is_content(entry)]
    # Entries that point to each other by `urn:uuid` only hold together in one transaction.
    tied = any((entry.fullUrl or "").startswith("urn:") for _, entry in held)
    puts = tuple(_put(document.source, at, entry) for at, entry in held)
    return Submission("transaction" if tied else "group", puts, document.weight)


def _requested(source: str, place: str, raw: bytes, entry: _Entry, as_posted: bool) -> Entry:
    """An entry of a transaction or batch: a plain create becomes a PUT, everything else stays as it is."""
    request = entry.request
    if request is None:
        raise Unfit(f"`{place}` has no `request`, which every entry of a transaction or batch needs.")
    creates = request.method == "POST" and bool(bytes(entry.resource)) and not request.ifNoneExist
    if creates and not as_posted and request.url.strip("/") == _decoded(_resource, bytes(entry.resource)).resourceType:
        return _put(source, place, entry)
    target = request.url.partition("?")[0].strip("/").split("/")
    absolute = target[0] in ("http:", "https:") and len(target) > 1
    type = target[-2] if absolute else target[0]
    return Entry(source, place, type, request.method, raw)


def _put(source: str, place: str, entry: _Entry) -> Entry:
    text = bytes(entry.resource)
    head = _decoded(_resource, text)
    if not head.resourceType:
        raise Unfit(f"`{place or 'resource'}` has no `resourceType`: it is not a FHIR resource.")
    id = _identity(entry.fullUrl or "", head, text)
    if head.id != id:
        text = _with_id(text, id, head.id is not msgspec.UNSET)
    full_url = b'"fullUrl":%b,' % orjson.dumps(entry.fullUrl) if entry.fullUrl else b""
    url = orjson.dumps(f"{head.resourceType}/{id}")
    put = b'{%b"resource":%b,"request":{"method":"PUT","url":%b}}' % (full_url, text, url)
    return Entry(source, place, head.resourceType, "PUT", put, f"{head.resourceType}/{id}")


def _identity(full_url: str, head: _Resource, text: bytes) -> str:
    """The id that this resource has at every load."""
    if found := _UUID.fullmatch(full_url):
        return found[1]
    if head.id is not msgspec.UNSET:
        if not _ID.fullmatch(head.id):
            raise Unfit(f"The id `{head.id}` of this {head.resourceType} is not 1 to 64 letters, digits, `-` and `.`.")
        return head.id
    if found := re.search(rf"/{re.escape(head.resourceType)}/([A-Za-z0-9\-.]{{1,64}})$", full_url):
        return found[1]
    return str(uuid.uuid5(uuid.NAMESPACE_URL, _canonical(text)))


def _canonical(text: bytes) -> str:
    """The same text for the same content: members sorted, no white space, numbers with their own digits."""
    try:
        tree = json.loads(
            text, parse_float=lambda number: f"number {number}", parse_int=lambda number: f"number {number}"
        )
    except (ValueError, RecursionError) as error:
        raise Unfit(f"It is not JSON: {error}.") from None
    return json.dumps(tree, sort_keys=True, separators=(",", ":"))


def _with_id(text: bytes, id: str, replaces: bool) -> bytes:
    """`text` with this id; every other member keeps its bytes."""
    if not replaces:
        return b'{"id":"%b",%b' % (id.encode(), text.lstrip()[1:])
    json.loads(text, object_pairs_hook=_distinct)
    members = _members.decode(text)
    parts = (orjson.dumps(id) if key == "id" else bytes(raw) for key, raw in members.items())
    return b"{%b}" % b",".join(orjson.dumps(key) + b":" + part for key, part in zip(members, parts, strict=True))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Taking a text apart would drop the first of two equal keys in silence."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise Unfit(f"The key `{twice}` stands twice in one object.")
    return found


def _newest(parsed: list[tuple[str, bytes, _Entry]]) -> Iterator[tuple[str, bytes, _Entry]]:
    """The newest version of each resource in a history bundle, which lists the newest first."""
    seen: set[str] = set()
    for at, raw, entry in parsed:
        key = entry.fullUrl or (entry.request.url if entry.request else at)
        if key not in seen:
            seen.add(key)
            yield at, raw, entry


def _is_content(entry: _Entry) -> bool:
    """False for the OperationOutcome that a searchset carries about the search itself."""
    return entry.search is None or entry.search.mode != "outcome"


def _decoded(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise Unfit(f"It is not FHIR: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unfit(f"It is not JSON: {_json_fault(text) or error}.") from None


def _json_fault(text: bytes) -> str | None:
    """The fault with its place; msgspec knows none, and calls half a surrogate pair the end of the text."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return str(error)
    return None
