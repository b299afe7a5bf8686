"""The patient and the visit that an app is launched with: from the EHR, of the person, or chosen on the page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fhir_server.api.login_pages import Choice
from fhir_server.fhir.resource import is_id
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_criteria
from fhir_server.requests.request import Caller
from fhir_server.search.query import EVERYTHING, Query, Scope, Sort
from fhir_server.security.launch import LaunchRequest
from fhir_server.security.launch_handles import EhrLaunch
from fhir_server.security.scopes import ResourceScope
from fhir_server.security.users import User
from fhir_server.store.protocol import Page

MOST_LISTED = 20
"""Patients, or visits of a patient, among whom to choose."""
NO_ENCOUNTER = "none"
"""What the page sends for a launch without a visit."""
_KINDS = {
    "AMB": "ambulatory",
    "EMER": "emergency",
    "FLD": "field",
    "HH": "home health",
    "IMP": "inpatient",
    "OBSENC": "observation",
    "SS": "short stay",
    "VR": "virtual",
}
"""Classes of visits (v3-ActCode) in words."""
_MINUTE = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[\d:.]*(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Ids, "" for none. `banner`: see `EhrLaunch`."""

    patient: str = ""
    encounter: str = ""
    banner: bool | None = None


@dataclass(frozen=True, slots=True)
class Launching:
    """Who launches what: the request, the person, what it is granted, and what the EHR began, if it did."""

    asked: LaunchRequest
    user: User
    granted: Sequence[ResourceScope]
    begun: EhrLaunch | None = None

    @property
    def is_of_patient(self) -> bool:
        """Whether the app works with one patient."""
        return self.asked.asks("launch/patient") or any(scope.level == "patient" for scope in self.granted)


async def choose_context(
    context: Context, caller: Caller, launching: Launching, form: Mapping[str, str]
) -> Chosen | Choice | None:
    """What is chosen, or what is still to be chosen on the page; None for a patient of the EHR that is hidden."""
    begun, user = launching.begun, launching.user
    if begun is not None and begun.patient:
        return await _take_begun(context, caller, user, begun)
    patient = ""
    if launching.is_of_patient:
        patient = user.patient or form.get("patient", "")
        if not user.patient and (form.get("action") == "find" or not await _is_visible(context, caller, patient)):
            return await _offer_patients(context, caller, form)
    if not (patient and launching.asked.asks("launch/encounter")):
        return Chosen(patient)
    return await _choose_encounter(context, caller, patient, form)


async def _take_begun(context: Context, caller: Caller, user: User, begun: EhrLaunch) -> Chosen | None:
    if user.patient not in ("", begun.patient) or not await _is_visible(context, caller, begun.patient):
        return None
    encounter = begun.encounter
    if encounter and await context.reader(caller).read("Encounter", encounter) is None:
        encounter = ""
    return Chosen(begun.patient, encounter, begun.banner)


async def _choose_encounter(context: Context, caller: Caller, patient: str, form: Mapping[str, str]) -> Chosen | Choice:
    encounters, is_cut = await _find_encounters(context, caller, patient)
    given = form.get("encounter", "")
    if given in dict(encounters):
        return Chosen(patient, given)
    if given == NO_ENCOUNTER or not encounters:
        return Chosen(patient)
    offered = [*encounters, (NO_ENCOUNTER, "no visit")]
    person = await describe_patient(context, caller, patient)
    return Choice(patient=patient, person=person, encounters=offered, is_cut=is_cut)


async def _is_visible(context: Context, caller: Caller, patient: str) -> bool:
    stored = await context.reader(caller).read("Patient", patient) if is_id(patient) else None
    return stored is not None and stored.raw is not None


async def _offer_patients(context: Context, caller: Caller, form: Mapping[str, str]) -> Choice:
    """Patients to choose from, once a name was searched for; the one that is chosen stays so while it is listed."""
    fault = "Choose a patient." if form.get("action") == "allow" else ""
    if "name" not in form:
        return Choice(patients=[], fault=fault)
    patients, is_cut = await _find_patients(context, caller, form["name"])
    chosen = form.get("patient", "")
    return Choice(
        patients=patients,
        patient=chosen if chosen in dict(patients) else "",
        name=form["name"].strip(),
        is_cut=is_cut,
        fault=fault,
    )


async def describe_patient(context: Context, caller: Caller, patient: str) -> str:
    """The name and birth date of a patient whom the person may see; "" for every other."""
    stored = await context.reader(caller).read("Patient", patient) if patient else None
    return _describe_person(stored.id, orjson.loads(stored.raw)) if stored is not None and stored.raw else ""


async def _find_patients(context: Context, caller: Caller, name: str) -> tuple[list[tuple[str, str]], bool]:
    """(id, name and birth date) of patients whom the person may see, twins with their id; whether there are more."""
    where = await parse_criteria(context, "Patient", (("name", name),), caller) if name.strip() else EVERYTHING
    page = await context.reader(caller).search(Query((Scope("Patient", where),), count=MOST_LISTED))
    found = [(id, _describe_person(id, tree)) for id, tree in _read(page)]
    texts = Counter(text for _, text in found)
    return [(id, f"{text} ({id})" if texts[text] > 1 else text) for id, text in found], page.next is not None


def _describe_person(id: str, tree: dict[str, Any]) -> str:
    first: dict[str, Any] = next(iter(tree.get("name", ())), {})
    text = first.get("text") or " ".join([*first.get("given", ()), first.get("family", "")]).strip() or id
    return f"{text}, born {tree['birthDate']}" if "birthDate" in tree else text


async def _find_encounters(context: Context, caller: Caller, patient: str) -> tuple[list[tuple[str, str]], bool]:
    """(id, when and what) of the patient's visits that the person may see, the latest first; whether there are more."""
    where = await parse_criteria(context, "Encounter", (("patient", f"Patient/{patient}"),), caller)
    query = Query((Scope("Encounter", where),), (Sort("date", "date", descending=True),), MOST_LISTED)
    page = await context.reader(caller).search(query)
    return [(id, _describe_visit(tree)) for id, tree in _read(page)], page.next is not None


def _describe_visit(tree: dict[str, Any]) -> str:
    start = tree.get("period", {}).get("start", "")
    if minute := _MINUTE.fullmatch(start):
        day, time, zone = minute.groups()
        start = f"{day} {time} {'UTC' if zone == 'Z' else zone}"
    kind = tree.get("class", {})
    code = kind.get("code", "")
    words = (start, kind.get("display") or _KINDS.get(code, code), tree["status"].replace("-", " "))
    return ", ".join(word for word in words if word)


def _read(page: Page) -> list[tuple[str, dict[str, Any]]]:
    return [(stored.id, orjson.loads(stored.raw or b"{}")) for stored in page.matches]
