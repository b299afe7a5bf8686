"""R4's definitions and search parameters, read once for all test modules that list them while tests are collected."""

from __future__ import annotations

from fhir_server.fhir import definitions
from fhir_server.search.registry import Registry, build

R4 = definitions.load()
REGISTRY: Registry = build(R4)
