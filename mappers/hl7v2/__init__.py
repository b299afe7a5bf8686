"""HL7 v2 messages become FHIR: text in, a transaction Bundle and issues out; nothing here reads a store or a clock.

The way of a message: `er7.parse_message`, `mapping.map_message`, `needs.find_needs` and `bundle.build_bundle`, then
`acknowledge.write_acknowledgement`. docs/mappers/hl7v2.md tells the rules.
"""
