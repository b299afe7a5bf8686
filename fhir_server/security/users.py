"""People who log in at this server, and their passwords (docs/access.md).

The value `user/<name>` holds one; of the password only an argon2id hash is kept.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import orjson

from fhir_server.security.policy import Grant, Principal
from fhir_server.security.scopes import ResourceScope, parse_scopes
from fhir_server.store.protocol import Clock, Store

MOST_USERS = 10_000
SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 200
MOST_FAILURES = 5
"""Wrong passwords for one name, in PAUSE seconds, after which it has to wait."""
PAUSE = 15 * 60

_PLACE = "user/"
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_REFERENCE = re.compile(r"(?:Practitioner|PractitionerRole|Patient|RelatedPerson|Person)/[A-Za-z0-9.\-]{1,64}")
_SECOND = 1_000_000
# What is compared for a name that nobody has, so that the time does not tell which names there are.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$Tnp7Fg2EbMxPZAuITtUioA$32ClrcTPUCu/06p9Vlz7CEBE1w8YXf3LYMnnV+c0qFo"

Roles = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class User:
    """One person. `fhir_user`: a reference such as `Practitioner/quill`; for a Patient, the record it may see.

    `created` (µs) tells two users of one name, one after the other, apart.
    """

    name: str
    role: str
    hash: str
    created: int
    fhir_user: str = ""
    disabled: bool = False

    @property
    def patient(self) -> str:
        """The id of the patient that the user is; "" for everybody else."""
        type, _, id = self.fhir_user.partition("/")
        return id if type == "Patient" else ""

    def list_scopes(self, roles: Roles) -> tuple[ResourceScope, ...]:
        """What the role allows now."""
        return parse_scopes(" ".join(roles.get(self.role, ())))

    def make_principal(self, roles: Roles) -> Principal:
        """The user as one who searches by the role's scopes."""
        return Principal(f"user:{self.name}", grant=Grant(self.list_scopes(roles), self.patient, self.fhir_user))


async def add_user(store: Store, user: User, password: str, roles: Roles) -> None:
    """Keep a user. Raises ValueError for what cannot be."""
    if not _NAME.fullmatch(user.name):
        raise ValueError(f"`{user.name}` cannot be a name: up to 64 letters, digits and `._@-` can.")
    if user.role not in roles:
        raise ValueError(f"There is no role `{user.role}`; roles are {', '.join(sorted(roles))}.")
    if user.fhir_user and not _REFERENCE.fullmatch(user.fhir_user):
        raise ValueError(f"`{user.fhir_user}` is no person; write a reference such as `Practitioner/quill`.")
    if any(scope.level == "patient" for scope in user.list_scopes(roles)) and not user.patient:
        raise ValueError(f"The role `{user.role}` is of a patient: say which, such as `--fhir-user Patient/ana`.")
    kept = replace(user, hash=await hash_password(password))
    if not await store.put_value_if(f"{_PLACE}{user.name}", orjson.dumps(asdict(kept)), None):
        raise ValueError(f"There is a user `{user.name}` already.")


async def find_user(store: Store, name: str) -> User | None:
    """The user of a name; None where there is none."""
    value = await store.get_value(f"{_PLACE}{name}") if _NAME.fullmatch(name) else None
    return None if value is None else User(**orjson.loads(value))


async def list_users(store: Store) -> list[User]:
    """All users, by name."""
    page = await store.list_values(_PLACE, limit=MOST_USERS)
    return [User(**orjson.loads(value)) for _, value in page.values]


async def change_user(store: Store, name: str, password: str | None = None, disabled: bool | None = None) -> None:
    """Give a user another password, or disable or enable it. Raises ValueError where there is none."""
    while True:
        value = await store.get_value(f"{_PLACE}{name}")
        if value is None:
            raise ValueError(f"There is no user `{name}`; `fhir-server user list` prints them.")
        user = User(**orjson.loads(value))
        if password is not None:
            user = replace(user, hash=await hash_password(password))
        if disabled is not None:
            user = replace(user, disabled=disabled)
        if await store.put_value_if(f"{_PLACE}{name}", orjson.dumps(asdict(user)), value):
            return


async def hash_password(password: str) -> str:
    """The argon2id hash, made beside the event loop. Raises ValueError for a password that is too short or long."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ValueError(f"A password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters.")
    # Imported here and below, because only a login needs it.
    from argon2 import PasswordHasher

    return await asyncio.to_thread(PasswordHasher().hash, password)


async def check_password(store: Store, clock: Clock, name: str, password: str) -> User | None:
    """The user of a name and a password; None for a wrong one, and after MOST_FAILURES wrong ones for a while."""
    user = await find_user(store, name)
    failures = await _count_failures(store, name)
    is_right = await asyncio.to_thread(_verify, user.hash if user is not None else _NOBODY, password[:LONGEST_PASSWORD])
    if user is None or user.disabled or not is_right or failures >= MOST_FAILURES:
        await _note_failure(store, clock, name)
        return None
    return user


def _verify(kept: str, password: str) -> bool:
    from argon2 import PasswordHasher
    from argon2.exceptions import VerificationError

    try:
        return PasswordHasher().verify(kept, password)
    except VerificationError:
        return False


def _name_failures(name: str) -> str:
    return f"login-failures/{name if _NAME.fullmatch(name) else ''}"


async def _count_failures(store: Store, name: str) -> int:
    return int(await store.get_value(_name_failures(name)) or 0)


async def _note_failure(store: Store, clock: Clock, name: str) -> None:
    """Count one more; names that nobody can have are counted together."""
    before = await store.get_value(_name_failures(name))
    after = str(min(int(before or 0) + 1, MOST_FAILURES)).encode()
    if before != after:
        await store.put_value_if(_name_failures(name), after, before, clock() + PAUSE * _SECOND)
