"""Page tokens: what a `next` link carries, readable and forgeable by nobody else (https://hl7.org/fhir/R4/http.html#paging).

A token holds the terms of a search, which may have been POSTed to keep them out of URLs and logs: so it is encrypted.

Construction, version 1 (SIV: the tag is the nonce, so there is none to reuse):

    text   = JSON, longer ones zlib(JSON)     S = secret of the store, 32 bytes
    tag    = BLAKE2b-128(key=S, person="fhir-page-tag-1", text)
    sealed = text XOR SHAKE-256(BLAKE2b-256(key=S, person="fhir-page-key-1", tag))
    token  = base64url(0x01 | tag | sealed)

Both keyed hashes are pseudorandom functions, separated by `person`. Opening decrypts, then computes the tag of what
came out: only the holder of S can make one that agrees. Equal payloads make equal tokens; beyond that a token shows
only its length.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import zlib
from collections.abc import Mapping
from hashlib import blake2b, shake_256
from typing import Any

import orjson

from fhir_server.fhir.outcome import Invalid, TooCostly

VERSION = 1
_TAG_BYTES = 16
_SHORT = 512
"""Bytes that are not compressed: meanwhile another thread has the interpreter, and to get it back takes longer."""
MAX_LENGTH = 60_000
"""Characters; the server reads URLs of up to 65,535."""


def seal(secret: bytes, payload: Mapping[str, Any]) -> str:
    """The token of a JSON object, whose member `expires` is checked by `open_token`; `secret` is `store.page_key()`.

    Raises TooCostly for one that is too long for a URL: then nobody could follow the link.
    """
    text = orjson.dumps(payload)
    if len(text) > _SHORT:
        text = zlib.compress(text, 1)
    tag = _compute_tag(secret, text)
    token = _encode(bytes((VERSION,)) + tag + _crypt(secret, tag, text))
    if len(token) > MAX_LENGTH:
        raise TooCostly(
            "The link to the next page would be longer than a URL may be. Ask for fewer values at once, or for more "
            "matches on a page with a larger `_count`."
        )
    return token


def open_token(secret: bytes, token: str, now: int) -> dict[str, Any]:
    """The payload of a token; Invalid if not made with this secret, changed, or expired before `now`.

    `now` is in the unit of the payload's `expires`.
    """
    sealed = _decode(token)
    tag, crypted = sealed[1 : 1 + _TAG_BYTES], sealed[1 + _TAG_BYTES :]
    text = _crypt(secret, tag, crypted)
    if sealed[:1] != bytes((VERSION,)) or not hmac.compare_digest(tag, _compute_tag(secret, text)):
        raise Invalid("This page link was not made by this server or was changed; start the search again.")
    payload: dict[str, Any] = orjson.loads(text if text[:1] == b"{" else zlib.decompress(text))
    if payload.get("expires", now) < now:
        raise Invalid("This page link has expired; start the search again.", code="expired")
    return payload


def _decode(token: str) -> bytes:
    """The bytes of the one spelling that `_encoded` gives them; b"", whose tag is never right, for all else."""
    try:
        sealed = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    except (binascii.Error, UnicodeEncodeError):
        return b""
    return sealed if _encode(sealed) == token else b""


def _encode(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def _compute_tag(secret: bytes, text: bytes) -> bytes:
    return blake2b(text, key=secret, digest_size=_TAG_BYTES, person=b"fhir-page-tag-1").digest()


def _crypt(secret: bytes, tag: bytes, text: bytes) -> bytes:
    """`text` combined with the key stream of the tag: encrypts and decrypts."""
    key = blake2b(tag, key=secret, digest_size=32, person=b"fhir-page-key-1").digest()
    stream = shake_256(key).digest(len(text))
    return (int.from_bytes(text, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(text), "big")
