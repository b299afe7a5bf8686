"""The bench: a load generator that measures FHIR servers and imports nothing of the product (`docs/bench.md`)."""
