"""Log lines as JSON objects: one per request, with its id and never a resource's content or a query string."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import BinaryIO

import orjson

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Log = Callable[..., None]
"""(level, message, **fields) → None."""


def make_json_log(stream: BinaryIO, level: str) -> Log:
    """A log that writes messages of `level` and above to `stream`."""
    threshold = LEVELS[level]

    def log(severity: str, message: str, **fields: object) -> None:
        if LEVELS[severity] < threshold:
            return
        line = {"time": datetime.now(UTC), "level": severity, "message": message, **fields}
        stream.write(orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE))
        stream.flush()

    return log


class JsonFormatter(logging.Formatter):
    """Formats the records of the HTTP server's own loggers in the same way."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one JSON object."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()
