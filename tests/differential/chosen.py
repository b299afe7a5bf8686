"""Searches picked by hand, each with what its answer has to be: matches, none, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

import httpx

from tests.differential import chosen_reach, chosen_types
from tests.differential.both import Ask, matches

Expected = Literal["some", "none", "refused"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A search and what it answers."""

    expected: Expected
    ask: Ask

    def is_met(self, response: httpx.Response) -> bool:
        """Whether the answer is as expected; a refusal is a 400."""
        if self.expected == "refused":
            return response.status_code == 400
        if response.status_code != 200:
            return False
        body = response.json()
        return bool(matches(body) or body.get("total")) == (self.expected == "some")


def _chosen(expected: Expected, lines: str) -> list[Chosen]:
    found = []
    for line in filter(None, map(str.strip, lines.splitlines())):
        path, _, query = line.partition("?")
        found.append(Chosen(expected, Ask(f"/{path}", tuple(parse_qsl(query, keep_blank_values=True)))))
    return found


_SOME = """
Patient
Patient?_count=3
Patient?_count=0
Patient?_summary=count
Patient?_id=example
Patient?_id=example,f001,nobody
Patient?_id:not=example
Patient?family=Chalmers
Patient?family=chalm
Patient?family:exact=Chalmers
Patient?family:contains=ALMER
Patient?given=peter,pieter
Patient?name=peter&name=chalmers
Patient?name:contains=e
Patient?family:missing=true
Patient?family:missing=false&_sort=family,-given
Patient?gender=male
Patient?gender:not=male
Patient?gender:not=male,female
Patient?gender=male,female&_sort=-birthdate
Patient?birthdate=1974-12-25
Patient?birthdate=1974-12
Patient?birthdate=1974
Patient?birthdate=ne1974-12-25
Patient?birthdate=ge1974-12-25&birthdate=lt1980
Patient?birthdate=lt1950,gt2000
Patient?birthdate=sa1974
Patient?birthdate=eb1974-12-25
Patient?birthdate=ap1974-12-20
Patient?birthdate:missing=true
Patient?deceased=true
Patient?deceased=false
Patient?identifier=urn:oid:1.2.36.146.595.217.0.1|12345
Patient?identifier=12345
Patient?identifier=urn:oid:1.2.36.146.595.217.0.1|
Patient?identifier:not=12345
Patient?phone:missing=false
Patient?telecom:missing=false&active=true
Patient?organization=Organization/1
Patient?organization=1
Patient?organization:Organization=1
Patient?organization=http://test/fhir/Organization/1
Patient?organization.name=Gastro
Patient?organization:Organization.name:contains=gastro
Patient?general-practitioner:missing=true&_sort=_lastUpdated
Patient?address-city:missing=false&_sort=address-city
Patient?address=PleasantVille
Patient?_sort=birthdate
Patient?_sort=-birthdate
Patient?_sort=birthdate,-family,_id
Patient?_sort=_id
Patient?_sort=-_id
Patient?_sort=_id,family
Patient?_sort=-_id,-birthdate&_count=3
Observation?_sort=_id,code&status=final&_total=accurate
Patient?_sort=_lastUpdated,_id,name
Patient?_sort=_lastUpdated
Patient?_sort=-_lastUpdated&_count=4
Patient?_sort=gender,-birthdate
Patient?_sort=organization
Patient?_lastUpdated=ge2026-01-05
Patient?_lastUpdated=ne2026-01-06
Patient?_lastUpdated=gt2026-01-05T08:00:00.100Z&_sort=-_lastUpdated
Patient?_summary=true
Patient?_summary=text
Patient?_summary=data
Patient?_elements=name,birthDate
Patient?_total=accurate&_count=2
Patient?_total=none&_count=2
Patient?_include=Patient:organization
Patient?_include=Patient:*
Patient?_revinclude=Observation:subject&_count=5
Patient?_revinclude=Observation:patient&_revinclude=Encounter:patient&_sort=-_id
Patient?_include=Patient:organization&_include:iterate=Organization:partof
Patient?_revinclude=Encounter:patient&_revinclude:iterate=Observation:encounter
Patient?_has:Observation:patient:code=29463-7
Patient?_has:Observation:patient:code=http://loinc.org|8302-2,http://loinc.org|29463-7
Patient?_has:Encounter:patient:status=finished
Patient?_has:Observation:patient:_has:DiagnosticReport:result:status=final
Patient?_has:Encounter:patient:_has:Observation:encounter:status=final&_sort=birthdate
Observation?code=29463-7
Observation?code=http://loinc.org|29463-7&_sort=-date
Observation?code:not=29463-7&_count=7
Observation?status=final&category=vital-signs
Observation?category=http://terminology.hl7.org/CodeSystem/observation-category|vital-signs&_total=accurate
Observation?subject=Patient/example
Observation?patient=example
Observation?subject:Patient=example&_sort=date,-code
Observation?subject:Patient.birthdate=1974-12-25
Observation?patient.gender=male&patient.family=chal
Observation?patient.organization.name=gastro
Observation?patient:missing=true
Observation?value-quantity=185
Observation?value-quantity=gt100&_sort=value-quantity
Observation?value-quantity=lt100&_sort=-value-quantity
Observation?value-quantity=185|http://unitsofmeasure.org|[lb_av]
Observation?value-quantity=185||lbs
Observation?value-quantity=le6.3
Observation?value-quantity=ap180
Observation?value-quantity=ne185
Observation?value-quantity=1.85e2
Observation?component-code-value-quantity=http://loinc.org|8480-6$107
Observation?component-code-value-quantity=8480-6$gt100
Observation?combo-code=8480-6
Observation?combo-code-value-quantity=8480-6$ge107
Observation?code-value-quantity=29463-7$ge100
Observation?date=2016-03-28
Observation?date=ge2012&date=le2013
Observation?date=sa2010-01-01&_sort=date
Observation?date=eb2014-01-01&_sort=-date,_id
Observation?value-concept:missing=false
Observation?value-string:missing=false
Observation?derived-from:missing=false
Observation?has-member:missing=false&_include=Observation:has-member
Observation?_include=Observation:subject&_include=Observation:performer&_count=10
Observation?_include=Observation:subject:Patient&_include:iterate=Patient:organization&_count=30
Observation?_elements=code,subject&_count=5
Encounter?status=finished&_sort=-date
Encounter?class=AMB
Encounter?date=ge2010&_sort=date
Encounter?participant:missing=false&_include=Encounter:participant
Encounter?length=gt1
Encounter?_revinclude=Observation:encounter&_count=10
Condition?clinical-status=active
Condition?clinical-status:not=active
Condition?onset-date=lt2015&_sort=onset-date
Condition?patient.name:contains=a
Condition?subject:Patient._id=example
Procedure?date=ge2000&_sort=-date
Procedure?performer:missing=false
MedicationRequest?status=active&_sort=authoredon
MedicationRequest?medication:missing=false
MedicationRequest?intent=order&_include=MedicationRequest:medication
Claim?_sort=created
Claim?use=claim&_revinclude=ExplanationOfBenefit:claim
RiskAssessment?probability=gt0.00001
RiskAssessment?probability:missing=false
ImagingStudy?started=ge1990
Location?name=south
Organization?name:contains=health
Organization?partof:missing=false
Measure?url:missing=false
ActivityDefinition?url:missing=false&_sort=url
CapabilityStatement?fhirversion:missing=false
Questionnaire?status=draft,active
Immunization?vaccine-code:missing=false&_sort=-date
AuditEvent?_sort=-date
Patient/example/Observation
Patient/example/Observation?code=29463-7
Patient/example/Encounter?_sort=-date
Patient/example/Condition?_count=2&_total=accurate
Encounter/example/Observation
Patient/example/*?_type=Observation,Condition&_count=50
?_type=Patient,Organization&_count=8
?_type=Patient,Practitioner&_sort=-_lastUpdated&_count=9&_total=accurate
?_type=Observation,Condition&patient=example
?_id=example&_count=100
Patient?_has:Observation:subject:value-quantity=gt100
Patient?link:missing=false
Bundle?type=transaction
Binary?_sort=-_id
"""
_NONE = """
Patient?_id=nobody
Patient?family=Nobodyhasthisname
Patient?family:exact=chalmers
Patient?birthdate=1874
Patient?birthdate=gt2100
Patient?deceased:missing=true
Patient?identifier=|12345
Patient?organization=Organization/nowhere
Patient?organization=http://elsewhere.example/fhir/Organization/1
Patient?_lastUpdated=lt2026
Patient?_lastUpdated:missing=true
Patient?gender=male&gender=female
Patient?_has:Observation:patient:code=none-such
Observation?patient.family=Nobody
Observation?component-code-value-quantity=8480-6$gt1000
Observation?value-quantity=lt-1000000
Observation?_id=example&status:not=final
Patient/nobody/Observation
Patient/f001/*?_type=Observation&code=none-such
"""
_REFUSED = """
Patient?nonsense=1
Patient?family:nonsense=1
Patient?birthdate=1974-13
Patient?birthdate=xx1974
Patient?birthdate:exact=1974
Patient?gender:contains=m
Patient?_count=-1
Patient?_count=few
Patient?_sort=nonsense
Patient?_summary=most
Patient?_total=perhaps
Patient?_include=Patient:nonsense
Patient?_include=Observation:subject
Patient?_revinclude=Observation:nonsense
Patient?family=
Patient?family=a,,b
Patient?family:missing=maybe
Patient?organization.nonsense=1
Patient?family.name=1
Patient?_has:Observation:patient=1
Patient?_has:Observation:performer:nonsense=1
Patient?_elements=na-me
Patient?_summary=text&_include=Patient:organization
Observation?value-quantity=heavy
Observation?value-quantity=sa
Observation?code-value-quantity=29463-7
Observation?subject:Slot=1
?_type=Patient,Nonsense
?_type=Patient,Observation&birthdate=1974
Patient?__page=forged
"""

CHOSEN = (
    *_chosen("some", _SOME + chosen_types.SOME + chosen_reach.SOME),
    *_chosen("none", _NONE + chosen_types.NONE + chosen_reach.NONE),
    *_chosen("refused", _REFUSED + chosen_types.REFUSED + chosen_reach.REFUSED),
)
