"""The id and the type under which a resource is stored, as its URL and its body say (https://hl7.org/fhir/R4/http.html#update)."""

from __future__ import annotations

from typing import Any

from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.resource import Text, is_id


def check_identity(text: Text, type: str, id: str | None) -> None:
    """Refuse a body whose `resourceType` is not the URL's, or whose `id` is not where the URL has one."""
    found = text.tree.get("resourceType")
    if found is None:
        raise Invalid(f"The body has no `resourceType`; for this URL it is `{type}`.", code="structure")
    if found != type:
        raise Invalid(
            f"The body is of type `{found}`, but the URL says `{type}`.", code="structure", expression=(type,)
        )
    own = text.tree.get("id")
    if id is None or own == id:
        return
    path = (f"{type}.id",)
    if own is None:
        sentence = f'The body has no `id`; an update of `{type}/{id}` needs `"id": "{id}"`.'
        raise Invalid(sentence, code="required", expression=path)
    raise Invalid(f"The body has the id `{own}`, but the URL says `{id}`.", code="value", expression=path)


def check_id(id: str) -> str:
    """An id from a URL that something is to be written at."""
    if not is_id(id):
        raise Invalid(f"`{id}` is not a FHIR id; use 1 to 64 letters, digits, `-` and `.`.", code="value")
    return id


def build_stored_tree(tree: dict[str, Any], id: str) -> dict[str, Any]:
    """The tree as it will be stored: the id set, and what the server assigns taken out of meta."""
    tree = {**tree, "id": id}
    meta = tree.get("meta")
    if isinstance(meta, dict) and ("versionId" in meta or "lastUpdated" in meta):
        tree["meta"] = {key: value for key, value in meta.items() if key not in ("versionId", "lastUpdated")}
    if tree.get("meta") == {}:
        del tree["meta"]
    return tree
