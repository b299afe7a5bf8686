"""By which name a request addresses this server, and the base URL that follows (https://www.rfc-editor.org/rfc/rfc9110#section-7.4).

Forwarded headers count from the proxies of the setting `proxies` alone: anybody else could write anything in them.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

from fhir_server.api.request import Scope
from fhir_server.fhir.outcome import Invalid
from fhir_server.settings import Settings, parse_networks, split_list

# What goes into links: a header could bring anything, quotes included.
_BASE = re.compile(r"https?://(?:[A-Za-z0-9.\-_~]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9.\-_~%]+)*")

_PORT = re.compile(r":[0-9]+$")
_LONGEST_HOST = 260
"""Characters of a name with its port: DNS takes 253 (https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4)."""
_MOST_HOPS = 20
"""Proxies that a request may have come through."""
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost", "ip6-loopback"})
_FORWARDED = frozenset({"x-forwarded-host", "forwarded", "x-forwarded-proto", "x-forwarded-prefix", "x-forwarded-port"})


class Address(NamedTuple):
    """Scheme, `host` or `host:port`, and the path that a proxy has put before ours, without slash at its end."""

    scheme: str
    host: str
    prefix: str = ""


def is_from_proxy(settings: Settings, scope: Scope) -> bool:
    """Whether the connection comes from one of the proxies of the settings."""
    client = scope.get("client") if settings.proxies else None
    return client is not None and _is_proxy(settings.proxies, client[0])


@functools.lru_cache(maxsize=1024)
def _is_proxy(proxies: str, client: str) -> bool:
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in parse_networks(proxies))


def names_forwarder(headers: dict[str, str]) -> bool:
    """Whether a request has headers that only a proxy writes."""
    return not _FORWARDED.isdisjoint(headers)


def find_address(settings: Settings, scope: Scope, headers: dict[str, str]) -> Address:
    """How the client addressed this server: what Host says, or a proxy of the settings."""
    scheme: str = scope.get("scheme", "http")
    host, prefix = headers.get("host", ""), ""
    if is_from_proxy(settings, scope):
        forwarded = _parse_forwarded(headers.get("forwarded", ""))
        scheme = headers.get("x-forwarded-proto", forwarded.get("proto", scheme)).partition(",")[0].strip().lower()
        host = headers.get("x-forwarded-host", forwarded.get("host", host)).partition(",")[0].strip()
        prefix = headers.get("x-forwarded-prefix", "").partition(",")[0].strip().rstrip("/")
        host = _add_port(scheme, host, headers.get("x-forwarded-port", "").partition(",")[0].strip())
    if not host:
        server = scope.get("server") or ("localhost", None)
        name = f"[{server[0]}]" if ":" in server[0] else server[0]
        host = name if server[1] is None else f"{name}:{server[1]}"
    return Address(scheme, host, prefix)


def find_base_url(settings: Settings, scope: Scope, headers: dict[str, str]) -> str:
    """The public base URL: the setting, or what Host and the headers of a known proxy say."""
    return settings.base_url or _build_base_url(*find_address(settings, scope, headers), settings.path)


@functools.lru_cache(maxsize=256)
def _build_base_url(scheme: str, host: str, prefix: str, path: str) -> str:
    url = f"{scheme}://{host}{prefix}{path.rstrip('/')}"
    if _BASE.fullmatch(url):
        return url
    raise Invalid(
        f"`{url}`, the base URL that Host and the forwarded headers make, is no http URL; correct these headers.",
        code="value",
    )


def find_network(settings: Settings, scope: Scope, headers: dict[str, str]) -> str:
    """The IPv4 address or the IPv6 /64 that a request comes from, as proxies of the settings say; "" where unknown."""
    address = (scope.get("client") or ("",))[0]
    hops = headers.get("x-forwarded-for", "").split(",")[-_MOST_HOPS:]
    while address and settings.proxies and _is_proxy(settings.proxies, address):
        address = hops.pop().strip().removeprefix("[").removesuffix("]") if hops else ""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))


def _add_port(scheme: str, host: str, port: str) -> str:
    """The host with the port that a proxy was reached at, unless it names one or the port goes without saying."""
    if not port or not host or _PORT.search(host) or port == _DEFAULT_PORTS.get(scheme):
        return host
    return f"{host}:{port}"


def _parse_forwarded(header: str) -> dict[str, str]:
    """The first hop of a `Forwarded` header (RFC 7239)."""
    pairs = (part.strip().partition("=") for part in header.partition(",")[0].split(";") if "=" in part)
    return {name.lower(): value.strip('"') for name, _, value in pairs}


def is_own_name(hosts: str, base_url: str, host: str) -> bool:
    """Whether `host` or `host:port` is a name of this server; `hosts` and `base_url` are the settings.

    An IP address is one: no page can make it lead elsewhere.
    """
    return len(host) <= _LONGEST_HOST and _is_own_name(hosts, base_url, host)


@functools.lru_cache(maxsize=1024)
def _is_own_name(hosts: str, base_url: str, host: str) -> bool:
    name = _PORT.sub("", host).lower().removesuffix(".")
    try:
        ipaddress.ip_address(name[1:-1] if name.startswith("[") else name)
    except ValueError:
        own = {*_LOOPBACK_NAMES, socket.gethostname().lower(), *split_list(hosts.lower())}
        return name in own or (bool(base_url) and name == urlsplit(base_url).hostname)
    return True


def is_same_authority(address: Address, origin: str) -> bool:
    """Whether the origin of a page, such as `https://fhir.clinic.example`, is the address of this server.

    A page that came over https may address a server that sees http, behind a proxy that ends TLS; never the other way.
    """
    scheme, _, authority = origin.lower().partition("://")
    if scheme not in ("http", address.scheme, "https") or (scheme == "http" and address.scheme == "https"):
        return False
    return _drop_port(scheme, authority) in (
        _drop_port(address.scheme, address.host.lower()),
        _drop_port(scheme, address.host.lower()),
    )


def _drop_port(scheme: str, authority: str) -> str:
    """The authority without the port that goes without saying."""
    return authority.removesuffix(f":{_DEFAULT_PORTS.get(scheme, '')}")
