"""How large the answer to a batch or a transaction may become: reads beyond it are told to be too costly."""

from __future__ import annotations

from dataclasses import dataclass, field

from fhir_server.fhir.outcome import TooCostly


@dataclass(slots=True)
class Answer:
    """How many bytes an answer may still take; `spare`: how many may still be read that do not fit."""

    left: int
    spare: int = field(init=False)

    def __post_init__(self) -> None:
        self.spare = self.left

    def waste(self, size: int) -> None:
        """Count bytes that were read and did not fit; of very many of them nothing more is read."""
        self.spare -= size
        if self.spare < 0:
            self.left = 0

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
