"""All `$operations`, from the table of each domain (https://hl7.org/fhir/R4/operations.html)."""

from __future__ import annotations

from fhir_server.operations.billing import BILLING
from fhir_server.operations.charges import CHARGES
from fhir_server.operations.core import CORE
from fhir_server.operations.hl7v2 import HL7V2
from fhir_server.operations.operation import Operation
from fhir_server.operations.payments import PAYMENTS
from fhir_server.operations.prescribing import PRESCRIBING
from fhir_server.operations.scheduling import SCHEDULING
from fhir_server.operations.x12 import X12

_TABLES = (BILLING, CHARGES, CORE, HL7V2, PAYMENTS, PRESCRIBING, SCHEDULING, X12)
OPERATIONS: dict[str, Operation] = {operation.code: operation for table in _TABLES for operation in table}
