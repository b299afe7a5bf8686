"""The second factor of a person: six digits that an authenticator app shows for half a minute (RFC 6238, by pyotp)."""

from __future__ import annotations

from fhir_server.security.users import User
from fhir_server.store.protocol import Clock, Store

STEP = 30
"""Seconds of a code."""
NEAR = 1
"""Steps by which the clock of a phone may differ."""

_SECOND = 1_000_000


def make_secret() -> str:
    """The secret that server and authenticator app share, in base 32."""
    # Imported here and below, because only people with a second factor need it.
    import pyotp

    return pyotp.random_base32()


def make_uri(user: User, issuer: str) -> str:
    """What an authenticator app takes, also as a QR code (`otpauth://totp/…`)."""
    import pyotp

    return pyotp.TOTP(user.totp).provisioning_uri(name=user.name, issuer_name=issuer)


async def accept_code(store: Store, clock: Clock, user: User, code: str) -> bool:
    """Whether a code is the one of now and has not been used, by whatever process; whoever has no secret needs none."""
    if not user.totp:
        return True
    now = clock() // _SECOND
    step = _find_step(user.totp, code.replace(" ", ""), now)
    return step is not None and await _use_step(store, f"totp/{user.name}", step, now)


def _find_step(secret: str, code: str, now: int) -> int | None:
    """The step, counted since 1970, whose code it is."""
    import pyotp
    from pyotp.utils import strings_equal

    if not (code.isascii() and code.isdigit()):
        return None
    generator, step = pyotp.TOTP(secret), now // STEP
    near = range(max(step - NEAR, 0), step + NEAR + 1)
    return next((each for each in near if strings_equal(generator.at(each * STEP), code)), None)


async def _use_step(store: Store, place: str, step: int, now: int) -> bool:
    """Use up the codes up to a step; False where that was done before (RFC 6238, section 5.2)."""
    before = await store.get_value(place)
    if before is not None and int(before) >= step:
        return False
    ends = (now + 2 * (NEAR + 1) * STEP) * _SECOND
    return await store.put_value_if(place, str(step).encode(), before, ends)
