"""How large the answer to a batch or a transaction may become: reads beyond it are told to be too costly."""

from __future__ import annotations

from dataclasses import dataclass

from fhir_server.fhir.outcome import TooCostly


@dataclass(slots=True)
class Answer:
    """How many bytes an answer may still take."""

    left: int

    def take(self, size: int) -> None:
        """Count so many bytes. Raises TooCostly when they do not fit."""
        self.check(size)
        self.left -= size

    def check(self, size: int) -> None:
        """Raises TooCostly when so many bytes do not fit."""
        if size > self.left:
            raise self.build_error()

    def build_error(self) -> TooCostly:
        """The error of what does not fit."""
        return TooCostly(
            "What the entries of this bundle read is too large together (setting `max_answer`); ask for it in parts."
        )
