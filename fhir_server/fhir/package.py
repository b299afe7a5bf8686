"""FHIR packages: the conformance resources of an implementation guide in one archive (https://confluence.hl7.org/display/FHIR/NPM+Package+Specification)."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".tgz"

_FOLDER = "package/"
_NOT_RESOURCES = frozenset({"package.json", ".index.json"})
_GUIDE = "ImplementationGuide-"
"""The guide refers to every example; examples are not definitions, so that its references would lead nowhere."""


def read_definitions(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, JSON text) of each definition of a package, in its order, without examples and the guide that lists them.

    Raises OSError or tarfile.TarError for a file that is no such archive.
    """
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = member.name.removeprefix(_FOLDER)
            content = archive.extractfile(member) if member.isfile() and _is_definition(name) else None
            if content is not None:
                yield name, content.read()


def _is_definition(name: str) -> bool:
    return "/" not in name and name.endswith(".json") and name not in _NOT_RESOURCES and not name.startswith(_GUIDE)
