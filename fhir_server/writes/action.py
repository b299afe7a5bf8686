"""One write that a request or a bundle entry asks for, and its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fhir_server.fhir.outcome import Issue
from fhir_server.fhir.resource import Text
from fhir_server.requests.request import Pairs
from fhir_server.store.operations import Content, Method

Patch = Callable[[Any], Any]
"""A lossless JSON tree (`fhir.json_tree`) → the patched tree."""


class Action(NamedTuple):
    """A create, update, patch or delete before it is planned.

    `id`: the id in the URL, None for a create and for conditional interactions. `fresh`: the id that a new resource
    gets, fixed before the first attempt so that a repeated plan makes the same resource. `criteria`: the search pairs
    of a conditional interaction (If-None-Exist on a create). `if_match`: the version that must be current, or
    `headers.ANY_VERSION`.
    `absent`: `If-None-Match: *`, nothing may be there. `where`: `Bundle.entry[n]`, or "". `purge`: the
    deletion that comes before a physical removal. `decided`: the operation that chose it has applied the rule of the
    type itself, so that it is not asked. `patch_size`: bytes of the patch's text. `is_new`: it is asserted, without a
    look, that nothing has the `id`. `is_valid`: its resource was made so that it is right, which is not
    checked again.
    """

    method: Method
    type: str
    fresh: str
    id: str | None = None
    criteria: Pairs | None = None
    text: Text | None = None
    patch: Patch | None = None
    if_match: int | None = None
    absent: bool = False
    full_url: str = ""
    where: str = ""
    purge: bool = False
    patch_size: int = 0
    decided: bool = False
    is_new: bool = False
    is_valid: bool = False


class WriteResult(NamedTuple):
    """The result of an action: the HTTP status and the version that is current now.

    `version` 0: there was nothing to delete. `content` or `raw` holds the resource; neither after a delete.
    `issues`: what the rule of the type remarks on the write.
    """

    status: int
    type: str
    id: str
    version: int
    last_updated: int
    content: Content | None = None
    raw: bytes | None = None
    issues: tuple[Issue, ...] = ()

    def text(self) -> bytes:
        """The complete resource; b"" after a delete."""
        if self.raw is not None:
            return self.raw
        return b"" if self.content is None else self.content.build_text(self.version, self.last_updated)
