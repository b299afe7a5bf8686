"""Clients of the built-in authorization server: who may get tokens, with which keys and scopes (docs/access.md).

The value `client/<id>` holds one: a system that proves who it is with a key of its own
(https://hl7.org/fhir/smart-app-launch/STU2.2/backend-services.html), or an app that people use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from fhir_server.security.scopes import WrongScope, parse_scopes
from fhir_server.store.protocol import Store

MOST_CLIENTS = 1000
MOST_KEYS = 10
"""Keys of a client."""

_PLACE = "client/"
_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_LOOPBACK = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::[0-9]{1,5})?((?:[/?].*)?)", re.ASCII)
"""The URL of an app on the person's own machine: place and path without the port."""
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "k"})


@dataclass(frozen=True, slots=True)
class Client:
    """One client. `keys`: a system's public keys, as JSON Web Keys; `redirects`: the URLs at which an app goes on.

    `scopes`: the most that it gets; `created`: µs; `launch`: the URL at which an EHR starts the app, "" for none;
    `native`: whether it runs on the person's own machine, on any port there. `origins`: those of its web pages,
    which may use the API from a browser.
    """

    id: str
    scopes: str
    keys: list[dict[str, Any]]
    created: int
    redirects: list[str] = field(default_factory=list)
    launch: str = ""
    native: bool = False
    origins: list[str] = field(default_factory=list)

    def may_go_on_at(self, url: str) -> bool:
        """Whether it is one of the app's URLs; at `127.0.0.1` and `[::1]` a native app has any port (RFC 8252, 7.3)."""
        if url in self.redirects:
            return True
        place = _LOOPBACK.fullmatch(url) if self.native else None
        kept = filter(None, map(_LOOPBACK.fullmatch, self.redirects))
        return place is not None and place.groups() in [each.groups() for each in kept]


async def add_client(store: Store, client: Client) -> None:
    """Keep a client. Raises ValueError for what cannot be."""
    if not _ID.fullmatch(client.id):
        raise ValueError(f"`{client.id}` cannot be a client's name: up to 64 letters, digits and `-._~` can.")
    if bool(client.keys) == bool(client.redirects):
        raise ValueError("A client is a system with keys, or an app with the URLs at which it goes on; not both.")
    levels = {scope.level for scope in parse_scopes(client.scopes)}
    if client.keys and "patient" in levels:
        raise WrongScope("A client that no person uses has no patient: give it scopes that begin with `system/`.")
    if client.redirects and "system" in levels:
        raise WrongScope("An app acts for who uses it: give it scopes that begin with `patient/` or `user/`.")
    for url in (*client.redirects, *filter(None, [client.launch])):
        check_redirect(url)
    if client.native and not any(map(_LOOPBACK.fullmatch, client.redirects)):
        raise ValueError("A native app goes on at `http://127.0.0.1` or `http://[::1]`: give it such a URL.")
    for origin in client.origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"`{origin[:200]}` is no origin: write one such as `https://app.example`, with no path.")
    if not parse_scopes(client.scopes):
        raise WrongScope("The client could get nothing; give it a scope such as `system/Observation.rs`.")
    if len(await list_clients(store)) >= MOST_CLIENTS:
        raise ValueError(f"{MOST_CLIENTS} clients is the most; revoke those that nobody uses.")
    if not await store.put_value_if(f"{_PLACE}{client.id}", orjson.dumps(asdict(client)), None):
        raise ValueError(f"There is a client `{client.id}` already; revoke it first, or choose another name.")


async def find_client(store: Store, id: str) -> Client | None:
    """The client of a name; None where there is none."""
    value = await store.get_value(f"{_PLACE}{id}") if _ID.fullmatch(id) else None
    return None if value is None else Client(**orjson.loads(value))


async def list_clients(store: Store) -> list[Client]:
    """All clients, by name."""
    page = await store.list_values(_PLACE, limit=MOST_CLIENTS)
    return [Client(**orjson.loads(value)) for _, value in page.values]


async def revoke_client(store: Store, id: str) -> bool:
    """Forget a client, whose tokens are then worthless; False when there is none."""
    value = await store.get_value(f"{_PLACE}{id}")
    return value is not None and await store.remove_value_if(f"{_PLACE}{id}", value)


def check_redirect(url: str) -> None:
    """Raise ValueError for a URL at which no app may go on: neither https nor http on the user's own machine."""
    parts = urlsplit(url)
    is_local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    if not (parts.scheme == "https" or is_local) or not parts.hostname or parts.fragment or not url.isascii():
        raise ValueError(f"`{url}` cannot be an app's URL: write one with https, or http on this machine, without `#`.")


def read_public_keys(document: object) -> list[dict[str, Any]]:
    """The keys of a JSON Web Key Set (RFC 7517, section 5). Raises ValueError for what cannot verify an assertion."""
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(keys, Sequence) or not 1 <= len(keys) <= MOST_KEYS:
        raise ValueError(f'A key set is an object with `keys`, 1 to {MOST_KEYS} of them: `{{"keys": [{{"kty": …}}]}}`.')
    for key in keys:
        if not isinstance(key, dict) or key.get("kty") not in ("RSA", "EC") or not isinstance(key.get("kid"), str):
            raise ValueError("Each key needs `kty` `RSA` or `EC`, and a `kid`.")
        if _PRIVATE & set(key):
            raise ValueError(f"The key `{key['kid']}` has its private part; give the public part alone.")
    return list(keys)
