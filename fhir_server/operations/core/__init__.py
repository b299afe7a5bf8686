"""The operations of the FHIR core: one file each, one row each in this table (https://hl7.org/fhir/R4/operations.html)."""

from __future__ import annotations

from fhir_server.fhir.urls import operation_url
from fhir_server.operations.core import everything, job, lastn, launch, meta, purge, reindex
from fhir_server.operations.operation import ANY, Operation
from fhir_server.requests.request import FHIR_JSON

_HL7 = "http://hl7.org/fhir/OperationDefinition/"

CORE: tuple[Operation, ...] = (
    Operation(
        "meta",
        ("GET", "POST"),
        f"{_HL7}Resource-meta",
        "Profiles, tags and security labels of a resource, or of all resources of a type or of the system.",
        meta.meta,
        at={ANY: ("system", "type", "instance", "version")},
        needs={"*": "r"},
    ),
    Operation(
        "meta-add",
        ("POST",),
        f"{_HL7}Resource-meta-add",
        "Adds profiles, tags and security labels; a new version is made when something was added.",
        meta.meta_add,
        needs={"*": "u"},
    ),
    Operation(
        "meta-delete",
        ("POST",),
        f"{_HL7}Resource-meta-delete",
        "Removes profiles, tags and security labels; a new version is made when something was removed.",
        meta.meta_delete,
        needs={"*": "u"},
    ),
    Operation(
        "purge",
        ("POST",),
        operation_url("purge"),
        "Removes a resource with its whole history physically.",
        purge.purge,
        setting="purge",
        needs={"*": "d"},
    ),
    Operation(
        "launch",
        ("POST",),
        operation_url("launch"),
        "Begins the launch of an app with the patient and the visit that are open in an EHR.",
        launch.launch,
        at={ANY: ("system",)},
        needs={"Patient": "r"},
    ),
    Operation(
        "reindex",
        ("GET", "POST"),
        operation_url("reindex"),
        "Makes the search index of stored resources anew; GET tells how far it is.",
        reindex.reindex,
        at={ANY: ("system", "type")},
        needs={"SearchParameter": "cu"},
    ),
    Operation(
        "job",
        ("GET", "DELETE"),
        operation_url("job"),
        "Tells how far a job is and gives its result; DELETE cancels it.",
        job.job,
        at={ANY: ("system",)},
        gives=(FHIR_JSON, "text/csv"),  # whatever the operation has given
        needs={},
    ),
    Operation(
        "everything",
        ("GET", "POST"),
        f"{_HL7}{{type}}-everything",
        "All resources of the compartment and what they refer to.",
        everything.everything,
        at={"Patient": ("type", "instance"), "Encounter": ("instance",)},
        needs={"*": "r"},
    ),
    Operation(
        "lastn",
        ("GET", "POST"),
        f"{_HL7}Observation-lastn",
        "The most recent observations of each code for a subject.",
        lastn.lastn,
        at={"Observation": ("type",)},
        needs={"Observation": "s"},
    ),
)
