"""The mapping modules between FHIR and the formats of scheduling and billing; they depend on `fhir_server.fhir` only."""
