"""Fresh ids of requests, and of resources: UUIDs that begin with the time.

https://www.rfc-editor.org/rfc/rfc9562#section-5.7
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable

from fhir_server.store.protocol import Clock


def make_id_source(clock: Clock) -> Callable[[], str]:
    """Fresh resource ids: UUIDs of version 7 (RFC 9562), which begin with the time.

    Ids in the order of time let writes of one time touch the same pages of an index; each random id would touch another
    one (`docs/decisions/0010`). Random bits are read many at a time, as each system call costs 20 µs.
    """
    random_numbers: list[int] = []
    moment = count = 0

    def new_id() -> str:
        nonlocal moment, count
        if not random_numbers:
            pool = os.urandom(8 * 256)
            random_numbers.extend(int.from_bytes(pool[at : at + 8]) for at in range(0, len(pool), 8))
        random, milliseconds = random_numbers.pop(), clock() // 1000
        if milliseconds > moment:
            moment, count = milliseconds, 0
        elif count < 0xFFF:
            count += 1
        else:
            moment, count = moment + 1, 0
        digits = f"{moment << 16 | 0x7000 | count:016x}{random & 2**62 - 1 | 1 << 63:016x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    return new_id


def make_request_ids() -> Callable[[], str]:
    """Ids for requests without `X-Request-Id`: a random part for the process, and a count."""
    process, count = secrets.token_hex(4), itertools.count(1)
    return lambda: f"{process}{next(count):08x}"
