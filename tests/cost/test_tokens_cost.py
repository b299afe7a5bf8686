"""What a token lets its bearer see is looked up in bounded time, however many scopes it has, beside the event loop."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import combinations
from pathlib import Path

import httpx
import pytest

from fhir_server.app import Knowledge
from fhir_server.requests.long_work import THREAD_FROM
from fhir_server.security import check
from fhir_server.security.scopes import MOST_SCOPES, PERMISSIONS
from fhir_server.security.static_tokens import StaticToken, create_token
from tests.conftest import Client, serving
from tests.cost.measuring import JSON, LONG_WAIT, REPEATS, check_loop_turns
from tests.cost.test_large_answers import LARGE, overhear
from tests.cost.test_large_answers import store as store_large

pytestmark = pytest.mark.anyio

YEARS = 10**15


@asynccontextmanager
async def secured(known: Knowledge, folder: Path) -> AsyncIterator[Client]:
    """A server whose client may do everything."""
    store, audit = f"sqlite:///{folder}/fhir.db", str(folder / "audit")
    async with serving(known, store=store, authentication="on", audit_folder=audit, **LONG_WAIT) as client:
        client.headers.update(await make_header(client, "system/*.cruds"))
        yield client


async def make_header(client: Client, scopes: str) -> dict[str, str]:
    now = client.server.context.clock()
    token = StaticToken(uuid.uuid4().hex, scopes, "", "", now, now + YEARS)
    return {"authorization": f"Bearer {await create_token(client.server.context.unrestricted, token, {})}"}


async def test_a_token_of_many_scopes_keeps_nobody_waiting(known: Knowledge, tmp_path: Path) -> None:
    """Of every type, with as many characters of queries as a token may have."""
    letters = ["".join(each) for size in range(1, 6) for each in combinations(PERMISSIONS, size)]
    bare = [f"{level}/*.{each}" for level in ("system", "user") for each in letters if "s" not in each]
    async with secured(known, tmp_path) as client:
        await client.put("/Patient/p", json={"resourceType": "Patient", "id": "p"}, headers=JSON)
        headers = []
        for repeat in range(REPEATS):
            queries = [f"system/*.rs?_tag=t{repeat}{number},{'x' * 40}" for number in range(8)]
            headers.append(await make_header(client, " ".join([*bare, *queries][:MOST_SCOPES])))

        async def get(url: str, number: int) -> httpx.Response:
            return await client.get(url, headers=headers[number])

        for url in ("/Patient/p", "/?_lastUpdated=gt2020", "/_history"):
            answer = await check_loop_turns(partial(get, url))
            assert answer.status_code == 200


async def test_what_a_token_may_see_is_looked_up_beside_the_loop(
    known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with secured(known, tmp_path) as client:
        await store_large(client, LARGE)
        header = await make_header(client, "system/Patient.cruds?gender:missing=true")
        parsed = overhear(check, monkeypatch)
        patient = {"resourceType": "Patient", "id": "p", "language": "en"}
        for url in ("/Patient/p", "/Patient/p/_history", "/Patient/p/_history/1"):
            assert (await client.get(url, headers=header)).status_code == 200
        assert (await client.put("/Patient/p", json=patient, headers={**JSON, **header})).status_code == 200
    assert len(parsed) >= 2, "the version before the write, and the one that it makes"
    assert {on_loop for size, on_loop in parsed if size >= THREAD_FROM} == {False}
