"""FHIR vocabulary: pure functions and frozen values that import nothing else of ours."""
