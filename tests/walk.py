"""The commands of a page, followed in their order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx

from tests.conftest import Client

ROOT = Path(__file__).resolve().parents[1]


async def follow(client: Client, page: str, title: str = "", about: str = "") -> list[httpx.Response]:
    """The answers to the curl commands of a page, or of one of its sections, whose line has `about` in it."""
    text = (ROOT / page).read_text("utf-8")
    if title:
        text = text.split(f"## {title}\n")[1].split("\n## ")[0]
    answers = []
    for line in re.findall(r"^curl .*$", text, re.MULTILINE):
        if about not in line:
            continue
        words = shlex.split(line)
        url = urlsplit(next(word for word in words if word.startswith("http")))
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
        answers.append(
            await client.request(
                method,
                url.path.removeprefix("/fhir/"),
                params=dict(parse_qsl(url.query)),
                content=words[words.index("-d") + 1] if "-d" in words else "",
                headers=headers,
            )
        )
    return answers
