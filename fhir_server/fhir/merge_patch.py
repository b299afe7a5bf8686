"""JSON Merge Patch on lossless trees (RFC 7396): members replace, `null` removes, arrays are replaced as a whole."""

from __future__ import annotations

from fhir_server.fhir.json_tree import Tree
from fhir_server.fhir.outcome import Unprocessable


def apply(tree: Tree, patch: Tree) -> Tree:
    """The patched tree; `tree` stays as it is. Raises Unprocessable for a patch that is no JSON object."""
    if not isinstance(patch, dict):
        raise Unprocessable("A JSON Merge Patch of a resource is a JSON object.", code="structure")
    return _merge(tree, patch)


def _merge(tree: Tree, patch: Tree) -> Tree:
    """RFC 7396, section 2. The depth of `patch` is bounded, as that of each body."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(tree) if isinstance(tree, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value)
    return merged
