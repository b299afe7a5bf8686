"""Logins of people: name, password and, where a person has one, the code of an authenticator app (RFC 6238).

Wrong ones are counted by name and by the network that they come from (`login-failures/…`), for PAUSE seconds.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fhir_server.security.totp import accept_code
from fhir_server.security.users import LONGEST_PASSWORD, User, find_user, is_name
from fhir_server.store.protocol import Clock, Store

MOST_FAILURES = 5
"""Wrong logins for one name, in PAUSE seconds, after which it has to wait."""
MOST_FAILURES_OF_NETWORK = 50
"""As many of one network, which may be that of a whole clinic."""
PAUSE = 15 * 60

_SECOND = 1_000_000
# What is compared for a name that nobody has, so that the time does not tell which names there are.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$Tnp7Fg2EbMxPZAuITtUioA$32ClrcTPUCu/06p9Vlz7CEBE1w8YXf3LYMnnV+c0qFo"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One login, as it was sent. `code`: "" for none; `network`: where it comes from, "" where that is not known."""

    name: str
    password: str
    code: str = ""
    network: str = ""

    def list_counts(self) -> list[tuple[str, int]]:
        """(where failures are counted, how many there may be); names that nobody can have are counted together."""
        name = self.name if is_name(self.name) else ""
        counts = [(f"login-failures/{name}", MOST_FAILURES)]
        return [*counts, (f"login-failures-of/{self.network}", MOST_FAILURES_OF_NETWORK)] if self.network else counts


async def check_login(store: Store, clock: Clock, attempt: Attempt) -> User | None:
    """Who logs in; None for anything wrong, and for a while after too many wrong ones. They look the same."""
    user = await find_user(store, attempt.name)
    counts = attempt.list_counts()
    has_to_wait = any([int(await store.get_value(place) or 0) >= most for place, most in counts])
    kept = user.hash if user is not None else _NOBODY
    is_right = await asyncio.to_thread(_verify, kept, attempt.password[:LONGEST_PASSWORD])
    may_log_in = user is not None and is_right and not user.disabled and not has_to_wait
    # last, since it uses the code up
    if may_log_in and user is not None and await accept_code(store, clock, user, attempt.code):
        return user
    for place, most in counts:
        await _note_failure(store, clock, place, most)
    return None


def _verify(kept: str, password: str) -> bool:
    # Imported here, because only a login needs it.
    from argon2 import PasswordHasher
    from argon2.exceptions import VerificationError

    try:
        return PasswordHasher().verify(kept, password)
    except VerificationError:
        return False


async def _note_failure(store: Store, clock: Clock, place: str, most: int) -> None:
    """Count one more, up to the most, whatever other processes count at the same time."""
    while True:
        before = await store.get_value(place)
        after = str(min(int(before or 0) + 1, most)).encode()
        if before == after or await store.put_value_if(place, after, before, clock() + PAUSE * _SECOND):
            return
