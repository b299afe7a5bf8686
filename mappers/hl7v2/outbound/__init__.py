"""FHIR resources become HL7 v2 messages: resources and a receiver in, ER7 text and issues out; the tables in reverse.

`message.write_message` is the entry. docs/mappers/hl7v2-out.md tells the rules.
"""
