"""HTTP status lines as `Bundle.entry.response.status` has them."""

from __future__ import annotations

import functools
from http import HTTPStatus


@functools.cache
def status_line(status: int) -> str:
    """`201 Created` for 201."""
    return f"{status} {HTTPStatus(status).phrase}"
