"""Validation of resources on write: structure now; invariants, profiles and bindings as they come."""
