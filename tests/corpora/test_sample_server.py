"""`make serve`'s server, on its sample clinic, takes the Synthea bundles over HTTP and answers the README's queries."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import orjson
import pytest

from tests.corpora.corpus import JSON, files
from tests.faults.process import ROOT, serving_process

pytestmark = pytest.mark.anyio

ROW = re.compile(r"^\| `([A-Z][^`]*)` \| .* \| (\d+) \|$", re.MULTILINE)
AT_ONCE = 4


def queries() -> dict[str, int]:
    """The searches that the README and the examples show, and how many resources match in the sample clinic alone."""
    pages = ("README.md", "examples/queries.md")
    return {query: int(count) for page in pages for query, count in ROW.findall((ROOT / page).read_text("utf-8"))}


def loaded(database: Path) -> Counter[str]:
    """Load the sample clinic as `make serve` does; what it holds, by type."""
    command = (sys.executable, "-m", "fhir_server", "load", "examples", "--store", f"sqlite:///{database}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return types(*sorted((ROOT / "examples").glob("*.json")))


def types(*bundles: Path) -> Counter[str]:
    entries = [entry for path in bundles for entry in orjson.loads(path.read_bytes())["entry"]]
    return Counter(entry["resource"]["resourceType"] for entry in entries)


async def count(client: httpx.AsyncClient, query: str) -> int:
    answer = await client.get(f"/{query}{'&' if '?' in query else '?'}_total=accurate", headers=JSON)
    assert answer.status_code == 200, (query, answer.text)
    return int(answer.json()["total"])


async def take_and_answer(database: Path, bundles: list[Path]) -> None:
    expected = loaded(database) + types(*bundles)
    with serving_process(database) as process:
        async with process.client() as client:
            asked = queries()
            assert len(asked) > 15
            assert {query: await count(client, query) for query in asked} == asked
            for start in range(0, len(bundles), AT_ONCE):
                posts = [
                    client.post("/", content=path.read_bytes(), headers=JSON) for path in bundles[start:][:AT_ONCE]
                ]
                answers = await asyncio.gather(*posts)
                assert [answer.status_code for answer in answers] == [200] * len(answers)
            assert {type: await count(client, type) for type in expected} == dict(expected)
            less = {query: found for query in asked if (found := await count(client, query)) < asked[query]}
            assert less == {}


@pytest.mark.external
async def test_a_few_bundles(tmp_path: Path) -> None:
    await take_and_answer(tmp_path / "fhir.db", files("synthea")[:2])


@pytest.mark.long
async def test_all_bundles(tmp_path: Path) -> None:
    await take_and_answer(tmp_path / "fhir.db", files("synthea"))
