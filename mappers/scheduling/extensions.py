"""The URLs of this project's scheduling extensions and codes: one table for all who read or write them."""

from __future__ import annotations

from fhir_server.fhir.urls import BASE

_DEFINITION = f"{BASE}/StructureDefinition"

# On Schedule and HealthcareService; repeats, one for each group of appointment types (docs/scheduling.md).
SCHEDULING_PARAMETERS = f"{_DEFINITION}/scheduling-parameters"
# On Appointment and Slot, valueInstant: when a hold stops to occupy its time.
HOLD_EXPIRES = f"{_DEFINITION}/hold-expires"
# On Slot, valueCode: `booking` (made by a booking) or `published` (kept by us for apps that read Slots).
SLOT_ORIGIN = f"{_DEFINITION}/slot-origin"
# On Appointment: parts `kind` (valueCode), `reason` (valueString), `who` (valueReference).
BOOKING_OVERRIDE = f"{_DEFINITION}/booking-override"
# On Appointment, valueReference: the Task of the offer that this Appointment of the waitlist is now.
WAITLIST_OFFER = f"{_DEFINITION}/waitlist-offer"
# On Schedule, valueString: the partner system whose messages are fact; absent: this server.
SCHEDULE_OWNER = f"{_DEFINITION}/schedule-owner"
# On Schedule, valueBoolean: free Slots are kept for apps that search for them.
PUBLISH_SLOTS = f"{_DEFINITION}/publish-free-slots"
# On Appointment: parts `series` (valueString) and `number` (valuePositiveInt, from 1).
APPOINTMENT_SERIES = f"{_DEFINITION}/appointment-series"
# HL7's own, on Schedule, Location and HealthcareService: valueCode, an IANA name.
TIME_ZONE = "http://hl7.org/fhir/StructureDefinition/timezone"

# SMART Scheduling Links (https://github.com/smart-on-fhir/smart-scheduling-links).
BOOKING_LINK = "http://fhir-registry.smarthealthit.org/StructureDefinition/booking-deep-link"
BOOKING_PHONE = "http://fhir-registry.smarthealthit.org/StructureDefinition/booking-phone"
SLOT_CAPACITY = "http://fhir-registry.smarthealthit.org/StructureDefinition/slot-capacity"
