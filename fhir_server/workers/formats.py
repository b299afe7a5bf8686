"""The formats of messages: what interprets a message of each, and what takes in its files (docs/adding/a-mapper.md)."""

from __future__ import annotations

from fhir_server.workers import hl7v2_files, x12_files
from fhir_server.workers.files import FileFormat
from fhir_server.workers.hl7v2_interpreter import HL7V2
from fhir_server.workers.interpreters import Interpreter
from fhir_server.workers.x12_interpreter import X12

INTERPRETERS: dict[str, Interpreter] = {"hl7v2": HL7V2, "x12": X12}
"""Format → its interpreter."""

FILE_FORMATS: dict[str, FileFormat] = {"hl7v2": hl7v2_files.FILES, "x12": x12_files.FILES}
"""Format → how its files come in; the worker `folders` gives it what partners put into their folders `in`."""
