"""People who log in at this server, and their passwords (docs/access.md).

The value `user/<name>` holds one; of the password only an argon2id hash is kept.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import orjson

from fhir_server.security.policy import Grant, Principal
from fhir_server.security.scopes import BREAK_GLASS, ResourceScope, fill_scopes, parse_scopes
from fhir_server.store.protocol import Store

MOST_USERS = 10_000
SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 200

_PLACE = "user/"
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_ORGANIZATION = re.compile(r"Organization/[A-Za-z0-9.\-]{1,64}")
_REFERENCE = re.compile(r"(?:Practitioner|PractitionerRole|Patient|RelatedPerson|Person)/[A-Za-z0-9.\-]{1,64}")

Roles = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class User:
    """One person. `fhir_user`: a reference such as `Practitioner/quill`; for a Patient, the record it may see.

    `created` (µs) tells two users of one name, one after the other, apart. `totp`: the secret of the second factor, in
    base 32; "" for none. `organization`: a reference to the one that the person works for, "" for none.
    """

    name: str
    role: str
    hash: str
    created: int
    fhir_user: str = ""
    disabled: bool = False
    totp: str = ""
    organization: str = ""

    @property
    def patient(self) -> str:
        """The id of the patient that the user is; "" for everybody else."""
        type, _, id = self.fhir_user.partition("/")
        return id if type == "Patient" else ""

    def list_scopes(self, roles: Roles) -> tuple[ResourceScope, ...]:
        """What the role allows now."""
        return self._fill_in(roles.get(self.role, ()))

    def list_opened(self, roles: Roles) -> tuple[ResourceScope, ...]:
        """What the role opens now in an emergency."""
        words = roles.get(self.role, ())
        return self._fill_in([word.removeprefix(BREAK_GLASS) for word in words if word.startswith(BREAK_GLASS)])

    def _fill_in(self, words: Iterable[str]) -> tuple[ResourceScope, ...]:
        values = {"patient": self.patient, "fhirUser": self.fhir_user, "organization": self.organization}
        return fill_scopes(parse_scopes(" ".join(words)), values)

    def make_principal(self, roles: Roles) -> Principal:
        """The user as one who searches by the role's scopes."""
        return Principal(f"user:{self.name}", grant=Grant(self.list_scopes(roles), self.patient, self.fhir_user))


async def add_user(store: Store, user: User, password: str, roles: Roles) -> None:
    """Keep a user. Raises ValueError for what cannot be."""
    if not is_name(user.name):
        raise ValueError(f"`{user.name}` cannot be a name: up to 64 letters, digits and `._@-` can.")
    if user.role not in roles:
        raise ValueError(f"There is no role `{user.role}`; roles are {', '.join(sorted(roles))}.")
    if user.fhir_user and not _REFERENCE.fullmatch(user.fhir_user):
        raise ValueError(f"`{user.fhir_user}` is no person; write a reference such as `Practitioner/quill`.")
    check_organization(user.organization)
    if any(scope.level == "patient" for scope in user.list_scopes(roles)) and not user.patient:
        raise ValueError(f"The role `{user.role}` is of a patient: say which, such as `--fhir-user Patient/ana`.")
    kept = replace(user, hash=await hash_password(password))
    if not await store.put_value_if(f"{_PLACE}{user.name}", orjson.dumps(asdict(kept)), None):
        raise ValueError(f"There is a user `{user.name}` already.")


def check_organization(reference: str) -> None:
    """Raise ValueError for what is no reference to an Organization of this server; "" is for none."""
    if reference and not _ORGANIZATION.fullmatch(reference):
        raise ValueError(f"`{reference}` is no organization; write a reference such as `Organization/north`.")


def is_name(text: str) -> bool:
    """Whether a user may be called so."""
    return _NAME.fullmatch(text) is not None


async def find_user(store: Store, name: str) -> User | None:
    """The user of a name; None where there is none."""
    value = await store.get_value(f"{_PLACE}{name}") if is_name(name) else None
    return None if value is None else User(**orjson.loads(value))


async def list_users(store: Store) -> list[User]:
    """All users, by name."""
    page = await store.list_values(_PLACE, limit=MOST_USERS)
    return [User(**orjson.loads(value)) for _, value in page.values]


async def change_user(
    store: Store, name: str, password: str | None = None, disabled: bool | None = None, totp: str | None = None
) -> User:
    """The user with another password, disabled, enabled, or with another second factor. Raises ValueError for none."""
    while True:
        value = await store.get_value(f"{_PLACE}{name}")
        if value is None:
            raise ValueError(f"There is no user `{name}`; `fhir-server user list` prints them.")
        user = User(**orjson.loads(value))
        if password is not None:
            user = replace(user, hash=await hash_password(password))
        if disabled is not None:
            user = replace(user, disabled=disabled)
        if totp is not None:
            user = replace(user, totp=totp)
        if await store.put_value_if(f"{_PLACE}{name}", orjson.dumps(asdict(user)), value):
            return user


async def hash_password(password: str) -> str:
    """The argon2id hash, made beside the event loop. Raises ValueError for a password that is too short or long."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ValueError(f"A password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters.")
    # Imported here, because only who sets a password needs it.
    from argon2 import PasswordHasher

    return await asyncio.to_thread(PasswordHasher().hash, password)
