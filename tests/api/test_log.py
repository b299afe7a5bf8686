"""Log lines: JSON for programs, plain lines at a terminal, and never a value of a query."""

from __future__ import annotations

import io
import json
import logging
import os
import pty

import pytest

from fhir_server.api.log import LineFormatter, make_log

REQUEST = {"method": "GET", "path": "/fhir/Patient", "query": ["name", "_count"], "status": 200, "bytes": 5}


def test_programs_get_json() -> None:
    stream = io.BytesIO()
    make_log(stream, "info")("info", "request", **REQUEST, milliseconds=1.5)
    assert json.loads(stream.getvalue())["query"] == ["name", "_count"]


def test_people_get_plain_lines() -> None:
    reading, writing = pty.openpty()
    with os.fdopen(writing, "wb", buffering=0) as stream, os.fdopen(reading, "rb", buffering=0) as terminal:
        log = make_log(stream, "info")
        log("info", "request", **REQUEST, milliseconds=1.5)
        log("debug", "not at this level")
        log("warning", "worker rests", worker="jobs")
        lines = [terminal.readline().decode().rstrip() for _ in range(2)]
    assert lines[0][9:] == "info GET /fhir/Patient?name&_count 200, 5 bytes, 1.5 ms"
    assert lines[1][9:] == 'warning worker rests {"worker":"jobs"}'


@pytest.mark.parametrize("plain", [True, False])
def test_the_lines_of_the_http_server_look_the_same(plain: bool) -> None:
    record = logging.LogRecord("uvicorn", logging.WARNING, __file__, 1, "it %s", ("happened",), None)
    line = LineFormatter(plain).format(record)
    assert line.endswith("warning it happened") if plain else json.loads(line)["message"] == "it happened"
