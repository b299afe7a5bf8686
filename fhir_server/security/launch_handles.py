"""Launches that an EHR begins: the handle that goes with an app's start, and what it stands for.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch.
The value `launch/<SHA-256>` holds one.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from hashlib import sha256

import orjson

from fhir_server.store.protocol import Clock, Store

LIFETIME = 300
"""Seconds in which the person has to log in."""

_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class EhrLaunch:
    """What was open in the EHR: ids of a `patient` and an `encounter`, "" for none. `created`: the app's, µs.

    `user`: who alone may go on with it; "" for whoever may see the patient. `banner`: whether the app has to show whose
    record it is; None where the EHR did not say.
    """

    client: str
    created: int
    user: str = ""
    patient: str = ""
    encounter: str = ""
    banner: bool | None = None


async def make_handle(store: Store, clock: Clock, launch: EhrLaunch) -> str:
    """A handle for a launch, good once and for LIFETIME seconds."""
    handle = secrets.token_urlsafe(24)
    ends = clock() + LIFETIME * _SECOND
    await store.put_value_if(_name_place(handle), orjson.dumps(asdict(launch)), None, ends)
    return handle


async def find_launch(store: Store, handle: str) -> EhrLaunch | None:
    """What a handle stands for; None for one that is not known, used or too old."""
    value = await store.get_value(_name_place(handle))
    return None if value is None else EhrLaunch(**orjson.loads(value))


async def use_handle(store: Store, handle: str) -> bool:
    """Use a handle up; False where somebody else has."""
    value = await store.get_value(_name_place(handle))
    return value is not None and await store.remove_value_if(_name_place(handle), value)


def _name_place(handle: str) -> str:
    return f"launch/{sha256(handle.encode('utf-8', 'surrogatepass')).hexdigest()}"
