"""Tokens that no honest library makes: parts put together by hand."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

DEEP = '{"a":' * 3000 + "1" + "}" * 3000
"""JSON of many levels."""


def encode(content: Any) -> str:
    """A part of a JSON Web Token."""
    text = content if isinstance(content, str) else json.dumps(content)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def sign_by_secret(claims: dict[str, Any], secret: bytes) -> str:
    """HS256, which the library refuses to make with a public key."""
    text = f"{encode({'alg': 'HS256', 'kid': 'one'})}.{encode(claims)}"
    tag = hmac.new(secret, text.encode(), "sha256").digest()
    return f"{text}.{base64.urlsafe_b64encode(tag).rstrip(b'=').decode()}"


def replace_header(token: str, header: dict[str, Any]) -> str:
    """The token under another header."""
    return f"{encode(header)}.{token.partition('.')[2]}"
