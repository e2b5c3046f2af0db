"""The published JSON Schemas, for tests that look at what the tool prints with --json."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

FOLDER = Path(__file__).parent.parent / "docs" / "reference" / "schemas"
_SUFFIX = ".schema.json"


def names() -> list[str]:
    """Every message_type that has a schema."""
    return sorted(name for path in FOLDER.glob(f"*{_SUFFIX}") if (name := _name(path)) != "common")


@cache
def schema(message_type: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / f"{message_type}{_SUFFIX}").read_text("utf-8"))
    return document


@cache
def validator(message_type: str) -> Draft202012Validator:
    files = {path.name: path for path in FOLDER.glob(f"*{_SUFFIX}")}
    registry: Registry[Any] = Registry().with_resources(
        (name, Resource.from_contents(schema(_name(path)))) for name, path in files.items()
    )
    return Draft202012Validator(schema(message_type), registry=registry)


def validate(line: str) -> dict[str, Any]:
    """The document of one line of output, which must fit the schema of its message_type.

    Raises:
        jsonschema.ValidationError: It does not.
        AssertionError: It is not one JSON object, or of a type that no schema describes.
    """
    document = json.loads(line)
    assert isinstance(document, dict), f"not an object: {line!r}"
    message_type = document.get("message_type")
    assert message_type in names(), f"no schema for {message_type!r}: {line!r}"
    assert isinstance(message_type, str)
    validator(message_type).validate(document)
    return document


def _name(path: Path) -> str:
    return path.name.removesuffix(_SUFFIX)
