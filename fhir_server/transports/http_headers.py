"""The headers by which we say to a partner who we are: from files, so that no secret stands in its TOML (RFC 6750).

A file is read at each sending, so that a new token needs no start. What is wrong with one is told by its name and line,
never by its content.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from fhir_server.transports.protocol import Endpoint

LARGEST_FILE = 65_536
"""Bytes of a file of headers, or of a token."""

MOST_HEADERS = 50

OURS = frozenset({"accept", "connection", "content-length", "content-type", "host", "transfer-encoding"})
"""Headers that the transport sets."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class WrongHeaders(ValueError):
    """A file cannot be used; str is a full sentence without anything of its content."""


def read_headers(endpoint: Endpoint) -> dict[str, str]:
    """The headers of an endpoint, whose keys `token_file` and `headers_file` are paths. Raises WrongHeaders."""
    headers: dict[str, str] = {}
    if path := endpoint.get("headers_file"):
        headers |= _read_lines(path)
    if path := endpoint.get("token_file"):
        token = _read_text(path).strip()
        if not _TOKEN.fullmatch(token):
            raise WrongHeaders(f"`{path}` holds no bearer token: one line of letters, digits and `-._~+/=`.")
        if any(name.lower() == "authorization" for name in headers):
            raise WrongHeaders("`Authorization` stands in `headers_file`, and there is a `token_file`; keep one.")
        headers["Authorization"] = f"Bearer {token}"
    return headers


def hide_secrets(text: str, headers: Iterable[str]) -> str:
    """A text without the values of headers, and without what follows the scheme in one of them."""
    for value in sorted({part for each in headers for part in (each, each.rpartition(" ")[2])}, key=len, reverse=True):
        text = text.replace(value, "…")
    return text


def _read_lines(path: str) -> dict[str, str]:
    """`Name: value` in each line; empty lines, and those that begin with `#`, are left out."""
    headers: dict[str, str] = {}
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value.strip()):
            raise WrongHeaders(f"`{path}`, line {number}: it is no `Name: value` of printable ASCII.")
        if name.lower() in OURS:
            raise WrongHeaders(f"`{path}`, line {number}: the header `{name}` is set by the server itself.")
        if name.lower() in {each.lower() for each in headers}:
            raise WrongHeaders(f"`{path}`, line {number}: the header `{name}` stands there twice.")
        headers[name] = value.strip()
    if len(headers) > MOST_HEADERS:
        raise WrongHeaders(f"`{path}` has {len(headers)} headers; at most {MOST_HEADERS} are sent.")
    return headers


def _read_text(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise WrongHeaders(f"`{path}` cannot be read: {error.strerror}.") from None
    if len(raw) > LARGEST_FILE:
        raise WrongHeaders(f"`{path}` has more than {LARGEST_FILE} bytes.")
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise WrongHeaders(f"`{path}` is not ASCII text.") from None
