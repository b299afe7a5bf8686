"""What a row of an operations table says (https://hl7.org/fhir/R4/operations.html)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from fhir_server.requests.context import Context
from fhir_server.requests.request import FHIR_JSON, Request, Response

Handler = Callable[[Context, Request], Awaitable[Response]]
Level = Literal["system", "type", "instance", "version"]

ANY = "*"
MOST_BYTES = 1024 * 1024
"""Bytes of Parameters, or of a resource that is looked at and not stored: they are read on the event loop."""
_FORMS: Mapping[Level, str] = {"system": "", "type": "{}/", "instance": "{}/id/", "version": "{}/id/_history/version/"}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: its code (without `$`), the methods it answers, its OperationDefinition and its handler.

    `definition`: its URL, `{type}` in it standing for the resource type. `setting`: the setting that switches it on.
    `at`: where it is called, per resource type (ANY for all of them). `takes`, `gives`: media types of its body and of
    its answer; the first one of `gives` is what a client gets that names none (`Request.media_type`). `keyed`: a key in
    its URL is the permission, so that nobody needs a token and no policy is asked whether it may be called.
    `needs`: resource type → letters of SMART scopes (`cruds`) that its caller needs on it, ANY for the type in its URL;
    what it writes of other types is the server's own. Each row says it, `{}` where a token alone is enough. `as_job`:
    with `Prefer: respond-async` a worker carries it out; it only reads.
    `most_bytes`: of its body; None for what is read in a thread, and may be as large as any body.
    """

    code: str
    methods: tuple[str, ...]
    definition: str
    documentation: str
    handler: Handler
    at: Mapping[str, tuple[Level, ...]] = field(default_factory=lambda: {ANY: ("instance",)})
    setting: str = ""
    takes: tuple[str, ...] = (FHIR_JSON,)
    gives: tuple[str, ...] = (FHIR_JSON,)
    keyed: bool = False
    needs: Mapping[str, str] | None = None
    as_job: bool = False
    most_bytes: int | None = MOST_BYTES

    @property
    def speaks_other_media(self) -> bool:
        """Whether its body or its answer may be something else than FHIR JSON."""
        return (self.takes, self.gives) != ((FHIR_JSON,), (FHIR_JSON,))

    def list_levels(self, type: str | None) -> tuple[Level, ...]:
        """Where it is called for a resource type; for None, at the system."""
        if type is None:
            return tuple(level for level in self.at.get(ANY, ()) if level == "system")
        return tuple(level for level in self.at.get(type, self.at.get(ANY, ())) if level != "system")

    def list_forms(self) -> Iterator[str]:
        """The URLs that it is called on, such as `Type/id/$meta`."""
        for type, levels in self.at.items():
            yield from (f"{_FORMS[level].format('Type' if type == ANY else type)}${self.code}" for level in levels)
