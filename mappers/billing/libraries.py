"""A site's settings kept as a `Library` with one JSON attachment (https://hl7.org/fhir/R4/library.html)."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fhir_server.fhir.outcome import Issue
from mappers.billing.fields import Resource

Model = TypeVar("Model", bound=BaseModel)

LARGEST_ATTACHMENT = 256 * 1024
"""Bytes of an attachment: 500 rules with lists of codes have some 100 KB."""
_LONGEST_DATA = (LARGEST_ATTACHMENT + 2) // 3 * 4
_MOST_ISSUES = 100
_PLACE = ("Library.content[0].data",)


def read_library(library: Resource, model: type[Model]) -> tuple[Model | None, list[Issue]]:
    """The attachment of a Library as a model, or None with an issue per fault, each with the place in the JSON."""
    contents = library.get("content") or []
    if len(contents) != 1 or contents[0].get("contentType") != "application/json":
        text = "The Library must have exactly one attachment, of contentType `application/json`."
        return None, [Issue("error", "structure", text, ("Library.content",))]
    if len(contents[0].get("data", "")) > _LONGEST_DATA:
        text = f"The attachment has more than {LARGEST_ATTACHMENT:,} bytes; divide what it says."
        return None, [Issue("error", "too-long", text, _PLACE)]
    try:
        text = base64.b64decode(contents[0].get("data", ""), validate=True).decode()
        tree = json.loads(text)
    except (binascii.Error, ValueError, RecursionError) as error:
        return None, [Issue("error", "structure", f"The attachment is not JSON in base64: {error}.", _PLACE)]
    return read_model(tree, model)


def read_model(tree: object, model: type[Model]) -> tuple[Model | None, list[Issue]]:
    """A JSON tree as a model, or None with a sentence for each fault."""
    try:
        return model.model_validate(tree), []
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        issues = [_fault_to_issue(fault["loc"], str(fault["msg"])) for fault in faults[:_MOST_ISSUES]]
        if more := len(faults) - len(issues):
            issues.append(Issue("error", "invalid", f"{more:,} more faults are left out.", _PLACE))
        return None, issues


def make_library(model: BaseModel, kind: str, name: str, version: str) -> Resource:
    """A Library that holds a model; `kind` is its `type.text`."""
    text = model.model_dump_json(exclude_defaults=True, by_alias=True)
    content = {"contentType": "application/json", "data": base64.b64encode(text.encode()).decode()}
    head: Resource = {"resourceType": "Library", "status": "active", "name": name, "version": version}
    return {**head, "type": {"text": kind}, "content": [content]}


def _fault_to_issue(location: tuple[int | str, ...], message: str) -> Issue:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    text = f"`{path or 'the attachment'}` is wrong: {message.removeprefix('Value error, ')}."
    return Issue("error", "invalid", text, _PLACE)
