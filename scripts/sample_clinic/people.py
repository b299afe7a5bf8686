"""The patients, a guardian, and who insures them. All invented."""

from __future__ import annotations

from typing import Any

from scripts.sample_clinic.build import Resource, coding, concept, identifier, reference, resource

# id, given names, family name, gender, birth date, language, phone, email, street, general practitioner
PATIENTS: list[tuple[Any, ...]] = [
    (
        "amina-okafor",
        ["Amina", "Grace"],
        "Okafor",
        "female",
        "1984-03-09",
        "en",
        "0111",
        "amina",
        "12 Ferry Lane",
        "im",
    ),
    ("chidi-okafor", ["Chidi"], "Okafor", "male", "2015-07-21", "en", None, None, "12 Ferry Lane", "sa"),
    ("zuri-okafor", ["Zuri"], "Okafor", "female", "2023-05-30", "en", None, None, "12 Ferry Lane", "sa"),
    ("mateo-rios", ["Mateo"], "Ríos", "male", "1952-11-02", "es", "0114", None, "4 Mill Court", "im"),
    ("lucia-rios", ["Lucía", "Elena"], "Ríos", "female", "1955-01-17", "es", "0115", "lucia", "4 Mill Court", "im"),
    ("hannah-weiss", ["Hannah"], "Weiss", "female", "1991-08-25", "de", "0116", "hannah", "80 Orchard Road", "pr"),
    ("linh-tran", ["Linh"], "Tran", "female", "1978-12-12", "vi", "0117", "linh", "231 Canal Street", "pr"),
    ("omar-haddad", ["Omar"], "Haddad", "male", "1969-04-04", "ar", "0118", "omar", "7 Hilltop Way", "im"),
    (
        "george-whitfield",
        ["George", "Albert"],
        "Whitfield",
        "male",
        "1938-06-15",
        "en",
        "0119",
        None,
        "1 Oak Row",
        "im",
    ),
    (
        "sophie-tremblay",
        ["Sophie"],
        "Tremblay",
        "female",
        "2004-02-29",
        "fr",
        "0120",
        "sophie",
        "56 Bridge Street",
        "pr",
    ),
    ("noah-abara", ["Noah"], "Abara", "other", "1999-10-10", "en", "0121", "noah", "9 Station Square", "pr"),
    ("ren-sato", ["Ren"], "Sato", "unknown", "1987", "ja", None, None, None, None),
]
DOCTORS = {"im": "ines-marchetti", "sa": "samuel-adeyemi", "pr": "priya-raman"}
LANGUAGES = {
    "en": "English",
    "es": "Spanish",
    "de": "German",
    "vi": "Vietnamese",
    "ar": "Arabic",
    "fr": "French",
    "ja": "Japanese",
}
FULL_NAMES = {row[0]: f"{row[1][0]} {row[2]}" for row in PATIENTS}
# What only some patients have.
EXTRAS: dict[str, dict[str, Any]] = {
    "amina-okafor": {"maritalStatus": concept("v3-MaritalStatus", "M", "Married")},
    "chidi-okafor": {"multipleBirthBoolean": False},
    "george-whitfield": {"deceasedDateTime": "2026-10-02"},
    "noah-abara": {"active": False},
}
# Source of payment of the plans: a preferred provider organization, and Medicaid managed care.
PLANS = {"meadow-mutual": "512", "state-senior-plan": "2"}
# beneficiary → (payer, subscriber, relationship)
COVERED: dict[str, tuple[str, str, str]] = {
    "amina-okafor": ("meadow-mutual", "amina-okafor", "self"),
    "chidi-okafor": ("meadow-mutual", "amina-okafor", "child"),
    "zuri-okafor": ("meadow-mutual", "amina-okafor", "child"),
    "mateo-rios": ("state-senior-plan", "mateo-rios", "self"),
    "lucia-rios": ("state-senior-plan", "lucia-rios", "self"),
    "hannah-weiss": ("meadow-mutual", "hannah-weiss", "self"),
    "linh-tran": ("meadow-mutual", "linh-tran", "self"),
    "omar-haddad": ("meadow-mutual", "omar-haddad", "self"),
    "george-whitfield": ("state-senior-plan", "george-whitfield", "self"),
    "sophie-tremblay": ("meadow-mutual", "sophie-tremblay", "self"),
}


def resources() -> list[Resource]:
    """Patients, a guardian, coverages."""
    return [*(_patient(number, row) for number, row in enumerate(PATIENTS, 1)), *_guardians(), *_coverages()]


def patient(id: str) -> Resource:
    """A reference to a patient, with the name."""
    return reference(f"Patient/{id}", FULL_NAMES[id])


def _patient(number: int, row: tuple[Any, ...]) -> Resource:
    id, given, family, gender, born, language, phone, email, street, doctor = row
    telecom = [{"system": "phone", "value": f"+1-555-{phone}", "use": "mobile"}] if phone else []
    telecom += [{"system": "email", "value": f"{email}@mail.example", "use": "home"}] if email else []
    code = f"12199-{1000 + number}"
    place = {"city": "Riverbend", "state": "NY", "postalCode": code, "country": "US"}
    address = {"use": "home", "line": [street], **place}
    communication = {"language": {**concept("urn:ietf:bcp:47", language, LANGUAGES[language])}, "preferred": True}
    members = {
        "identifier": [identifier("mrn", f"RB-{1000 + number}")],
        "active": True,
        "name": [{"use": "official", "family": family, "given": given}],
        "telecom": telecom or None,
        "gender": gender,
        "birthDate": born,
        "address": [address] if street else None,
        "communication": [communication],
        "generalPractitioner": [reference(f"Practitioner/{DOCTORS[doctor]}")] if doctor else None,
        "managingOrganization": reference("Organization/riverbend"),
    }
    return resource("Patient", id, **members | EXTRAS.get(id, {}))


def _guardians() -> list[Resource]:
    return [
        resource(
            "RelatedPerson",
            f"mother-of-{child}",
            active=True,
            patient=patient(f"{child}-okafor"),
            relationship=[concept("v3-RoleCode", "MTH", "mother")],
            name=[{"use": "official", "family": "Okafor", "given": ["Amina", "Grace"]}],
            telecom=[{"system": "phone", "value": "+1-555-0111", "use": "mobile"}],
        )
        for child in ("chidi", "zuri")
    ]


def _coverages() -> list[Resource]:
    return [
        resource(
            "Coverage",
            f"{beneficiary}-coverage",
            identifier=[identifier("members", f"{payer[:2].upper()}-{1000 + number}")],
            status="active",
            type={
                "coding": [
                    coding("https://nahdo.org/sopt", PLANS[payer]),
                    coding("v3-ActCode", "HIP", "health insurance plan policy"),
                ]
            },
            subscriber=reference(f"Patient/{subscriber}"),
            subscriberId=f"{payer[:2].upper()}{100200 + list(FULL_NAMES).index(subscriber)}",
            beneficiary=patient(beneficiary),
            relationship=concept("subscriber-relationship", relationship),
            period={"start": "2026-01-01", "end": "2026-12-31"},
            payor=[reference(f"Organization/{payer}")],
            order=1,
        )
        for number, (beneficiary, (payer, subscriber, relationship)) in enumerate(COVERED.items(), 1)
    ]
