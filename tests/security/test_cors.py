"""With authentication on: which web pages may read answers, and how often one principal may ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.fhir.outcome import TooManyRequests
from fhir_server.security.clients import Client, add_client, revoke_client
from fhir_server.security.policy import ANONYMOUS, Grant, Principal
from fhir_server.security.request_rate import MOST_PRINCIPALS, RequestRate
from tests.conftest import serving
from tests.security.test_tokens import START, Clock, act_as, guarding

pytestmark = pytest.mark.anyio
OURS, OTHERS = "https://growth.example", "https://other.example"


async def test_pages_of_registered_apps_alone_use_the_api(known: Knowledge, store_uri: str) -> None:
    clock = Clock()
    async with guarding(known, store_uri, clock) as client:
        store = client.server.context.unrestricted
        app = Client("growth", "patient/*.rs", [], START, [f"{OURS}/callback"], origins=[OURS])
        await add_client(store, app)
        headers = await act_as(client, "user/Patient.cruds")
        mine = await client.get("Patient", headers={**headers, "origin": OURS})
        assert mine.headers["access-control-allow-origin"] == OURS and "origin" in mine.headers["vary"]
        assert "access-control-allow-credentials" not in mine.headers
        other = await client.get("Patient", headers={**headers, "origin": OTHERS})
        assert other.status_code == 200 and "access-control-allow-origin" not in other.headers
        ada = {"resourceType": "Patient", "id": "ada"}
        refused = await client.put("Patient/ada", json=ada, headers={**headers, "origin": OTHERS})
        assert refused.status_code == 403 and "--origin" in refused.json()["issue"][0]["diagnostics"]
        assert (await client.put("Patient/ada", json=ada, headers={**headers, "origin": OURS})).status_code == 200
        ask = {"access-control-request-method": "PUT", "access-control-request-headers": "authorization"}
        preflights = {
            (origin, path): (await client.fhir("OPTIONS", path, headers={**ask, "origin": origin})).headers.get(
                "access-control-allow-origin"
            )
            for origin in (OURS, OTHERS, "null")
            for path in ("Patient/ada", "auth/token", "auth/userinfo", "auth/login", "auth/jwks", "metadata")
        }
        shown = {(OURS, path): OURS for path in ("Patient/ada", "auth/token", "auth/userinfo")}
        for path in ("auth/jwks", "metadata"):
            shown |= {(origin, path): "*" for origin in (OURS, OTHERS, "null")}
        assert {key: value for key, value in preflights.items() if value} == shown
        # a revoked client's pages are noticed within five seconds
        await revoke_client(store, "growth")
        clock.now += 6_000_000
        gone = await client.get("Patient", headers={**headers, "origin": OURS})
        assert "access-control-allow-origin" not in gone.headers


async def test_documents_are_for_all_pages_and_logins_for_none(known: Knowledge) -> None:
    async with guarding(known, "memory://") as client:
        for path in (".well-known/smart-configuration", ".well-known/openid-configuration", "metadata", "auth/jwks"):
            answer = await client.get(path, headers={"origin": OTHERS})
            assert answer.headers["access-control-allow-origin"] == "*", path
        login = await client.fhir("POST", "auth/login", headers={"origin": OTHERS})
        assert login.status_code == 403 and "access-control-allow-origin" not in login.headers


@pytest.mark.parametrize("origin", ["growth.example", "https://growth.example/", "https://a b", "*", "null", ""])
async def test_what_is_no_origin_is_refused(known: Knowledge, origin: str) -> None:
    async with serving(known, Seams(definitions=None), store="memory://") as client:
        with pytest.raises(ValueError, match="is no origin"):
            app = Client("growth", "patient/*.rs", [], START, [f"{OURS}/callback"], origins=[origin])
            await add_client(client.server.context.unrestricted, app)


async def test_who_asks_too_often_waits(known: Knowledge, store_uri: str, tmp_path: Path) -> None:
    clock = Clock()
    async with serving(
        known,
        Seams(clock=clock, definitions=None),
        store=store_uri,
        authentication="on",
        audit_folder=str(tmp_path / "audit"),
        request_rate=3,
    ) as client:
        busy, other = await act_as(client, "user/Patient.rs"), await act_as(client, "user/Patient.rs")
        for _ in range(3):
            assert (await client.get("Patient", headers=busy)).status_code == 200
        late = await client.get("Patient", headers=busy)
        assert (late.status_code, late.headers["retry-after"]) == (429, "20")
        assert late.json()["issue"][0]["code"] == "throttled"
        assert (await client.get("Patient", headers=other)).status_code == 200
        clock.now += 20_000_000
        assert (await client.get("Patient", headers=busy)).status_code == 200
        assert (await client.get("Patient", headers=busy)).status_code == 429
        assert (await client.get("metadata", headers=busy)).status_code == 200
    (file,) = (tmp_path / "audit").iterdir()
    refused = [line for line in file.read_text().splitlines() if '"code":"throttled"' in line]
    assert len(refused) == 2 and all("HTTP 429" in line and '"name":"Patient"' in line for line in refused)


def test_the_count_of_principals_is_bounded() -> None:
    clock = Clock()
    rate = RequestRate(1, clock)
    for number in range(MOST_PRINCIPALS + 10):
        rate.check(Principal(f"p{number}", grant=Grant(())))
    assert len(rate._left) == MOST_PRINCIPALS
    with pytest.raises(TooManyRequests):
        rate.check(Principal(f"p{MOST_PRINCIPALS}", grant=Grant(())))
    for _ in range(3):
        rate.check(ANONYMOUS)
        RequestRate(0, clock).check(Principal("p", grant=Grant(())))
