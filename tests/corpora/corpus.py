"""The official examples and Synthea bundles of ../shared/data, and how what is stored compares with what was sent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import orjson

from tests.shared import shared_path

JSON = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}
SERVER_MADE = frozenset({"id", "meta"})
"""The members of a resource that the server may change."""

_URN_REFERENCE = re.compile(rb'("reference"\s*:\s*")(urn:uuid:[^"]+)"')
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Sent:
    """A resource as a client sends it: `raw` is its text, `full_url` that of its bundle entry ("" outside bundles)."""

    name: str
    type: str
    id: str | None
    raw: bytes
    full_url: str = ""


class _Entry(msgspec.Struct, rename="camel"):
    full_url: str
    resource: msgspec.Raw


class _Bundle(msgspec.Struct):
    entry: list[_Entry]


def files(folder: str) -> list[Path]:
    """The JSON files of a folder of ../shared/data, the smallest first; the test is skipped where it is absent."""
    return sorted(shared_path(f"data/{folder}").glob("*.json"), key=lambda path: (path.stat().st_size, path.name))


def examples() -> list[Sent]:
    """The official R4 examples, by name."""
    return [_sent(path.name, path.read_bytes()) for path in sorted(files("r4-examples"))]


def spread(sent: Sequence[Sent], every: int = 3) -> list[Sent]:
    """The first resource of each `every`-th type."""
    first = {each.type: each for each in reversed(sent)}
    return [first[type] for type in sorted(first)[::every]]


def entries(bundle: bytes) -> list[Sent]:
    """The entries of a bundle, each resource with the bytes it has there."""
    return [
        _sent(entry.full_url, bytes(entry.resource), entry.full_url)
        for entry in msgspec.json.decode(bundle, type=_Bundle).entry
    ]


def _sent(name: str, raw: bytes, full_url: str = "") -> Sent:
    tree = orjson.loads(raw)
    return Sent(name, tree["resourceType"], tree.get("id"), raw, full_url)


def kept(raw: bytes) -> dict[str, bytes]:
    """The top-level members that the server has to keep, each with the bytes of its value, in their order."""
    return {
        name: bytes(value)
        for name, value in _members.decode(raw).items()
        if name not in SERVER_MADE and name != "resourceType"
    }


def differing(sent: bytes, stored: bytes) -> list[str]:
    """The members that are not the same bytes in both; ["(order)"] when only their order differs."""
    before, after = kept(sent), kept(stored)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return names or ([] if [*before] == [*after] else ["(order)"])


def rewritten(raw: bytes, locations: Mapping[str, str]) -> bytes:
    """The text with `Reference.reference` of each full URL replaced by its `Type/id`; no other byte changes."""
    return _URN_REFERENCE.sub(
        lambda match: match[1] + locations.get(match[2].decode(), match[2].decode()).encode() + b'"', raw
    )


def references(tree: object) -> Iterator[str]:
    """Every `Reference.reference` in a tree."""
    if isinstance(tree, dict):
        if isinstance(tree.get("reference"), str):
            yield tree["reference"]
        for value in tree.values():
            yield from references(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from references(value)


async def next_page(client: httpx.AsyncClient, bundle: Mapping[str, object]) -> dict[str, object] | None:
    """The page that a bundle's `next` link leads to, or None."""
    links: list[dict[str, str]] = bundle["link"]  # type: ignore[assignment]
    url = next((link["url"] for link in links if link["relation"] == "next"), None)
    if url is None:
        return None
    answer = await client.get(url, headers=JSON)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def walk(client: httpx.AsyncClient, url: str) -> list[dict[str, object]]:
    """The pages of a search or history, from the first to the last."""
    answer = await client.get(url, headers=JSON)
    assert answer.status_code == 200, answer.text
    page, pages = answer.json(), []
    while page is not None:
        pages.append(page)
        page = await next_page(client, page)
    return pages
