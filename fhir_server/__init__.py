"""A FHIR R4 (4.0.1) server; `docs/architecture.md` says how the pieces fit."""

__version__ = "0.1.0"
