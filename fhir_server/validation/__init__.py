"""Validation of resources before they are written: the structure of base R4."""
