"""The second factor, and the number of logins that one name and one network may get wrong.

RFC 6238; the codes are compared with the test vectors of the RFC, and made by pyotp as an authenticator app does.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pyotp
import pytest

from fhir_server.api.address import find_network
from fhir_server.security.clients import Client as App
from fhir_server.security.clients import add_client
from fhir_server.security.logins import MOST_FAILURES, MOST_FAILURES_OF_NETWORK, PAUSE, Attempt, check_login
from fhir_server.security.totp import STEP, accept_code, make_secret, make_uri
from fhir_server.security.users import User, change_user
from fhir_server.settings import Settings
from fhir_server.store.memory import open_store
from tests.conftest import Client
from tests.security.smart import NOW, PASSWORD, Clock, make_request, read_state, wait

pytestmark = pytest.mark.anyio

ADA = User("ada", "patient", "", NOW, "Patient/ada", totp=make_secret())


def read_now(client: Client, secret: str, later: int = 0) -> str:
    """The code that the authenticator app shows."""
    return pyotp.TOTP(secret).at(client.server.context.clock() // 1_000_000 + later)


async def log_in(client: Client, name: str, code: str = "", password: str = PASSWORD) -> int:
    client.cookies.clear()
    page = await client.get("auth/authorize", params=make_request())
    form = {"state": read_state(page), "username": name, "password": password, "code": code}
    answer: httpx.Response = await client.post("auth/login", data=form)
    return answer.status_code


async def test_who_has_a_second_factor_needs_its_code(client: Client) -> None:
    secret = make_secret()
    await change_user(client.server.context.unrestricted, "ada", totp=secret)
    for wrong in ("", "000000x", "12345", read_now(client, make_secret()), read_now(client, secret, 3 * STEP)):
        assert await log_in(client, "ada", wrong) == 401
    wait(client, PAUSE)
    # a wrong password does not use the code up
    code = read_now(client, secret)
    assert await log_in(client, "ada", code, "wrong") == 401
    assert await log_in(client, "ada", f"{code[:3]} {code[3:]}") == 200
    assert await log_in(client, "ada", code) == 401  # it is good once
    wait(client, STEP)
    assert await log_in(client, "ada", read_now(client, secret)) == 200
    # who has none needs none, and whoever gets rid of it neither
    assert await log_in(client, "quill") == 200
    await change_user(client.server.context.unrestricted, "ada", totp="")
    assert await log_in(client, "ada") == 200


async def test_a_code_that_races_with_itself_is_taken_once(client: Client) -> None:
    context = client.server.context
    secret = make_secret()
    user = replace(ADA, totp=secret)
    code = read_now(client, secret)
    taken = await asyncio.gather(*(accept_code(context.unrestricted, context.clock, user, code) for _ in range(5)))
    assert taken.count(True) == 1
    # a code of the step before is none any more
    before = read_now(client, secret, -STEP)
    assert not await accept_code(context.unrestricted, context.clock, user, before)


VECTORS = [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (2000000000, "279037")]
"""RFC 6238, appendix B, SHA-1: time, and the last six of its eight digits."""


@pytest.mark.parametrize(("now", "code"), VECTORS)
async def test_codes_are_those_of_the_rfc(now: int, code: str) -> None:
    clock = Clock()
    clock.now = now * 1_000_000
    user = replace(ADA, totp="GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")  # "12345678901234567890"
    store = await open_store("memory://", clock)
    assert await accept_code(store, clock, user, code)
    assert make_uri(user, "clinic").startswith("otpauth://totp/clinic:ada?secret=GEZD")


async def test_a_network_has_to_wait_whatever_names_it_tries() -> None:
    clock = Clock()
    store = await open_store("memory://", clock)
    for number in range(MOST_FAILURES_OF_NETWORK + 5):
        attempt = Attempt(f"name{number}", "wrong", network="192.0.2.1")
        assert await check_login(store, clock, attempt) is None
    assert await store.get_value("login-failures-of/192.0.2.1") == str(MOST_FAILURES_OF_NETWORK).encode()
    for number in range(MOST_FAILURES + 1):
        assert await check_login(store, clock, Attempt("one", "wrong", network=f"198.51.100.{number}")) is None
    assert await store.get_value("login-failures/one") == str(MOST_FAILURES).encode()
    clock.now += PAUSE * 1_000_000
    assert await store.get_value("login-failures-of/192.0.2.1") is None


async def test_the_right_password_from_a_network_that_waits_is_refused(client: Client) -> None:
    context = client.server.context
    place = "login-failures-of/127.0.0.1"  # from where the tests come
    value = str(MOST_FAILURES_OF_NETWORK).encode()
    until = context.clock() + PAUSE * 1_000_000
    assert await context.unrestricted.put_value_if(place, value, None, until)
    assert await log_in(client, "quill") == 401
    wait(client, PAUSE)
    assert await log_in(client, "quill") == 200


@pytest.mark.parametrize(
    ("peer", "proxies", "forwarded", "network"),
    [
        ("192.0.2.7", "", "", "192.0.2.7"),
        ("192.0.2.7", "", "198.51.100.1", "192.0.2.7"),  # anybody may write that
        ("10.0.0.1", "10.0.0.0/8", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.0/8", "203.0.113.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.0/8", "", ""),
        ("10.0.0.1", "10.0.0.0/8", "junk", ""),
        ("2001:db8:1:2:3:4:5:6", "", "", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "", "", "192.0.2.7"),
        ("10.0.0.1", "10.0.0.0/8", "[2001:db8::1]", "2001:db8::/64"),
        (None, "", "", ""),
    ],
)
def test_the_network_of_a_login(peer: str | None, proxies: str, forwarded: str, network: str) -> None:
    settings = cast(Settings, SimpleNamespace(proxies=proxies))
    scope: dict[str, Any] = {"client": None if peer is None else (peer, 5000)}
    assert find_network(settings, scope, {"x-forwarded-for": forwarded} if forwarded else {}) == network


NATIVE = ["http://127.0.0.1/done", "http://[::1]:9/done?x=1", "https://app.example/done"]


@pytest.mark.parametrize(
    ("url", "is_own"),
    [
        ("http://127.0.0.1/done", True),
        ("http://127.0.0.1:51004/done", True),
        ("http://[::1]:51004/done?x=1", True),
        ("http://[::1]/done?x=1", True),
        ("http://127.0.0.1:51004/other", False),
        ("http://127.0.0.1:51004/done/", False),
        ("http://127.0.0.1:51004/done?y", False),
        ("http://[::1]:51004/done", False),
        ("http://127.0.0.1:510040/done", False),
        ("http://127.0.0.1:/done", False),
        ("http://127.0.0.1:1@evil.example/done", False),
        ("http://127.0.0.1.evil.example/done", False),
        ("http://localhost:51004/done", False),
        ("https://127.0.0.1:51004/done", False),
        ("https://app.example:51004/done", False),
    ],
)
async def test_a_native_app_has_any_port_of_its_own_machine(url: str, is_own: bool) -> None:
    app = App("native", "patient/*.rs", [], NOW, NATIVE, native=True)
    assert app.may_go_on_at(url) is is_own
    assert replace(app, native=False).may_go_on_at(url) is (url in NATIVE)


async def test_a_native_app_needs_such_a_url() -> None:
    store = await open_store("memory://", Clock())
    with pytest.raises(ValueError, match="native app goes on at"):
        await add_client(store, App("x", "patient/*.rs", [], NOW, ["https://app.example/"], native=True))
