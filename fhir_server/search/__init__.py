"""FHIR search as pure code: parameters, the query tree, index entries; it knows no database."""
