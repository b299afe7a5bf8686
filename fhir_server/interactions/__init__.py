"""The interactions of the FHIR RESTful API, one file each (https://hl7.org/fhir/R4/http.html)."""
