"""The client side of FHIR's HTTP interface: what `fhir-server load` and `fhir-server bench` send (https://hl7.org/fhir/R4/http.html)."""
