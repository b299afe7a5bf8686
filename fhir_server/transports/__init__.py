"""Bytes in and out of message channels; no FHIR."""
