"""`$launch`: an EHR begins the launch of an app with the patient and the visit that are open in it.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import orjson

from fhir_server.fhir.outcome import Invalid, NotSupported
from fhir_server.fhir.resource import is_id
from fhir_server.operations.parameters import parse_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.security.clients import Client, find_client
from fhir_server.security.launch_handles import LIFETIME, EhrLaunch, make_handle

_PARAMETERS = ("client", "patient", "encounter", "need-patient-banner")


async def launch(context: Context, request: Request) -> Response:
    """POST: 201 with `launch`, good once, and where the app has a URL at which it is started, that with it as `url`."""
    if context.smart is None or not context.smart.gives_tokens:
        raise NotSupported("Apps are launched where this server gives out tokens itself (`FHIR_AUTHENTICATION=on`).")
    given = _read(context, request)
    store = context.unrestricted
    app = await find_client(store, given.get("client", ""))
    if app is None or not app.redirects:
        raise Invalid("`client` must name an app; `fhir-server client list` prints them.", expression=("client",))
    patient = await _find_patient(context, request, given.get("patient", ""))
    encounter = await _find_encounter(context, request, given.get("encounter", ""), patient)
    name = request.principal.name
    user = name.removeprefix("user:") if name.startswith("user:") else ""
    banner = {"true": True, "false": False}.get(given.get("need-patient-banner", ""))
    begun = EhrLaunch(app.id, app.created, user, patient, encounter, banner)
    handle = await make_handle(store, context.clock, begun)
    return Response(201, _write(request.base, app, handle))


def _read(context: Context, request: Request) -> dict[str, str]:
    pairs = parse_parameters(context, request)
    for name, _ in pairs:
        if name not in _PARAMETERS:
            raise Invalid(f"`$launch` has no parameter `{name}`; it has {', '.join(_PARAMETERS)}.", expression=(name,))
    given = dict(pairs)
    if len(given) < len(pairs):
        raise Invalid("Each parameter of `$launch` may be given once.")
    if given.get("need-patient-banner", "true") not in ("true", "false"):
        raise Invalid("`need-patient-banner` is `true` or `false`.", expression=("need-patient-banner",))
    return given


async def _find_patient(context: Context, request: Request, given: str) -> str:
    """The id of a patient whom the caller may see; "" where none is open."""
    if not given:
        return ""
    id = given.removeprefix("Patient/")
    stored = await context.reader(request.caller).read("Patient", id) if is_id(id) else None
    if stored is None or stored.raw is None:
        raise Invalid(f"`Patient/{id}` does not exist on this server.", code="not-found", expression=("patient",))
    return id


async def _find_encounter(context: Context, request: Request, given: str, patient: str) -> str:
    """The id of an encounter of the patient that the caller may see; "" where none is open."""
    if not given:
        return ""
    id = given.removeprefix("Encounter/")
    stored = await context.reader(request.caller).read("Encounter", id) if is_id(id) else None
    if stored is None or stored.raw is None:
        raise Invalid(f"`Encounter/{id}` does not exist on this server.", code="not-found", expression=("encounter",))
    subject: dict[str, Any] = orjson.loads(stored.raw).get("subject") or {}
    own = (f"Patient/{patient}", f"{request.base}/Patient/{patient}")
    if not patient or subject.get("reference") not in own:
        raise Invalid(f"`Encounter/{id}` is not of the `patient`.", code="value", expression=("encounter",))
    return id


def _write(base: str, app: Client, handle: str) -> bytes:
    parameters = [
        {"name": "launch", "valueString": handle},
        {"name": "expires-in", "valueInteger": LIFETIME},
    ]
    if app.launch:
        query = urlencode({"iss": base, "launch": handle})
        url = f"{app.launch}{'&' if '?' in app.launch else '?'}{query}"
        parameters.append({"name": "url", "valueUrl": url})
    return orjson.dumps({"resourceType": "Parameters", "parameter": parameters})
