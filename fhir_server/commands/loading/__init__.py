"""What `fhir-server load` is made of: files become bundles, which are posted to a FHIR server (`docs/load.md`)."""
