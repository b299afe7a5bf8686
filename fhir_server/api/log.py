"""Log lines: JSON objects, or plain lines where a person reads them at a terminal.

One per request, with its id and never a resource's content or a value of its query.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO

import orjson

from fhir_server.requests.describe_error import describe_error

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Log = Callable[..., None]
"""(level, message, **fields) → None."""


def make_log(stream: BinaryIO, level: str) -> Log:
    """A log that writes messages of `level` and above to `stream`: plain lines on a terminal, else JSON."""
    threshold = LEVELS[level]
    write_line = write_plain_line if stream.isatty() else write_json_line

    def log(severity: str, message: str, **fields: object) -> None:
        if LEVELS[severity] < threshold:
            return
        stream.write(write_line({"time": datetime.now(UTC), "level": severity, "message": message, **fields}) + b"\n")
        stream.flush()

    return log


def write_json_line(line: Mapping[str, Any]) -> bytes:
    """The fields as one JSON object."""
    return orjson.dumps(line, default=str)


def write_plain_line(line: Mapping[str, Any]) -> bytes:
    """The time of the day, the level and the message; of a request what was asked and what came of it."""
    rest = {name: value for name, value in line.items() if name not in ("time", "level", "message", "logger")}
    said = line["message"]
    if said == "request":
        query = f"?{'&'.join(rest['query'])}" if rest.get("query") else ""
        said = (
            f"{rest['method']} {rest['path']}{query} {rest['status']}, {rest['bytes']} bytes, {rest['milliseconds']} ms"
        )
        rest = {}
    tail = f" {orjson.dumps(rest, default=str).decode()}" if rest else ""
    return f"{line['time']:%H:%M:%S} {line['level']} {said}{tail}".encode(errors="backslashreplace")


class LineFormatter(logging.Formatter):
    """Formats the records of the HTTP server's own loggers in the same way."""

    def __init__(self, plain: bool) -> None:
        super().__init__()
        self._write_line = write_plain_line if plain else write_json_line

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info and record.exc_info[1] is not None:  # its text, and what follows, could hold content
            line["message"] = record.getMessage().partition("\n")[0]
            line["error"] = describe_error(record.exc_info[1])
        return self._write_line(line).decode()
