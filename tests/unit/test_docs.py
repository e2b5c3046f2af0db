"""The documentation says what the code does: pages, commands, links, codes, and the picture."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from embedmigrate.config import options
from embedmigrate.errors import Exit
from tests import schemas

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *(ROOT / ".github").glob("*.md"), *DOCS.rglob("*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def _script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@cache
def generate() -> Any:
    return _script("generate")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


# The reference


@pytest.mark.parametrize("page", sorted((DOCS / "reference").glob("*.md")), ids=name_of)
def test_the_reference_is_up_to_date(page: Path) -> None:
    text = page.read_text("utf-8")
    assert generate().render(text) == text, "run: python docs/generate.py"


def test_the_figures_of_the_faults_are_those_that_were_kept() -> None:
    page = (DOCS / "reliability.md").read_text("utf-8")
    assert _script("reliability").render(page) == page, "run: python docs/reliability.py"


def test_the_figures_of_the_benchmarks_are_those_that_were_kept() -> None:
    page, script = (DOCS / "performance.md").read_text("utf-8"), _script("performance")
    assert script.render(page) == page, "run: python docs/performance.py"
    assert script.chart() == (DOCS / "performance.svg").read_text("utf-8")


def test_no_series_is_published_with_a_failure() -> None:
    kept = _script("reliability").measured()
    assert [name for name, line in kept.items() if line.get("broken")] == []
    assert [name for name, line in kept.items() if line.get("wrong_without_it")] == []


def test_every_command_and_option_is_documented() -> None:
    page = (DOCS / "reference" / "cli.md").read_text("utf-8")
    sections = dict(
        zip(_sections(page, 2), re.split(r"^## .+$", page, flags=re.MULTILINE)[1:], strict=True)
    )
    assert set(sections) == set(generate().commands())
    for name, command in generate().commands().items():
        for spelling in set(generate().flags(command)) - {"--help", "-h"}:
            assert re.search(rf"`{re.escape(spelling)}[ `]", sections[name]), (name, spelling)


def test_every_setting_is_documented() -> None:
    page = (DOCS / "reference" / "configuration.md").read_text("utf-8")
    assert _sections(page, 3) == list(options())
    for key in options():
        assert f"`EMBEDMIGRATE_{key.upper()}`" in page


def test_every_error_code_has_cause_and_remedy() -> None:
    entries = generate().error_entries()
    assert set(entries) == set(generate().error_codes())
    for code, text in entries.items():
        assert re.search(r"^Cause: \S", text, re.MULTILINE), code
        assert re.search(r"^Remedy: \S", text, re.MULTILINE), code


def test_every_refusal_of_the_api_is_documented() -> None:
    page = (DOCS / "reference" / "api.md").read_text("utf-8")
    listed = page.partition("## Refusals")[2]
    for path in (ROOT / "embedmigrate" / "web").glob("*.py"):
        given = re.findall(r'Refusal\(\s*(\d{3}),\s*"(\w+)"', path.read_text("utf-8"))
        for status, code in given:
            assert re.search(rf"^\| {status} \| .*`{code}`", listed, re.MULTILINE), code


def test_the_scan_for_codes_sees_every_way_to_give_one() -> None:
    codes = generate().error_codes()
    assert codes["over_budget"].exits == {8}  # code="..."
    assert codes["checkpoint_corrupt"].exits == {13}  # handed through a function
    assert codes["internal"].exits == {1}  # a default
    assert codes["bad_vector"].row  # a row's failure
    assert codes["live_index"].notice  # a notice
    assert not codes["live_index"].exits


def test_every_exit_code_is_documented() -> None:
    page = (DOCS / "reference" / "exit-codes.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| (\d+) \| (\w+) \|", page, re.MULTILINE))
    assert listed == {str(int(code)): code.name.lower() for code in Exit}
    readme = (ROOT / "README.md").read_text("utf-8")
    table = " ".join(re.findall(r"^\| ([\d, ]+) \|", readme, re.MULTILINE))
    assert {int(n) for n in re.findall(r"\d+", table)} == {int(c) for c in Exit} - {1}


def test_every_document_is_documented() -> None:
    page = (DOCS / "reference" / "json-output.md").read_text("utf-8")
    assert set(schemas.names()) <= set(_sections(page, 3))


def test_every_dependency_is_justified() -> None:
    page = (DOCS / "decisions" / "0004-dependencies.md").read_text("utf-8")
    cells = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE)
    listed = {
        re.sub(r" \(`\w+`\)", "", word).strip()
        for cell in cells
        for word in cell.split(",")
        if not set(cell) <= {"-"} and cell != "Package"
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = [
        *project["project"]["dependencies"],
        *(p for extra in project["project"]["optional-dependencies"].values() for p in extra),
        *(p for group in project["dependency-groups"].values() for p in group),
    ]
    assert listed == {re.split(r"[><=~! ]", w)[0] for w in wanted}


def test_decisions_are_whole() -> None:
    pages = sorted((DOCS / "decisions").glob("*.md"))
    assert [int(p.name[:4]) for p in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text("utf-8")
        assert text.startswith(f"# {page.name[:4]} "), page
        assert _sections(text, 2) == ["Status", "Context", "Decision", "Consequences"], page


def _sections(page: str, level: int) -> list[str]:
    return re.findall(rf"^{'#' * level} (.+)$", _FENCE.sub("", page), re.MULTILINE)


# Links


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(_FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        if anchor:
            assert anchor in _anchors(there), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, left = set[Path](), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page in seen:
            continue
        seen.add(page)
        links = _LINK.findall(page.read_text("utf-8")) if page.suffix == ".md" else []
        for target in links:
            there = (page.parent / target.partition("#")[0]).resolve()
            left += sorted(there.glob("*.md")) if there.is_dir() else [there]
            left = [p for p in left if p.is_file()]
    assert not [name_of(p) for p in PAGES if p not in seen]


@cache
def _anchors(page: Path) -> set[str]:
    """As GitHub makes them."""
    found = set[str]()
    for heading in _HEADING.findall(_FENCE.sub("", page.read_text("utf-8"))):
        plain = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = 0
        while (anchor := f"{plain}-{number}" if number else plain) in found:
            number += 1
        found.add(anchor)
    return found


# Commands


def _commands(page: Path) -> Iterator[str]:
    """Every `embedmigrate ...` in a fence or in backquotes."""
    text = page.read_text("utf-8")
    for language, content in _FENCE.findall(text):
        if language in {"sh", "cron", "ini", "yaml"}:
            joined = content.replace("\\\n", " ")
            yield from (
                found.strip()
                for line in joined.splitlines()
                for found in re.findall(r"(?:^|[\s/=])(embedmigrate [a-z-].*)", line)
            )
    yield from re.findall(r"`(embedmigrate [a-z-][^`]*)`", _FENCE.sub("", text))


def _words(command: str) -> list[str]:
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if set(word) <= set("|&;<>()"):
            break
        words.append(word)
    return words


@every_page
def test_commands_in_the_documentation_exist(page: Path) -> None:
    known = generate().commands()
    for line in _commands(page):
        words = _words(line)[1:]
        if not words or words[0].startswith("-"):
            assert set(words) <= {"--version", "--install-completion", "--show-completion"}, line
            continue
        name = " ".join(words[:2]) if words[0] == "config" else words[0]
        assert name in known, line
        flags = set(generate().flags(known[name]))
        for word in words:
            if word.startswith("-") and not re.fullmatch(r"-\d+", word):
                assert word.partition("=")[0] in flags, (line, word)


def test_flags_in_the_prose_exist() -> None:
    known = {flag for c in generate().commands().values() for flag in generate().flags(c)}
    known |= {"--version", "--install-completion", "--show-completion"}
    foreign = {"--check", "--group", "--encoding", "--head"}  # of generate.py, pip, createdb, ray
    for page in PAGES:
        text = _FENCE.sub("", page.read_text("utf-8"))
        for quoted in re.findall(r"`([^`\n]+)`", text):
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", quoted):
                assert flag in known | foreign | {"--foo-bar"}, (name_of(page), flag)


def test_the_readmes_commands_are_those_of_ci() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    lines = [line for _, content in _FENCE.findall(readme) for line in content.splitlines()]
    commands = [line for line in lines if line.startswith("python3 -m venv")]
    assert len(commands) == 2, "one that runs the demo, one that runs the tests"
    ci = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    for command in commands:
        assert command in ci
    assert commands[0].endswith("embedmigrate demo")
    assert commands[1].endswith("-m pytest -n 2")
    assert "bash .ci/run" in (ROOT / ".github" / "workflows" / "check.yml").read_text("utf-8")


# The picture


def test_the_picture_is_up_to_date() -> None:
    """Words only: another release of rich may draw them elsewhere."""
    terminal = _script("terminal")
    drawn, kept = terminal.draw(), (DOCS / "terminal.svg").read_text("utf-8")
    assert _text_of(drawn) == _text_of(kept), "run: python docs/terminal.py"


def test_the_picture_needs_no_network() -> None:
    kept = (DOCS / "terminal.svg").read_text("utf-8")
    assert not re.search(r"(url\(|href=)[\"']?https?:", kept)


def _text_of(svg: str) -> str:
    root = ET.fromstring(svg)  # noqa: S314  our own file
    words = ["".join(node.itertext()) for node in root.iter() if node.tag.endswith("}text")]
    return " ".join(" ".join(words).replace("\xa0", " ").split())


# Style


@every_page
def test_one_sentence_a_line(page: Path) -> None:
    prose = re.sub(r"<!-- generated.*?<!-- end -->", "", page.read_text("utf-8"), flags=re.DOTALL)
    for line in _FENCE.sub("", prose).splitlines():
        if re.match(r"[|#<]|- |\d|\*\*Exit", line):
            continue  # tables, headings, items of lists
        plain = re.sub(r"`[^`]*`|\([^)]*\)", "x", line)
        assert not re.search(r"[a-z][.!?] [A-Z]", plain), line


def test_the_picture_of_the_rates_is_drawn_from_runs() -> None:
    kept = (DOCS / "concurrency.svg").read_text("utf-8")
    drawn = _script("concurrency").draw()
    assert _text_of(drawn) == _text_of(kept), "run: python docs/concurrency.py"
