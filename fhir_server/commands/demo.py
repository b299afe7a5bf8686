"""`fhir-server demo`: a visit of the sample clinic from booking to a balance of zero, in memory, request by request."""

from __future__ import annotations

import asyncio
import json
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import typer

from fhir_server.app import Seams, Server, find_shipped, open_server
from fhir_server.commands.demo_story import JSON, STORY, X12, ZONE, Call, Tree
from fhir_server.settings import read_settings
from fhir_server.workers.running import work_off
from fhir_server.workers.table import WORKERS

_BASE = "http://localhost/fhir"
_WIDTH = 160


class StoryClock:
    """The time of the story, µs since 1970; a millisecond passes at each look."""

    def __init__(self) -> None:
        self._now = 0

    def __call__(self) -> int:
        self._now += 1000
        return self._now

    def set(self, text: str) -> None:
        """Go on to a time, written with its offset."""
        self._now = int(datetime.fromisoformat(text).timestamp()) * 1_000_000


def demo() -> None:
    """Play one visit from booking to a balance of zero on the sample clinic, in memory, and say what is sent."""
    failed = asyncio.run(play(typer.echo))
    if failed:
        typer.echo(failed, err=True)
        raise typer.Exit(1)


async def play(say: Any) -> str:
    """Play the story, saying each step; the step that failed, or nothing."""
    clock = StoryClock()
    clock.set(STORY[0].clock)
    with tempfile.TemporaryDirectory() as folder:
        _write_partner(Path(folder))
        settings = read_settings(store="memory://", profiles=folder, base_url=_BASE, time_zone=ZONE, log_level="error")
        async with open_server(settings, log=lambda *_, **__: None, seams=Seams(clock=clock)) as server:
            transport = httpx.ASGITransport(server.api)
            async with httpx.AsyncClient(transport=transport, base_url=f"{_BASE}/") as client:
                for file in sorted(find_shipped("examples").glob("*.json")):
                    loaded = await client.post("", content=file.read_bytes(), headers={"content-type": JSON})
                    if loaded.is_error:
                        return f"The sample clinic cannot be loaded: {loaded.text}"
                return await _play(server, client, clock, say)


async def _play(server: Server, client: httpx.AsyncClient, clock: StoryClock, say: Any) -> str:
    answers: dict[str, Tree] = {}
    for number, step in enumerate(STORY, 1):
        if step.clock:
            clock.set(step.clock)
        say(f"\n{number}. {step.says}")
        if step.worker:
            await work_off(server.context, WORKERS[step.worker])
        call = step.call(answers)
        answer = await _send(client, call)
        say(f"   {call.method} /fhir/{call.url}")
        for line in _describe(call):
            say(f"   {line}")
        if answer.is_error:
            return f"{answer.status_code}: {answer.text}"
        answers[step.name] = answer.json()
        told = step.tells(answers[step.name]).replace("\n", "\n   ")
        say(f"   → {answer.status_code}: {told}")
    return ""


async def _send(client: httpx.AsyncClient, call: Call) -> httpx.Response:
    headers = {"accept": JSON, "content-type": X12 if isinstance(call.body, str) else JSON}
    body = call.body if isinstance(call.body, str) or call.body is None else json.dumps(call.body)
    return await client.request(call.method, call.url, content=body, headers=headers)


def _describe(call: Call) -> list[str]:
    """The body: X12 a segment a line, JSON on one line that is not too long."""
    if isinstance(call.body, str):
        return call.body.splitlines()
    if call.body is None:
        return []
    text = json.dumps(call.body)
    return [text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"]


def _write_partner(folder: Path) -> None:
    """The clearinghouse of the sample clinic, with folders that are there."""
    text = (find_shipped("examples") / "clearinghouse.toml").read_text(encoding="utf-8")
    partners = folder / "partners"
    partners.mkdir()
    for name in ("in", "done", "failed", "out"):
        (folder / "clearinghouse" / name).mkdir(parents=True)
    (partners / "clearinghouse.toml").write_text(text.replace("/srv/", f"{folder.as_posix()}/"), encoding="utf-8")
