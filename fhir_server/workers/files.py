"""Files of messages as they come in: what the reader of a format gets, and what it says came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from fhir_server.partners import Partner
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller


class FileArrival(NamedTuple):
    """A file of a partner: its bytes in pieces, to be read once.

    `check` is to be awaited before each message: it raises when the process ends or has lost its lease, and nothing
    may catch that. The file then comes again as a whole, so that messages that were accepted are met again.
    """

    context: Context
    caller: Caller
    partner: Partner
    pieces: Iterable[bytes]
    check: Callable[[], Awaitable[None]]


class FileAnswer(NamedTuple):
    """An acknowledgement that goes to the partner's folder `out`; its control number becomes the file's name."""

    control_number: str
    text: bytes
    content_type: str


class FileResult(NamedTuple):
    """What came of a file: how many messages were accepted, and a sentence for each that was not, or for the file.

    `task`: the id of the first message's Task, which the answers are about.
    """

    accepted: int = 0
    refused: Sequence[str] = ()
    answers: Sequence[FileAnswer] = ()
    task: str = ""


class FileFormat(NamedTuple):
    """How files of a format come in.

    `begins`: whether the first bytes of a file are those of the format. `take` gives its messages to the intake
    (`workers/messages.py`) one by one; one that is refused stops no other. It raises StoreError where the store can
    write nothing: the file stays where it is.
    """

    begins: Callable[[bytes], bool]
    take: Callable[[FileArrival], Awaitable[FileResult]]
