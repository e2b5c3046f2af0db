"""Writes the generated parts of the reference from the code.

`python docs/generate.py` rewrites the pages, `--check` only says which are out of date.
A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; all else is prose.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import typer.main

from embedmigrate import errors
from embedmigrate.cli.commands import app
from embedmigrate.cli.options import PANELS
from embedmigrate.config.settings import CountOrAuto, options, table
from embedmigrate.web.handbook import fields, kind
from embedmigrate.web.site import description, openapi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "embedmigrate"
SCHEMAS = DOCS / "reference" / "schemas"
_BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_ENTRY = re.compile(r"^### ([a-z][a-z0-9_]*)\n(.*?)(?=^#{2,3} |\Z)", re.MULTILINE | re.DOTALL)


# Commands


def commands() -> dict[str, Any]:
    """Every command by its full name, in the order of `--help`."""
    found: dict[str, Any] = {}

    def walk(group: Any, prefix: str) -> None:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                walk(command, f"{prefix}{name} ")
            else:
                found[f"{prefix}{name}"] = command

    walk(typer.main.get_command(app), "")
    return dict(sorted(found.items(), key=lambda item: _ORDER.index(item[0])))


_ORDER = ["generate-all", "generate-one", "stats", "status", "stop", "serve", "init"]
_ORDER += ["config show", "demo"]


def flags(command: Any) -> dict[str, Any]:
    """Every spelling of every option of a command, as typed."""
    return {
        spelling: parameter
        for parameter in command.params
        for spelling in (*parameter.opts, *parameter.secondary_opts)
        if spelling.startswith("-")
    } | {"--help": None, "-h": None}


def _cli() -> str:
    parts = []
    for name, command in commands().items():
        paragraphs = [p.strip() for p in (command.help or "").strip().split("\n\n")]
        examples = [p.strip("`") for p in paragraphs if p.startswith("`")]
        prose = [_joined(p) for p in paragraphs if not p.startswith("`")]
        arguments = [p for p in command.params if not p.opts[0].startswith("-")]
        usage = " ".join(
            ["embedmigrate", name, "[OPTIONS]", *(p.metavar or p.name for p in arguments)]
        )
        parts += [f"## {name}", "", prose[0], "", "```sh", usage, "```", ""]
        if examples:
            parts += ["Examples:", "", "```sh", *examples, "```", ""]
        parts += [text + "\n" for text in prose[1:]]
        if command.epilog:
            parts += [_joined(command.epilog.strip()), ""]
        if arguments:
            parts += ["| Argument | Meaning |", "|---|---|"]
            parts += [f"| `{p.metavar or p.name}` | {_cell(p.help)} |" for p in arguments]
            parts.append("")
        parts += _option_tables(command)
    return "\n".join(parts).rstrip() + "\n"


def _option_tables(command: Any) -> Iterator[str]:
    groups: dict[str, list[Any]] = defaultdict(list)
    for parameter in command.params:
        if parameter.opts[0].startswith("-"):
            groups[parameter.rich_help_panel or "This command"].append(parameter)
    for panel in sorted(groups, key=["This command", *PANELS].index):
        yield from (f"{panel}:", "", "| Option | Meaning |", "|---|---|")
        for parameter in groups[panel]:
            yield f"| {_spellings(parameter)} | {_option_help(parameter)} |"
        yield ""


def _spellings(parameter: Any) -> str:
    long = [s for s in parameter.opts if s.startswith("--")]
    short = [s for s in parameter.opts if not s.startswith("--")]
    metavar = f" {parameter.metavar}" if parameter.metavar else ""
    shown = [f"`{s}{metavar}`" for s in [*long, *parameter.secondary_opts]]
    shown += [f"`{s}`" for s in short]
    if parameter.name in options() and parameter.rich_help_panel in PANELS:
        shown[0] = f"[{shown[0]}](configuration.md#{parameter.name})"
    return ", ".join(shown).replace("|", "\\|")


def _option_help(parameter: Any) -> str:
    own_default = parameter.rich_help_panel is None and parameter.default not in (None, False)
    words = parameter.help + (f" [default: {parameter.default}]" if own_default else "")
    return _cell(words)


def _joined(paragraph: str) -> str:
    return " ".join(paragraph.split())


def _cell(text: str) -> str:
    return _joined(text).replace("|", "\\|")


# Settings


def _value(key: str) -> str:
    """What may be given, in words."""
    kind, option = table()[key].kind, options()[key]
    bounds = {"at least": option.ge, "above": option.gt, "at most": option.le}
    limits = ", ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
    if options()[key].metavar == "TIME":
        words = "seconds, or a duration such as `500ms`, `30s`, `10m`, `2h`, `1h30m`"
    elif kind == CountOrAuto:
        words = "`auto`, or a whole number"
    elif kind is bool:
        words = "`true` or `false`; the flag takes no value"
    elif get_origin(kind) is Literal:
        words = ", ".join(f"`{choice}`" for choice in get_args(kind))
    elif get_origin(kind) is tuple:
        words = "a list; in the environment separated by commas"
    else:
        words = _plain_kind({kind})
    return f"{words}, {limits}" if limits else words


def _plain_kind(kinds: set[Any]) -> str:
    names = {getattr(kind, "__name__", "") for kind in kinds}
    if "Secret" in names:
        return "text; masked wherever it is shown"
    for name, words in (("int", "whole number"), ("float", "number"), ("Path", "path")):
        if name in names:
            return words
    return "text"


def _default(key: str) -> str:
    default = table()[key].default
    if default in (None, ()):
        return "none" if "Default:" not in options()[key].help else "see above"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ", ".join(f"`{part}`" for part in default)
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _settings() -> str:
    parts: list[str] = []
    known, every = options(), set(commands()) - {"demo"}
    for panel in dict.fromkeys(option.panel for option in known.values()):
        parts += [f"## {panel} settings", ""]
        for key, option in known.items():
            if option.panel != panel:
                continue
            names = [f"`--{key.replace('_', '-')}{f' {option.metavar}' if option.metavar else ''}`"]
            names += [f"`{other}`" for other in (option.off, option.short) if other]
            takers = [name for name in commands() if name in option.commands]
            parts += [
                f"### {key}",
                "",
                _joined(option.help),
                "",
                f"- flag: {', '.join(names) if option.flag else 'none'}",
                f"- environment: `EMBEDMIGRATE_{key.upper()}`",
                f"- value: {_value(key)}",
                f"- default: {_default(key)}",
                f"- commands: {'all but demo' if set(takers) == every else ', '.join(takers)}",
                "",
            ]
    return "\n".join(parts).rstrip() + "\n"


# Codes of errors


@dataclass
class Code:
    """Where a code comes up: as the end of a command, of a row, or as a notice."""

    exits: set[int] = field(default_factory=set)
    row: bool = False
    notice: bool = False


_ROWS = (errors.RejectedInput, errors.TransientError)
_NOTICES = {"Noticed", "notice", "_notice", "_once"}
_PASSED_ON = ("state_dir_unwritable",)
"""Errors of the last save, which end nothing any more: shown as notices, under their own codes."""


def error_codes() -> dict[str, Code]:
    """Every code in the source: a literal given to whatever takes a parameter named `code`."""
    found: dict[str, Code] = defaultdict(Code)
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    takers: dict[str, _Taker] = {}
    for tree in trees.values():
        takers |= _takers(tree)
    for tree in trees.values():
        known = takers | _takers(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                _note_call(node, known, found)
    for cls in vars(errors).values():
        if isinstance(cls, type) and issubclass(cls, errors.EmbedMigrateError):
            default = (cls.__init__.__kwdefaults__ or {}).get("code")
            if default and "__init__" in vars(cls):
                found[default].exits.add(int(cls.exit_code))
    for code in _PASSED_ON:
        found[code].notice = True
    return dict(sorted(found.items()))


@dataclass
class _Taker:
    """A function or class with a parameter named `code`: its place, and what it raises with it."""

    place: int
    raises: set[str]


def _takers(tree: ast.Module) -> dict[str, _Taker]:
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
            names = names[1:] if names[:1] == ["self"] else names
            inner = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
            raised = {
                _name(call)
                for call in inner
                for keyword in call.keywords
                if keyword.arg == "code" and isinstance(keyword.value, ast.Name)
            }
        elif isinstance(node, ast.ClassDef):
            names = [
                n.target.id
                for n in node.body
                if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
            ]
            raised = set()
        else:
            continue
        found[node.name] = _Taker(names.index("code") if "code" in names else -1, raised)
    return found


def _note_call(node: ast.Call, takers: dict[str, _Taker], found: dict[str, Code]) -> None:
    name = _name(node)
    taker = takers.get(name)
    given: list[ast.expr] = [k.value for k in node.keywords if k.arg == "code"]
    if taker and 0 <= taker.place < len(node.args):
        given.append(node.args[taker.place])
    for code in filter(None, map(_literal, given)):
        entry = found[code]
        entry.notice |= name in _NOTICES
        entry.row |= name in {"Failure", "_fail"}
        for raised in {name} | (taker.raises if taker else set()):
            cls = getattr(errors, raised, None)
            if cls is errors.EmbedMigrateError and code != "internal":
                continue  # an error as a line of the dry run; nothing ends with it
            if isinstance(cls, type) and issubclass(cls, errors.EmbedMigrateError):
                entry.exits.add(int(cls.exit_code))
                entry.row |= issubclass(cls, _ROWS) and not issubclass(cls, errors.RateLimited)


def _name(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _literal(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value if re.fullmatch(r"[a-z][a-z0-9_]*", node.value) else None
    return None


def _index() -> str:
    lines = ["| Code | Exit code | In the row report | As a notice |", "|---|---|---|---|"]
    for name, code in error_codes().items():
        exits = ", ".join(str(number) for number in sorted(code.exits)) or "none"
        marks = " | ".join("yes" if mark else "no" for mark in (code.row, code.notice))
        lines.append(f"| [{name}](#{name}) | {exits} | {marks} |")
    return "\n".join(lines) + "\n"


def error_entries() -> dict[str, str]:
    """The entries of errors.md: the text below each code's heading."""
    page = (DOCS / "reference" / "errors.md").read_text("utf-8")
    return dict(_ENTRY.findall(page))


# JSON documents


def _documents() -> str:
    parts = []
    for path in sorted(SCHEMAS.glob("*.schema.json")):
        schema = json.loads(path.read_text("utf-8"))
        if "properties" not in schema:
            continue
        parts += [f"### {schema['title']}", "", f"[Schema](schemas/{path.name})."]
        parts += [*schema["description"].split("\n"), "", *_keys(schema), ""]
    common = json.loads((SCHEMAS / "common.schema.json").read_text("utf-8"))
    for name, schema in common["$defs"].items():
        if "properties" in schema:
            parts += [f"### The object {name}", "", schema["description"], "", *_keys(schema), ""]
    return "\n".join(parts).rstrip() + "\n"


_ENVELOPE = ("schema", "message_type", "time")
"""In every document, and explained once."""


def _keys(schema: dict[str, Any]) -> Iterator[str]:
    yield from ("| Key | Type | Meaning |", "|---|---|---|")
    required = schema.get("required", [])
    for name, given in schema["properties"].items():
        if name in _ENVELOPE and "message_type" in schema["properties"]:
            continue
        optional = "" if name in required else " (may be absent)"
        yield f"| `{name}` | {_type(given)} | {_cell(given.get('description', ''))}{optional} |"


def _type(given: dict[str, Any]) -> str:
    if "const" in given:
        return f"`{json.dumps(given['const'])}`"
    if "enum" in given:
        return ", ".join(f"`{json.dumps(value)}`" for value in given["enum"])
    if "$ref" in given:
        name = given["$ref"].rpartition("/")[2]
        return name if name in {"id", "state", "time"} else f"[{name}](#the-object-{name})"
    if "anyOf" in given:
        return " or ".join(_type(one) for one in given["anyOf"])
    kinds = given.get("type", "any")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "items" in given:
        kinds = [f"array of {_type(given['items'])}" if k == "array" else k for k in kinds]
    return " or ".join(kinds)


# The admin API


def _api() -> str:
    document = openapi(description())
    parts = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += _endpoint(document, f"{method.upper()} {path}", operation)
    return "\n".join(parts).rstrip() + "\n"


def _endpoint(document: dict[str, Any], name: str, given: dict[str, Any]) -> Iterator[str]:
    role = "admin" if name.startswith("POST") else "viewer"
    yield from (
        f"## {name}",
        "",
        f"{given['summary']}; {role if given['security'] else 'no token'}.",
    )
    if words := given.get("description"):
        yield from ("", _sentences(words))
    yield ""
    asked = given.get("parameters", [])
    taken = [(f"?{p['name']}", p["schema"], p.get("description", "")) for p in asked]
    if body := given.get("requestBody"):
        taken += fields(document, body["content"]["application/json"]["schema"])
    answer = given["responses"]["200"].get("content", {}).get("application/json")
    answers = fields(document, answer["schema"]) if answer else []
    for head, rows in (("Takes", taken), ("Answers", answers)):
        if rows:
            yield from (f"| {head} | Type | Meaning |", "|---|---|---|")
            for field_name, schema, meaning in rows:
                yield f"| `{field_name}` | {_cell(kind(schema))} | {_cell(meaning)} |"
            yield ""


def _sentences(words: str) -> str:
    return re.sub(r"(?<=[.]) +", "\n", " ".join(words.split()))


# Pages

BLOCKS: dict[str, Callable[[], str]] = {
    "commands": _cli,
    "settings": _settings,
    "error-index": _index,
    "documents": _documents,
    "api": _api,
}


def render(page: str) -> str:
    """The page with its generated parts as the code has them now."""
    return _BLOCK.sub(lambda m: f"{m[1]}\n{BLOCKS[m[2]]()}\n{m[3]}", page)


def pages() -> list[Path]:
    return sorted((DOCS / "reference").glob("*.md"))


def main() -> int:
    """0 when every page is up to date, or has been brought there."""
    stale = []
    for path in pages():
        page = path.read_text("utf-8")
        if (fresh := render(page)) != page:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(fresh, "utf-8")
    print("\n".join(stale) or "all pages are up to date")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
