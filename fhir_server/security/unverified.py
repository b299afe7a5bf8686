"""What a JSON Web Token says before anything is verified: enough to find the key by which it is."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson


def read_unverified(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and claims. Raises ValueError for what is no JSON Web Token."""
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("A JSON Web Token has three parts.")
    header, claims = (orjson.loads(base64.urlsafe_b64decode(part + "===")) for part in parts[:2])
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise ValueError("Header and claims of a JSON Web Token are objects.")
    return header, claims
