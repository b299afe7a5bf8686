"""R4's definitions and search parameters, read once for the fixture `known` and all modules that list them."""

from __future__ import annotations

from fhir_server.app import load_knowledge
from fhir_server.settings import Settings

KNOWN = load_knowledge(Settings())
R4, REGISTRY = KNOWN.definitions, KNOWN.registry
