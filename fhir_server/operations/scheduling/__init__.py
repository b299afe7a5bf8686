"""The operations of scheduling: one file each, one row each in this table (docs/scheduling.md)."""

from __future__ import annotations

from fhir_server.fhir.urls import operation_url
from fhir_server.operations.operation import Handler, Level, Operation
from fhir_server.operations.scheduling import book, find, hold

_ON_TYPE: dict[str, tuple[Level, ...]] = {"Appointment": ("type",)}


def _list_operation(code: str, documentation: str, handler: Handler, methods: tuple[str, ...] = ("POST",)) -> Operation:
    return Operation(code, methods, operation_url(f"appointment-{code}"), documentation, handler, at=_ON_TYPE)


SCHEDULING: tuple[Operation, ...] = (
    _list_operation("find", "Free times as proposed Appointments, earliest first.", find.find, ("GET", "POST")),
    _list_operation("hold", "A time is kept for some minutes.", hold.hold),
    _list_operation("book", "A held, proposed or new time is booked.", book.book),
)
