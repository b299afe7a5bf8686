"""The conversions of data types, by the names that the tables use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mappers.hl7v2.context import Cell
from mappers.hl7v2.datatypes import codes, doses, identifiers, people, places, quantities, times
from mappers.hl7v2.er7 import Composite

Convert = Callable[[Composite, Cell], Any]

CONVERSIONS: Mapping[str, Convert] = {
    "address": people.xad_to_address,
    "boolean": codes.id_to_boolean,
    "code": codes.cwe_to_code,
    "concept": codes.cwe_to_codeable_concept,
    "coding": codes.cwe_to_coding,
    "contact": people.xtn_to_contact_point,
    "count": quantities.nm_to_count,
    "cx": identifiers.cx_to_identifier,
    "date": times.ts_to_date,
    "dateTime": times.ts_to_date_time,
    "dln": identifiers.dln_to_identifier,
    "duration": doses.cq_to_duration,
    "ei": identifiers.ei_to_identifier,
    "first": codes.st_to_code,
    "visit": identifiers.cx_to_visit_number,
    "filler": identifiers.eip_to_filler_identifier,
    "instant": times.ts_to_instant,
    "integer": quantities.nm_to_integer,
    "location": places.pl_to_location,
    "discharge": places.dld_to_location,
    "money": quantities.mo_to_money,
    "name": people.xpn_to_human_name,
    "nameText": people.xpn_to_text,
    "ndl": people.ndl_to_practitioner,
    "organization": people.xon_to_organization,
    "organizationText": people.xon_to_text,
    "organizationCode": people.cwe_to_organization,
    "closedPeriod": times.dr_to_closed_period,
    "openDateTime": times.dr_to_date_time,
    "period": times.dr_to_period,
    "placer": identifiers.eip_to_placer_identifier,
    "planId": identifiers.cwe_to_identifier,
    "practitioner": people.xcn_to_practitioner,
    "quantity": quantities.cq_to_quantity,
    "number": quantities.read_amount,
    "length": quantities.nm_to_quantity,
    "ssn": identifiers.ssn_to_identifier,
    "text": codes.st_to_string,
    "textConcept": codes.st_to_concept,
    "codeText": codes.cwe_to_text,
    "time": times.tm_to_time,
    "timeOfBirth": times.ts_to_time_of_birth,
    "unit": doses.cwe_to_unit,
}
