"""The description of the API as one page without scripts: it is the same on every server."""

import html
import json
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; font-size: 1.1rem }
code, pre { font-family: ui-monospace, monospace; font-size: .9rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0;
  border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent) }
summary { cursor: pointer }
"""


def handbook(document: dict[str, Any]) -> str:
    """HTML of an OpenAPI document."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>embedmigrate API</title><style>{_STYLE}</style></head><body>",
        f"<h1>embedmigrate API {_text(document['info']['version'])}</h1>",
        f"<p>{_text(document['info']['description'])}</p>",
        "<p>For programs: <code>GET /openapi.json</code>, with a token.</p>",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(_operation(document, method.upper(), path, operation))
    parts.append("</body></html>")
    return "\n".join(parts)


def _operation(document: dict[str, Any], method: str, path: str, given: dict[str, Any]) -> str:
    parts = [
        f"<h2><code>{method} {_text(path)}</code></h2>",
        f"<p>{_text(given['summary'])}. {_text(given.get('description', ''))}</p>",
    ]
    rows = [
        (f"?{p['name']}", p["schema"], p.get("description", ""))
        for p in given.get("parameters", [])
    ]
    if body := given.get("requestBody"):
        rows += fields(document, body["content"]["application/json"]["schema"])
    if rows:
        parts.append(_table("Takes", rows))
    answer = given["responses"]["200"].get("content", {}).get("application/json")
    if answer:
        parts.append("<details><summary>Answers</summary>")
        parts.append(_table("Field", fields(document, answer["schema"])))
        parts.append("</details>")
    listed = ((c, r["description"]) for c, r in given["responses"].items() if c != "200")
    refused = "; ".join(f"{_text(code)} {_text(words)}" for code, words in listed)
    parts.append(f"<details><summary>Refusals</summary><p>{refused}</p></details>")
    return "\n".join(parts)


def fields(
    document: dict[str, Any], schema: dict[str, Any], prefix: str = ""
) -> list[tuple[str, dict[str, Any], str]]:
    """The fields of an object, and those of the objects in it."""
    found = []
    for part in schema.get("anyOf", [schema]):
        resolved = _resolved(document, part)
        for name, given in resolved.get("properties", {}).items():
            words = given.get("description", "")
            found.append((prefix + name, given, words))
            inner = given.get("items", given)
            found += fields(document, inner, f"{prefix}{name}{'[]' if 'items' in given else ''}.")
    return found


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def _table(head: str, rows: list[tuple[str, dict[str, Any], str]]) -> str:
    lines = [f"<table><tr><th>{head}</th><th>Type</th><th></th></tr>"]
    lines += [
        f"<tr><td><code>{_text(name)}</code></td><td>{_text(kind(schema))}</td>"
        f"<td>{_text(words)}</td></tr>"
        for name, schema, words in rows
    ]
    return "\n".join([*lines, "</table>"])


def kind(schema: dict[str, Any]) -> str:
    """The type in a word or two."""
    if "anyOf" in schema:
        return " or ".join(kind(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(json.dumps(v) for v in schema.get("enum", [schema.get("const")]))
    if "$ref" in schema:
        return "object"
    if "items" in schema:
        return f"array of {kind(schema['items'])}"
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("maxLength", "length ≤"),
        )
        if key in schema
    ]
    return " ".join([str(schema.get("type", "any")), *bounds])


def _text(words: str) -> str:
    return html.escape(words, quote=True)
