"""`_list`: the resources that a List names (https://hl7.org/fhir/R4/search.html#list)."""

from __future__ import annotations

import re

from fhir_server.fhir.outcome import Invalid, NotSupported
from fhir_server.search.parameters import Criteria
from fhir_server.search.query import Clause, Has, Ids

_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}", re.ASCII)


def parse_list_clause(type: str, text: str, criteria: Criteria) -> Clause:
    """Some entry of one of the lists (ids, separated by commas) refers to the resource.

    Entries that are marked as deleted count: R4 asks for what is referenced. Raises NotSupported for functional lists.
    """
    ids = tuple(dict.fromkeys(text.split(",")))
    for id in ids:
        if id.startswith("$"):
            raise NotSupported(
                f"`_list={id}` is a functional list, which this server does not keep; name a List by id."
            )
        if not _ID.fullmatch(id):
            raise Invalid(f"`_list={text}` should be the id of a List, such as `_list=42`.")
    if "List" not in criteria.registry.types:
        raise NotSupported("This server keeps no List resources, so it has nothing to answer `_list` by.")
    return Has("List", "item", Ids(ids))
