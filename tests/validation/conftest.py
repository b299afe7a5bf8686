"""The validator, compiled once for all tests of this folder."""

from __future__ import annotations

import pytest

from fhir_server.fhir.definitions import Definitions, load
from fhir_server.validation.structure import StructureValidator


@pytest.fixture(scope="session")
def definitions() -> Definitions:
    return load()


@pytest.fixture(scope="session")
def validator(definitions: Definitions) -> StructureValidator:
    return StructureValidator(definitions)
