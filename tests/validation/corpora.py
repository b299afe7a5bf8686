"""The resources of ../shared that tests of this folder read."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any

import orjson

from tests.shared import shared_path

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def folder(path: str) -> Iterator[tuple[str, Any]]:
    """The JSON files of a folder, by name."""
    for file in sorted(shared_path(path).glob("*.json")):
        yield file.name, orjson.loads(file.read_bytes())


def package(path: str) -> Iterator[tuple[str, Any]]:
    """The resources of an npm package, by name."""
    with tarfile.open(shared_path(path)) as archive:
        for member in archive:
            if not member.isfile() or not member.name.endswith(".json"):
                continue
            file = archive.extractfile(member)
            assert file is not None
            resource = orjson.loads(file.read().removeprefix(BYTE_ORDER_MARK))
            if "resourceType" in resource:
                yield member.name, resource
