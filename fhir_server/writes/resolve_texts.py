"""The text that each target of a plan will have: patched, its references to other entries and by criteria resolved."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fhir_server.fhir.definitions import Definitions
from fhir_server.fhir.json_tree import decode, encode
from fhir_server.fhir.outcome import Deleted, FhirError, NotFound, Unprocessable
from fhir_server.fhir.resource import Text, parse
from fhir_server.requests.context import Context
from fhir_server.requests.long_work import THREAD_FROM
from fhir_server.requests.request import Caller
from fhir_server.store.protocol import Stored
from fhir_server.writes.action import Action
from fhir_server.writes.bundle_references import (
    BundleReferences,
    look_up_conditional_references,
    refuse_unresolved,
    resolve_conditional_references,
)
from fhir_server.writes.resolve_targets import SLICE, ResolvedTargets, Target

# A few bytes of a patch look at many of the resource.
_PATCH_WEIGHT = 16


async def resolve_texts(
    context: Context, resolved: ResolvedTargets, caller: Caller, found: Mapping[str, Stored], bundle: bool
) -> dict[int, Text]:
    """The text each target will have, with references resolved, by position of the target."""
    texts: dict[int, Text] = {}
    links = BundleReferences.of(resolved.targets) if bundle else None
    asking = [
        text
        for target in resolved.targets
        if (text := target.action.text) is not None
        and b"?" in text.raw
        and not target.found
        and target.action.type != "Bundle"
    ]
    if len(asking) > 1:
        await look_up_conditional_references(context, resolved, asking, caller)
    for number, target in enumerate(resolved.targets):
        action = target.action
        if target.found or action.method == "DELETE":
            continue
        try:
            text = action.text or await _patch(context, target, found.get(target.reference))
            inside = action.type == "Bundle"  # what the entries of a Bundle refer to is settled inside it
            if bundle or context.settings.references == "enforce":
                of_bundle = (text, None if inside else links, action.full_url, context.definitions)
                if len(text.raw) < THREAD_FROM:
                    text = _settle_references(*of_bundle)
                else:
                    text = await context.long_work.run(len(text.raw), _settle_references, *of_bundle)
            if b"?" in text.raw and not inside:
                text = await resolve_conditional_references(context, resolved, text, caller)
        except FhirError as error:
            raise (error.relocate(action.where) if action.where else error) from None
        texts[number] = text
        if number % SLICE == SLICE - 1:
            await asyncio.sleep(0)
    return texts


async def _patch(context: Context, target: Target, current: Stored | None) -> Text:
    size = target.action.patch_size * _PATCH_WEIGHT + (len(current.raw or b"") if current is not None else 0)
    return await context.long_work.run(size, apply_patch, target.action, target, current)


def _settle_references(text: Text, links: BundleReferences | None, full_url: str, definitions: Definitions) -> Text:
    """The resource with its references to other entries replaced. Raises Invalid where one names no entry."""
    if links is not None:
        text = links.rewrite(text, full_url, definitions)
    refuse_unresolved(text)
    return text


def apply_patch(action: Action, target: Target, current: Stored | None) -> Text:
    """The patched text. Raises NotFound, Deleted, or Unprocessable where type or id would change."""
    if current is None:
        raise NotFound(f"`{target.reference}` does not exist, so there is nothing to patch.")
    if current.raw is None:
        raise Deleted(f"`{target.reference}` was deleted; a PUT would bring it back, a patch cannot.")
    assert action.patch is not None
    tree = action.patch(decode(current.raw))
    if not isinstance(tree, dict) or tree.get("resourceType") != action.type or tree.get("id") != target.id:
        raise Unprocessable(
            f"The patch changes `resourceType` or `id` of `{target.reference}`; these two cannot be patched.",
            expression=(f"{action.type}.id",),
        )
    return parse(encode(tree))
