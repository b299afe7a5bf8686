"""Appointments of every outcome, and the encounters of those that took place."""

from __future__ import annotations

from scripts.sample_clinic.build import Resource, coding, concept, moment, reference, resource
from scripts.sample_clinic.people import patient
from scripts.sample_clinic.practice import NAMES, OPEN_DAY, slot_id

DOCTORS = {"im": "ines-marchetti", "sa": "samuel-adeyemi", "pr": "priya-raman", "jl": "jonas-lindqvist"}
# Encounter id: (patient, practitioner, date, start, end, reason, conditions seen)
ENCOUNTERS: dict[str, tuple[str, str, str, str, str, str, list[str]]] = {
    "amina-annual": ("amina-okafor", "im", "2026-04-14", "09:00", "09:40", "Annual wellness visit", []),
    "mateo-may": ("mateo-rios", "im", "2026-05-12", "10:00", "10:30", "Diabetes follow-up", ["mateo-diabetes"]),
    "zuri-checkup": ("zuri-okafor", "sa", "2026-06-02", "11:00", "11:30", "Three-year check-up", []),
    "linh-thyroid": ("linh-tran", "pr", "2026-07-14", "09:30", "10:00", "Tiredness", ["linh-hypothyroidism"]),
    "lucia-knee": ("lucia-rios", "im", "2026-08-19", "09:00", "09:30", "Knee pain", ["lucia-knee-arthritis"]),
    "lucia-therapy": ("lucia-rios", "jl", "2026-09-02", "10:00", "10:45", "Physical therapy", ["lucia-knee-arthritis"]),
    "george-september": (
        "george-whitfield",
        "im",
        "2026-09-08",
        "11:00",
        "11:40",
        "Breathlessness",
        ["george-failure"],
    ),
    "chidi-asthma": ("chidi-okafor", "sa", "2026-09-15", "09:00", "09:30", "Wheezing", ["chidi-asthma"]),
    "hannah-throat": ("hannah-weiss", "pr", "2026-10-06", "12:00", "12:20", "Sore throat", ["hannah-pharyngitis"]),
    "omar-pressure": ("omar-haddad", "im", "2026-10-20", "09:30", "10:00", "Headaches", ["omar-hypertension"]),
    "amina-november": ("amina-okafor", "im", "2026-11-03", "10:00", "10:20", "Blood results", ["amina-lipids"]),
    "mateo-november": ("mateo-rios", "im", "2026-11-10", "10:00", "10:30", "Diabetes follow-up", ["mateo-diabetes"]),
    "sophie-anxiety": ("sophie-tremblay", "pr", "2026-11-17", "11:00", "11:40", "Trouble sleeping", ["sophie-anxiety"]),
    "omar-november": ("omar-haddad", "im", "2026-11-18", "09:30", "09:50", "Blood pressure", ["omar-hypertension"]),
}
# Appointment id: (status, patient, practitioner, date, start, end, description, cancellation reason)
OTHER_APPOINTMENTS: dict[str, tuple[str, str, str, str, str, str, str, str | None]] = {
    "amina-monday": ("booked", "amina-okafor", "im", OPEN_DAY, "09:00", "09:30", "Cholesterol follow-up", None),
    "mateo-monday": ("booked", "mateo-rios", "im", OPEN_DAY, "10:30", "11:00", "Diabetes follow-up", None),
    "zuri-monday": ("booked", "zuri-okafor", "sa", OPEN_DAY, "09:30", "10:00", "Ear check", None),
    "lucia-monday": ("booked", "lucia-rios", "jl", OPEN_DAY, "11:00", "11:30", "Physical therapy", None),
    "noah-missed": ("noshow", "noah-abara", "pr", "2026-11-05", "09:00", "09:30", "Vaccination advice", None),
    "george-october": ("cancelled", "george-whitfield", "im", "2026-10-13", "09:00", "09:30", "Check-up", "pat-dec"),
    "hannah-november": ("cancelled", "hannah-weiss", "pr", "2026-11-12", "10:00", "10:30", "Throat check", "pat"),
}


def resources() -> list[Resource]:
    """Fulfilled appointments, the others, encounters."""
    fulfilled = [_appointment(id, "fulfilled", visit[:6], None) for id, visit in ENCOUNTERS.items()]
    others = [_appointment(id, row[0], row[1:7], row[7]) for id, row in OTHER_APPOINTMENTS.items()]
    return [*fulfilled, *others, *(_encounter(id) for id in ENCOUNTERS)]


def practitioner(code: str) -> Resource:
    """A reference to a practitioner by the short code of DOCTORS."""
    return reference(f"Practitioner/{DOCTORS[code]}", NAMES[DOCTORS[code]])


def encounter(id: str) -> Resource:
    return reference(f"Encounter/{id}")


def _appointment(id: str, status: str, visit: tuple[str, ...], reason: str | None) -> Resource:
    who, doctor, date, start, end, text = visit
    accepted = {"required": "required", "status": "accepted"}
    return resource(
        "Appointment",
        id,
        status=status,
        cancelationReason=concept("appointment-cancellation-reason", reason) if reason else None,
        appointmentType=concept("v2-0276", "FOLLOWUP" if "follow-up" in text else "ROUTINE"),
        description=text,
        start=moment(date, start),
        end=moment(date, end),
        minutesDuration=_minutes(end) - _minutes(start),
        slot=[reference(f"Slot/{slot_id(actor, start)}") for actor in (DOCTORS[doctor], "room-1")]
        if status == "booked"
        else None,
        participant=[
            {"actor": patient(who)} | accepted,
            {"actor": practitioner(doctor)} | accepted,
            {"actor": reference("Location/room-1")} | accepted,
        ],
    )


def _minutes(time: str) -> int:
    return 60 * int(time[:2]) + int(time[3:])


def _encounter(id: str) -> Resource:
    who, doctor, date, start, end, text, conditions = ENCOUNTERS[id]
    period = {"start": moment(date, start), "end": moment(date, end)}
    return resource(
        "Encounter",
        id,
        status="finished",
        class_=coding("v3-ActCode", "AMB", "ambulatory"),
        subject=patient(who),
        participant=[{"type": [concept("v3-ParticipationType", "ATND")], "individual": practitioner(doctor)}],
        appointment=[reference(f"Appointment/{id}")],
        period=period,
        reasonCode=[{"text": text}],
        reasonReference=[reference(f"Condition/{condition}") for condition in conditions] or None,
        diagnosis=[
            {"condition": reference(f"Condition/{condition}"), "rank": rank}
            for rank, condition in enumerate(conditions, 1)
        ]
        or None,
        location=[{"location": reference("Location/room-1")}],
        serviceProvider=reference("Organization/riverbend"),
    )
