"""The installation's own definitions, stored at every start: SearchParameters, value sets, profiles (https://hl7.org/fhir/R4/conformance-module.html).

Storing them makes them what any other resource is: read, searched, and in force as soon as they are there. What is
stored already and the same is left alone.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from fhir_server.fhir import package
from fhir_server.fhir.outcome import FhirError
from fhir_server.fhir.resource import is_id, parse
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.store.operations import Transaction
from fhir_server.writes.action import Action
from fhir_server.writes.commit import commit_bundle

_AT_ONCE = 100


async def store_conformance_resources(context: Context, folder: Path) -> None:
    """Store the resources of a folder's JSON files and packages. Raises ValueError that names the file at fault."""
    actions: list[Action] = []
    for name, text in _read_texts(folder):
        action = _text_to_action(context, name, text)
        if action is not None:
            actions.append(action)
    for start in range(0, len(actions), _AT_ONCE):
        try:
            await commit_bundle(
                context, actions[start : start + _AT_ONCE], Caller(context.settings.base_url), Transaction()
            )
        except FhirError as error:
            issue = error.issues[0]
            raise ValueError(f"{', '.join(issue.expression)}: {issue.diagnostics}") from None


def _read_texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    if not folder.is_dir():
        raise ValueError(f"The folder of profiles, `{folder}`, is not there; correct the setting `FHIR_PROFILES`.")
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            yield str(path), path.read_bytes()
        elif path.suffix == package.SUFFIX:
            try:
                yield from ((f"{path}:{name}", text) for name, text in package.read_definitions(path))
            except tarfile.TarError as error:
                raise ValueError(f"`{path}` is no FHIR package: {error}.") from None


def _text_to_action(context: Context, name: str, text: bytes) -> Action | None:
    """The update that stores a resource; None for JSON that is none, or of a type that is not served."""
    try:
        parsed = parse(text)
    except FhirError as error:
        raise ValueError(f"`{name}` cannot be stored: {error}") from None
    type, id = parsed.tree.get("resourceType"), parsed.tree.get("id")
    if type not in context.types:
        return None
    if not isinstance(id, str) or not is_id(id):
        raise ValueError(f"`{name}` needs an `id`, under which it is stored.")
    return Action("PUT", type, id, id=id, text=parsed, where=name)
