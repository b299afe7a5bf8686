"""An invented practice for the phases of money: charges, claims of three lines, and the 835 that answers them.

Everything follows from the number of a claim and the day of the run; ids begin with a mark of the run, so that
it meets none of another one. Every tenth claim has a second payer, every tenth is denied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

Tree = dict[str, Any]

PRICES = (100, 150, 50)
"""US dollars of the lines of a claim; of each line 60 % are paid, 20 % written off and 20 % left to the patient."""

CLAIMS_OF_PATIENT = 4
_PROVIDERS, _LOCATIONS, _DAYS = 20, 4, 150
_OURS = "https://fhir-server.example"


@dataclass(frozen=True, slots=True)
class Practice:
    """`mark`: a letter and six digits; `day`: the day of the run, before which all was served and billed."""

    mark: str
    day: date

    def make_parties(self) -> list[Tree]:
        """The payers, providers and locations."""
        payers = [self._make_payer(n) for n in (1, 2)]
        people = [{"resourceType": "Practitioner", "id": self._name("dr", n)} for n in range(_PROVIDERS)]
        places = [{"resourceType": "Location", "id": self._name("place", n)} for n in range(_LOCATIONS)]
        return [*payers, {"resourceType": "Organization", "id": self._name("us", 0), "name": "Us"}, *people, *places]

    def make_patient(self, number: int) -> list[Tree]:
        """A patient with an account and a coverage by each payer."""
        id = self._name("p", number)
        who = {"reference": f"Patient/{id}"}
        coverages = [
            {
                "resourceType": "Coverage",
                "id": f"{id}-{n}",
                "status": "active",
                "beneficiary": who,
                "subscriberId": f"M{number}",
                "payor": [{"reference": f"Organization/{self._name('payer', n)}"}],
            }
            for n in (1, 2)
        ]
        account = {"resourceType": "Account", "id": id, "status": "active", "subject": [who]}
        return [{"resourceType": "Patient", "id": id, "name": [{"family": "Doe"}]}, account, *coverages]

    def make_claim(self, number: int) -> list[Tree]:
        """A claim with its charges."""
        id, who = self._name("c", number), self._name("p", number // CLAIMS_OF_PATIENT)
        served = str(self.day - timedelta(days=2 + number % _DAYS))
        entered = str(self.day - timedelta(days=1 + number % _DAYS))
        provider = {"reference": f"Practitioner/{self._name('dr', number % _PROVIDERS)}"}
        charges: list[Tree] = [
            {
                "resourceType": "ChargeItem",
                "id": f"{id}-{n}",
                "status": "billable",
                "code": _code(n),
                "subject": {"reference": f"Patient/{who}"},
                "account": [{"reference": f"Account/{who}"}],
                "performer": [{"actor": provider}],
                "occurrenceDateTime": served,
                "enteredDate": entered,
                "priceOverride": _money(price),
            }
            for n, price in enumerate(PRICES, 1)
        ]
        return [*charges, self._make_claim(number, (id, who), (served, entered), provider)]

    def _make_claim(self, number: int, ids: tuple[str, str], days: tuple[str, str], provider: Tree) -> Tree:
        """`ids`: of the claim and its patient; `days`: served and made."""
        payers = (1, 2) if _has_second(number) else (1,)
        items = [
            {
                "id": f"{self._number(number)}L{n}",
                "extension": [
                    {
                        "url": f"{_OURS}/StructureDefinition/claim-item-charge",
                        "valueReference": {"reference": f"ChargeItem/{ids[0]}-{n}"},
                    }
                ],
                "sequence": n,
                "productOrService": _code(n),
                "servicedDate": days[0],
                "net": _money(price),
            }
            for n, price in enumerate(PRICES, 1)
        ]
        return {
            "resourceType": "Claim",
            "id": ids[0],
            "identifier": [{"system": f"{_OURS}/identifier/patient-control-number", "value": self._number(number)}],
            "status": "active",
            "use": "claim",
            "type": {
                "coding": [{"system": "http://terminology.hl7.org/CodeSystem/claim-type", "code": "professional"}]
            },
            "priority": {"coding": [{"code": "normal"}]},
            "created": days[1],
            "patient": {"reference": f"Patient/{ids[1]}"},
            "provider": {"reference": f"Organization/{self._name('us', 0)}"},
            "careTeam": [{"sequence": 1, "provider": provider, "role": {"coding": [{"code": "primary"}]}}],
            "facility": {"reference": f"Location/{self._name('place', number % _LOCATIONS)}"},
            "insurance": [
                {"sequence": n, "focal": n == 1, "coverage": {"reference": f"Coverage/{ids[1]}-{n}"}} for n in payers
            ],
            "item": items,
            "total": _money(sum(PRICES)),
        }

    def list_bundles(self, claims: range) -> Iterator[list[Tree]]:
        """The resources of these claims and their patients, some tens at a time; `claims` begin with a patient."""
        for first in range(claims.start, claims.stop, CLAIMS_OF_PATIENT * 3):
            numbers = range(first, min(first + CLAIMS_OF_PATIENT * 3, claims.stop))
            patients = sorted({number // CLAIMS_OF_PATIENT for number in numbers})
            yield [
                *(each for patient in patients for each in self.make_patient(patient)),
                *(each for number in numbers for each in self.make_claim(number)),
            ]

    def write_835(self, sets: list[range]) -> bytes:
        """An interchange with a transaction set of the first payer for each range of claims (005010X221A1)."""
        texts = [self._write_set(f"{place:0>4}", claims) for place, claims in enumerate(sets, 1)]
        sides = f"ZZ*{'PAYER':<15}*ZZ*{'CLINIC':<15}"
        head = f"ISA*00*{'':10}*00*{'':10}*{sides}*{self.day:%y%m%d}*1200*^*00501*000000001*0*T*:~"
        group = f"GS*HP*PAYER*CLINIC*{self.day:%Y%m%d}*1200*1*X*005010X221A1~"
        return f"{head}{group}{''.join(texts)}GE*{len(texts)}*1~IEA*1*000000001~".encode("ascii")

    def _write_set(self, place: str, claims: range) -> str:
        day, payer = f"{self.day:%Y%m%d}", f"1{self._payer_number(1)}"
        paid = sum(_pay(number) for number in claims)
        body = (
            f"BPR*I*{paid}*C*ACH*CCP*01*111000012*DA*1*{payer}**01*111000025*DA*1*{day}~"
            f"TRN*1*{self.trace(claims)}*{payer}~DTM*405*{day}~N1*PR*BENCH PLAN~N3*1 A ST~N4*BOSTON*MA*02108~"
            "PER*BL*DESK*TE*5555551212~N1*PE*BENCH CLINIC*XX*1700000007~LX*1~" + "".join(map(self._write_claim, claims))
        )
        return f"ST*835*{place}*005010X221A1~{body}SE*{body.count('~') + 2}*{place}~"

    def trace(self, claims: range) -> str:
        """TRN02 of the set that answers these claims."""
        return f"{self.mark}T{claims.start}"

    def _write_claim(self, number: int) -> str:
        name, served = self._number(number), self.day - timedelta(days=2 + number % _DAYS)
        lines = []
        for n, price in enumerate(PRICES, 1):
            paid, patient = (0, 0) if _is_denied(number) else (price * 6 // 10, price * 2 // 10)
            cas = f"CAS*CO*197*{price}~" if _is_denied(number) else f"CAS*CO*45*{patient}~CAS*PR*2*{patient}~"
            lines.append(f"SVC*HC:9921{n}*{price}*{paid}~DTM*472*{served:%Y%m%d}~{cas}REF*6R*{name}L{n}~")
        left = 0 if _is_denied(number) else sum(PRICES) * 2 // 10
        head = f"CLP*{name}*1*{sum(PRICES)}*{_pay(number)}*{left}*12*ICN{name}~NM1*QC*1*DOE*JANE****MI*M{number // 4}~"
        return head + "".join(lines)

    def _make_payer(self, number: int) -> Tree:
        identifier = {"system": f"{_OURS}/identifier/payer", "value": self._payer_number(number)}
        id = self._name("payer", number)
        return {"resourceType": "Organization", "id": id, "name": f"Bench Plan {number}", "identifier": [identifier]}

    def _payer_number(self, number: int) -> str:
        return f"{self.mark[1:]}00{number}"

    def _number(self, number: int) -> str:
        return f"{self.mark}N{number}"

    def _name(self, kind: str, number: int) -> str:
        return f"{self.mark.lower()}-{kind}{number}"


def _is_denied(number: int) -> bool:
    return number % 10 == 3


def _has_second(number: int) -> bool:
    return number % 10 == 7


def _pay(number: int) -> int:
    return 0 if _is_denied(number) else sum(PRICES) * 6 // 10


def _code(line: int) -> Tree:
    return {"coding": [{"system": "http://www.ama-assn.org/go/cpt", "code": f"9921{line}"}]}


def _money(amount: int) -> Tree:
    return {"value": amount, "currency": "USD"}
