"""The practice itself: organizations, locations, practitioners and their roles, schedules and open slots."""

from __future__ import annotations

from itertools import pairwise

from mappers.billing import codes
from mappers.scheduling.extensions import SCHEDULING_PARAMETERS, TIME_ZONE
from scripts.sample_clinic.build import Resource, concept, identifier, moment, reference, resource

# NPIs begin with 2, as none that was given out does, and have a right check digit.
ORGANIZATIONS = [
    (
        "riverbend",
        "Riverbend Family Practice",
        "prov",
        "+1-555-0100",
        [(codes.NPI, "2000000101"), (codes.EIN[0], "12-3456789"), (codes.CLIA, "33D0000000")],
    ),
    ("meadow-mutual", "Meadow Mutual Health Plan", "ins", "+1-555-0180", [(codes.PAYER_ID, "RBMM1")]),
    ("state-senior-plan", "State Senior Plan", "pay", "+1-555-0190", [(codes.PAYER_ID, "RBSS1")]),
]
PRACTICE_ADDRESS = {
    "line": ["100 Weir Street"],
    "city": "Riverbend",
    "state": "NY",
    "postalCode": "12199-0100",
    "country": "US",
}
# Taxonomy of NUCC: primary care clinic, and by practitioner NPI and taxonomy.
CLINIC_TAXONOMY = "261QP2300X"
LICENSED = {
    "ines-marchetti": ("2000000218", "207Q00000X"),
    "samuel-adeyemi": ("2000000325", "208000000X"),
    "priya-raman": ("2000000432", "363LF0000X"),
    "jonas-lindqvist": ("2000000549", "225100000X"),
}
LOCATIONS = [
    ("front-desk", "Front desk and waiting room", "area"),
    ("room-1", "Examination room 1", "ro"),
    ("room-2", "Examination room 2", "ro"),
]
# id, given, family, prefix, gender, birth date, specialty (code, text), languages
PRACTITIONERS = [
    ("ines-marchetti", "Ines", "Marchetti", "Dr.", "female", "1975-05-14", ("family", "Family medicine"), ["en", "es"]),
    ("samuel-adeyemi", "Samuel", "Adeyemi", "Dr.", "male", "1981-09-30", ("pediatrics", "Pediatrics"), ["en", "yo"]),
    ("priya-raman", "Priya", "Raman", "NP", "female", "1989-02-11", ("family", "Family medicine"), ["en", "ta"]),
    ("jonas-lindqvist", "Jonas", "Lindqvist", "PT", "male", "1992-12-03", ("physio", "Physical therapy"), ["en", "sv"]),
]
NAMES = {id: f"{prefix} {given} {family}" for id, given, family, prefix, *_ in PRACTITIONERS}
OPEN_DAY = "2026-11-30"
SLOT_TIMES = ["09:00", "09:30", "10:00", "10:30", "11:00", "11:30", "12:00"]
# The slots of the open day that the booked appointments of `visits.py` hold.
BUSY = {
    ("ines-marchetti", "09:00"),
    ("ines-marchetti", "10:30"),
    ("samuel-adeyemi", "09:30"),
    ("jonas-lindqvist", "11:00"),
}


def resources() -> list[Resource]:
    """Everything that the other bundles refer to."""
    return [*_organizations(), *_locations(), *_practitioners(), *_schedules()]


def _organizations() -> list[Resource]:
    return [
        resource(
            "Organization",
            id,
            identifier=[
                identifier("organizations", id),
                *({"system": system, "value": value} for system, value in numbers),
            ],
            active=True,
            type=[
                concept("organization-type", kind),
                *([concept(codes.TAXONOMY, CLINIC_TAXONOMY)] if kind == "prov" else []),
            ],
            name=name,
            telecom=[{"system": "phone", "value": phone, "use": "work"}],
            address=[PRACTICE_ADDRESS] if kind == "prov" else None,
        )
        for id, name, kind, phone, numbers in ORGANIZATIONS
    ]


def _locations() -> list[Resource]:
    return [
        resource(
            "Location",
            id,
            status="active",
            name=name,
            mode="instance",
            type=[concept(codes.POS, "11")],
            address=PRACTICE_ADDRESS,
            physicalType=concept("location-physical-type", kind),
            managingOrganization=reference("Organization/riverbend"),
        )
        for id, name, kind in LOCATIONS
    ]


def _practitioners() -> list[Resource]:
    made = []
    for number, (id, given, family, prefix, gender, born, (code, specialty), languages) in enumerate(PRACTITIONERS, 1):
        made += [
            resource(
                "Practitioner",
                id,
                identifier=[identifier("staff", f"S-{number:03}"), {"system": codes.NPI, "value": LICENSED[id][0]}],
                active=True,
                name=[{"use": "official", "family": family, "given": [given], "prefix": [prefix]}],
                telecom=[{"system": "email", "value": f"{given.lower()}@clinic.example", "use": "work"}],
                gender=gender,
                birthDate=born,
                qualification=[{"code": concept(codes.TAXONOMY, LICENSED[id][1])}],
                communication=[concept("urn:ietf:bcp:47", language) for language in languages],
            ),
            resource(
                "PractitionerRole",
                f"{id}-role",
                active=True,
                practitioner=reference(f"Practitioner/{id}", NAMES[id]),
                organization=reference("Organization/riverbend"),
                specialty=[concept("https://clinic.example/specialties", code, specialty)],
                location=[reference("Location/front-desk")],
                availableTime=[
                    {
                        "daysOfWeek": ["mon", "tue", "wed", "thu"],
                        "availableStartTime": "09:00:00",
                        "availableEndTime": "12:30:00",
                    }
                ],
            ),
        ]
    return made


# How far ahead visits are given, in days: far enough that the samples can be booked in any year to come.
_HORIZON = 3650


def _calendar(id: str, *actors: Resource) -> Resource:
    """A Schedule in the clinic's zone that takes visits for years."""
    horizon = {"value": _HORIZON, "unit": "d", "system": "http://unitsofmeasure.org", "code": "d"}
    return resource(
        "Schedule",
        id,
        extension=[
            {"url": TIME_ZONE, "valueCode": "America/New_York"},
            {"url": SCHEDULING_PARAMETERS, "extension": [{"url": "horizon", "valueDuration": horizon}]},
        ],
        active=True,
        actor=list(actors),
        planningHorizon={"start": OPEN_DAY},
    )


def _room_calendar() -> list[Resource]:
    """The Schedule of the first room, and its Slots that the booked appointments hold."""
    ends = dict(pairwise(SLOT_TIMES))
    return [
        _calendar("room-1-schedule", reference("Location/room-1")),
        *(
            resource(
                "Slot",
                slot_id("room-1", start),
                schedule=reference("Schedule/room-1-schedule"),
                status="busy",
                start=moment(OPEN_DAY, start),
                end=moment(OPEN_DAY, ends[start]),
            )
            for _, start in sorted(BUSY, key=lambda each: each[1])
        ),
    ]


def _schedules() -> list[Resource]:
    made = _room_calendar()
    for id in NAMES:
        made.append(
            _calendar(f"{id}-schedule", reference(f"Practitioner/{id}", NAMES[id]), reference("Location/front-desk"))
        )
        made += [
            resource(
                "Slot",
                slot_id(id, start),
                appointmentType=concept("v2-0276", "ROUTINE"),
                schedule=reference(f"Schedule/{id}-schedule"),
                status="busy" if (id, start) in BUSY else "free",
                start=moment(OPEN_DAY, start),
                end=moment(OPEN_DAY, end),
            )
            for start, end in pairwise(SLOT_TIMES)
        ]
    return made


def slot_id(practitioner: str, start: str) -> str:
    """`ines-marchetti`, `09:00` → the id of that slot on the open day."""
    return f"{practitioner}-{OPEN_DAY}-{start.replace(':', '')}"
