"""X12 005010 ⇄ FHIR, pure: envelopes, segments, tables of loops, and the mappers on them (docs/mappers/x12.md)."""
