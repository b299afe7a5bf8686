"""The mapping modules between FHIR and the formats of scheduling and billing; they use `fhir_server.fhir` only."""
