"""The commands of `fhir-server`, one module each (https://hl7.org/fhir/R4/implementation.html)."""
