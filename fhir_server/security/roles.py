"""Roles: lists of scopes by name, in `profiles/roles.json` and in the site's own folder (docs/access.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import orjson

from fhir_server.security.scopes import BREAK_GLASS, WrongScope, check_placeholders, parse_scope


def read_roles(files: Iterable[Path]) -> Mapping[str, tuple[str, ...]]:
    """Name of a role → its scopes; a later file replaces a role of an earlier one. Files that are not there count not.

    Raises ValueError with file and role for what is no list of scopes.
    """
    roles: dict[str, tuple[str, ...]] = {}
    for file in files:
        if file.is_file():
            roles |= _read_file(file)
    return roles


def _read_file(file: Path) -> Mapping[str, tuple[str, ...]]:
    try:
        content = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ValueError(f"`{file}` is not JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"`{file}` must be an object of roles, each a list of scopes.")
    roles = {}
    for name, scopes in content.items():
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise ValueError(f"The role `{name}` in `{file}` must be a list of scopes.")
        try:
            roles[name] = tuple(_read_word(scope) for scope in scopes)
        except WrongScope as error:
            raise ValueError(f"The role `{name}` in `{file}`: {error}") from None
    return roles


def _read_word(word: str) -> str:
    """A scope in its usual form; with `break-glass:` before it, one of emergencies. Raises WrongScope."""
    text = word.removeprefix(BREAK_GLASS)
    scope = parse_scope(text)
    check_placeholders(scope)
    return f"{word.removesuffix(text)}{scope}"
