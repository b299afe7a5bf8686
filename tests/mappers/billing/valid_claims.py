"""Random valid professional claims with all they refer to; one seed, one result; people are invented."""

from __future__ import annotations

import random
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from mappers.billing import codes

Resource = dict[str, Any]

TODAY = date(2026, 11, 20)

EVALUATIONS = ("99202", "99203", "99212", "99213", "99214", "99215")
PROCEDURES = ("11102", "12001", "17110", "20610")
LABORATORY = ("80053", "81002", "83036", "85025")
OTHER = ("90686", "93000", "94010", "97110", "G0008", "96372")
DIAGNOSES = (
    "E11.9",
    "I10",
    "J06.9",
    "M54.50",
    "R05.1",
    "K21.9",
    "E78.5",
    "L57.0",
    "M17.11",
    "Z23",
    "H66.90",
    "F41.1",
    "R51.9",
    "N39.0",
)
FIRST = ("ADA", "BO", "CY", "DEE", "ELI", "FAY", "GUS", "HAL")
LAST = ("QUILL", "REED", "STONE", "TARN", "UMBER", "VALE", "WREN", "YARROW")
STREETS = ("MAIN ST", "ELM ST", "OAK AVE", "MILL RD")
CITIES = (("BOSTON", "MA", "02108"), ("MADISON", "WI", "53703"), ("DENVER", "CO", "80202"), ("TUCSON", "AZ", "85701"))
KINDS = ("5", "512", "511", "6", "2")


def make_npi(nine: int) -> str:
    """Nine digits that begin with 1 or 2, and their check digit with prefix 80840."""
    total = 24
    for place, digit in enumerate(reversed(str(nine))):
        value = int(digit) * (1 if place % 2 else 2)
        total += value // 10 + value % 10
    return f"{nine}{-total % 10}"


class Maker:
    """Makes one claim after the other from one source of chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def claim(self, number: int) -> tuple[Resource, dict[str, Resource]]:
        """A draft claim that passes every rule, and the resources by reference."""
        key = f"{number:05d}"
        first = TODAY - timedelta(days=self.chance.randint(3, 80))
        people = self._people(key)
        coverages = self._coverages(key, people)
        codes_of_claim = self.chance.sample(DIAGNOSES, self.chance.randint(1, 12))
        items = self._items(key, first, len(codes_of_claim))
        team = [_member(1, f"Practitioner/p{key}", "primary")]
        if self.chance.random() < 0.3:
            team.append(_member(2, f"Practitioner/r{key}", "referring"))
        claim: Resource = {
            "resourceType": "Claim",
            "id": f"c{key}",
            "identifier": [{"system": codes.PATIENT_CONTROL_NUMBER, "value": f"T{key}"}],
            "status": "draft",
            "type": {"coding": [{"system": codes.CLAIM_TYPE, "code": "professional"}]},
            "use": "claim",
            "patient": {"reference": f"Patient/a{key}"},
            "created": str(first),
            "provider": {"reference": f"Organization/o{key}"},
            "priority": {"coding": [{"system": codes.PRIORITY, "code": "normal"}]},
            "careTeam": team,
            "facility": {"reference": f"Location/l{key}"},
            "diagnosis": [
                {"sequence": n, "diagnosisCodeableConcept": {"coding": [{"system": codes.ICD_10_CM, "code": code}]}}
                for n, code in enumerate(codes_of_claim, 1)
            ],
            "insurance": [
                {"sequence": n, "focal": n == 1, "coverage": {"reference": f"Coverage/{each['id']}"}}
                for n, each in enumerate(coverages, 1)
            ],
            "item": items,
            "total": _money(sum((item["net"]["value"] for item in items), Decimal("0.00"))),
        }
        resources = [*people.values(), *coverages, *self._practice(key)]
        return claim, {f"{each['resourceType']}/{each['id']}": each for each in resources}

    def _people(self, key: str) -> dict[str, Resource]:
        born = date(self.chance.randint(1940, 2005), self.chance.randint(1, 12), self.chance.randint(1, 28))
        patient = {
            "resourceType": "Patient",
            "id": f"a{key}",
            "name": [{"family": self.chance.choice(LAST), "given": [self.chance.choice(FIRST)]}],
            "gender": self.chance.choice(("male", "female", "other", "unknown")),
            "birthDate": str(born),
            "address": [self._address(nine=False)],
        }
        return {"patient": patient}

    def _coverages(self, key: str, people: dict[str, Resource]) -> list[Resource]:
        found = []
        for order in range(1, self.chance.choice((1, 1, 1, 2)) + 1):
            payer = self.chance.randint(1, 3)
            dependent = self.chance.random() < 0.2
            coverage = {
                "resourceType": "Coverage",
                "id": f"v{key}{order}",
                "status": "active",
                "order": order,
                "type": {"coding": [{"system": "https://nahdo.org/sopt", "code": self.chance.choice(KINDS)}]},
                "subscriberId": f"M{self.chance.randint(10**8, 10**9 - 1)}",
                "beneficiary": {"reference": f"Patient/a{key}"},
                "relationship": {"coding": [{"code": "child" if dependent else "self"}]},
                "period": {"start": "2020-01-01"},
                "payor": [{"reference": f"Organization/payer{payer}"}],
            }
            if dependent:
                coverage["subscriber"] = {"reference": f"Patient/s{key}"}
                people["subscriber"] = {**people["patient"], "id": f"s{key}", "birthDate": "1938-05-06"}
            found.append(coverage)
            people[f"payer{payer}"] = {
                "resourceType": "Organization",
                "id": f"payer{payer}",
                "name": f"PLAN {payer}",
                "identifier": [{"system": codes.PAYER_ID, "value": f"9000{payer}"}],
            }
        return found

    def _address(self, nine: bool) -> Resource:
        city, state, zip_code = self.chance.choice(CITIES)
        plus = f"{self.chance.randint(1, 9999):04d}" if nine or self.chance.random() < 0.5 else ""
        line = f"{self.chance.randint(1, 999)} {self.chance.choice(STREETS)}"
        return {"line": [line], "city": city, "state": state, "postalCode": zip_code + plus}

    def _practice(self, key: str) -> list[Resource]:
        def npi() -> Resource:
            return {"system": codes.NPI, "value": make_npi(self.chance.randint(100_000_000, 299_999_999))}

        taxonomy = {"coding": [{"system": codes.TAXONOMY, "code": "207Q00000X"}]}
        practitioners: list[Resource] = [
            {
                "resourceType": "Practitioner",
                "id": f"{letter}{key}",
                "identifier": [npi()],
                "name": [{"family": self.chance.choice(LAST), "given": [self.chance.choice(FIRST)]}],
                "qualification": [{"code": taxonomy}],
            }
            for letter in "pr"
        ]
        ein = {
            "system": codes.EIN[0],
            "value": f"{self.chance.randint(10, 99)}-{self.chance.randint(1000000, 9999999)}",
        }
        clia = {"system": codes.CLIA, "value": f"{self.chance.randint(10, 99)}D{self.chance.randint(1000000, 9999999)}"}
        organization = {
            "resourceType": "Organization",
            "id": f"o{key}",
            "name": "RIVERBEND FAMILY PRACTICE",
            "identifier": [npi(), ein, clia],
            "type": [taxonomy],
            "address": [self._address(nine=True)],
        }
        location = {
            "resourceType": "Location",
            "id": f"l{key}",
            "name": "RIVERBEND NORTH",
            "identifier": [npi()],
            "address": self._address(nine=True),
        }
        return [*practitioners, organization, location]

    def _items(self, key: str, first: date, diagnoses: int) -> list[Resource]:
        wanted = [self.chance.choice(EVALUATIONS)] if self.chance.random() < 0.8 else []
        for source, share in ((PROCEDURES, 0.2), (LABORATORY, 0.4), (OTHER, 0.5)):
            if self.chance.random() < share or (not wanted and source is OTHER):
                wanted.append(self.chance.choice(source))
        items = []
        surgery = any(code in PROCEDURES for code in wanted)
        for number, code in enumerate(wanted, 1):
            modifiers = ["25"] if code in EVALUATIONS and surgery else []
            items.append(self._item(number, f"L{key}{number}", (code, modifiers), first, diagnoses))
        if self.chance.random() < 0.15:
            items.append(self._drug(len(items) + 1, key, first, diagnoses))
        return items

    def _item(self, number: int, line: str, what: tuple[str, list[str]], first: date, diagnoses: int) -> Resource:
        code, modifiers = what
        units = self.chance.randint(1, 4) if code == "97110" else 1
        price = Decimal(self.chance.randint(1000, 30000)) / 100
        pointers = self.chance.sample(range(1, diagnoses + 1), min(diagnoses, self.chance.randint(1, 4)))
        item: Resource = {
            "id": line,
            "sequence": number,
            "careTeamSequence": [1],
            "diagnosisSequence": pointers,
            "productOrService": {"coding": [{"system": codes.HCPCS if code[0] > "9" else codes.CPT, "code": code}]},
            "servicedDate": str(first),
            "locationCodeableConcept": {"coding": [{"system": codes.POS, "code": "11"}]},
            "quantity": {"value": units},
            "unitPrice": _money(price),
            "net": _money(price * units),
        }
        if modifiers:
            item["modifier"] = [{"coding": [{"code": each}]} for each in modifiers]
        return item

    def _drug(self, number: int, key: str, first: date, diagnoses: int) -> Resource:
        item = self._item(number, f"L{key}{number}", ("J1885", []), first, diagnoses)
        ndc = {"coding": [{"system": codes.NDC, "code": f"{self.chance.randint(0, 10**11 - 1):011d}"}]}
        item["detail"] = [{"sequence": 1, "productOrService": ndc, "quantity": {"value": 1, "unit": "ML"}}]
        return item


def _member(sequence: int, reference: str, role: str) -> Resource:
    return {
        "sequence": sequence,
        "provider": {"reference": reference},
        "role": {"coding": [{"system": codes.CARE_TEAM_ROLE, "code": role}]},
    }


def _money(amount: Decimal) -> Resource:
    return {"value": amount, "currency": "USD"}


def make_claims(count: int, seed: int = 17) -> list[tuple[Resource, dict[str, Resource]]]:
    """`count` valid claims with their resources."""
    maker = Maker(seed)
    return [maker.claim(number) for number in range(count)]
