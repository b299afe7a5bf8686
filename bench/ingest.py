"""A folder of transaction bundles posted whole, again and again; every pass makes new resources (https://hl7.org/fhir/R4/http.html#transaction)."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from bench.answers import Answer
from bench.http import Target
from bench.measuring import Lane, Limits, Phase, Request, Samples, measure

_ENTRY_REFUSED = re.compile(rb'"status"\s*:\s*"[45]')


@dataclass(frozen=True, slots=True)
class Posting:
    """A bundle's text as it is in its file, and how many entries it has."""

    name: str
    text: bytes
    entries: int


@dataclass(frozen=True, slots=True)
class Folder:
    """The bundles of a folder, largest first, and how many resources of each type they hold."""

    postings: tuple[Posting, ...]
    types: Counter[str]


def read_folder(path: Path) -> Folder:
    """The bundles at `path`. Raises OSError, and ValueError for JSON that is no transaction or batch."""
    postings, types = [], Counter[str]()
    for file in _find_json(path):
        text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        bundle = orjson.loads(text)
        if not isinstance(bundle, dict) or bundle.get("type") not in ("transaction", "batch"):
            raise ValueError(f"`{file}` is not a transaction or batch bundle: the bench posts the folder as it is.")
        postings.append(Posting(file.name, text, len(bundle["entry"])))
        types.update(entry["resource"]["resourceType"] for entry in bundle["entry"] if "resource" in entry)
    if not postings:
        raise ValueError(f"`{path}` has no bundles (`.json` or `.json.gz`).")
    return Folder(tuple(sorted(postings, key=lambda posting: -len(posting.text))), types)


def _find_json(path: Path) -> list[Path]:
    """The file itself, or all `.json` and `.json.gz` files of a folder that are not hidden, at any depth."""
    if not path.is_dir():
        return [path]
    visible = (file for file in path.rglob("*.json*") if not re.search(r"(^|/)\.", file.relative_to(path).as_posix()))
    return sorted(file for file in visible if file.name.endswith((".json", ".json.gz")))


class Ingest:
    """One pass over the folder, the smallest bundle last, so that all connections end at about the same time."""

    name = "ingest"

    def __init__(self, target: Target, folder: Folder) -> None:
        self._target = target
        self._left = list(reversed(folder.postings))

    def ask(self) -> Request | None:
        """See `Phase.ask`."""
        if not self._left:
            return None
        posting = self._left.pop()
        return Request(self._target.request("POST", "", posting.text), posting.name, (200,), posting.entries)

    def learn(self, request: Request, answer: Answer) -> bool:
        """See `Phase.learn`: a refused entry of a batch is an error."""
        return not _ENTRY_REFUSED.search(answer.body)


async def post_folder(lanes: Sequence[Lane], folder: Folder) -> list[Samples]:
    """One pass on each lane, one lane after the other."""
    phases: list[Phase] = [Ingest(lane.target, folder) for lane in lanes]
    return await measure(lanes, phases, Limits(None))
