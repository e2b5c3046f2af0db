"""Writes the tables of reliability.md from what the fault series have measured.

`python docs/reliability.py RESULTS...` takes in what `python -m tests.faults --results` and
`python -m tests.faults.detection` have written, a line of JSON each; the newest of a series takes
the place of the one kept in `reliability.jsonl`. Without arguments only the page is written again.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

import tests.faults  # noqa: E402
from tests.faults.mutants import MUTANTS  # noqa: E402
from tests.faults.series import REGISTRY  # noqa: E402

PAGE, KEPT = DOCS / "reliability.md", DOCS / "reliability.jsonl"
_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_GROUPS = {
    "P": "The provider",
    "D": "The data",
    "C": "Changes meanwhile",
    "G": "PostgreSQL",
    "S": "State and locks",
    "O": "Operation",
}
_CONFIDENCE = 0.95
_CERTAIN = {"memory", "encodings", "awkward-tables"}
"""Their rounds are no trials: each does the same thing every time."""


def measured() -> dict[str, dict[str, Any]]:
    """The kept lines by the name of their series or defect."""
    lines = map(json.loads, KEPT.read_text("utf-8").splitlines()) if KEPT.exists() else ()
    return {line.get("series") or line["mutant"]: line for line in lines}


def bound(rounds: int) -> str:
    """The upper end of the exact one-sided interval for the chance of a failure, none in `rounds`.

    Clopper and Pearson (1934): 1 - (1 - 0.95) ** (1 / n), about 3 / n.
    """
    return f"{100 * (1 - (1 - _CONFIDENCE) ** (1 / rounds)):.2g} %"


def series_table() -> str:
    lines, found = list[str](), measured()
    for module in pkgutil.iter_modules(tests.faults.__path__):
        if not module.name.startswith(("_", "test_", "conftest")):
            importlib.import_module(f"tests.faults.{module.name}")
    ordered = sorted(REGISTRY.values(), key=lambda one: list(_GROUPS).index(one.rows[0][0]))
    for letter, members in groupby(ordered, key=lambda one: one.rows[0][0]):
        lines += [f"### {_GROUPS[letter]}", "", "| Series | Rows | Rounds | Failures | Bound |"]
        lines.append("|---|---|---|---|---|")
        some = list(members)
        lines += [_line(one.name, one.rows, found.get(one.name)) for one in some]
        lines.append("")
        for one in some:
            lines += [f"#### {one.name}", "", _sentence(one.run.__doc__), ""]
            lines += [*_measured(found.get(one.name)), ""]
    return "\n".join(lines)


def _line(name: str, rows: tuple[str, ...], line: dict[str, Any] | None) -> str:
    if line is None:
        return f"| [{name}](#{name}) | {', '.join(rows)} | not run | | |"
    failures = len(line["broken"])
    chance = "" if failures or name in _CERTAIN else bound(line["rounds"])
    return f"| [{name}](#{name}) | {', '.join(rows)} | {line['rounds']:,} | {failures} | {chance} |"


def _sentence(doc: str | None) -> str:
    return " ".join((doc or "").split())


def _measured(line: dict[str, Any] | None) -> list[str]:
    if line is None:
        return ["Not run in its long form yet."]
    given = [f"- {_words(name)}: {_value(value)}" for name, value in line["figures"].items()]
    failed = [f"- failed: {words}" for words in line["broken"]]
    took = f"{line['date']}, {line['machine']}, {line['seconds']:,.0f} s:"
    return [took, "", "```sh", line["command"], "```", "", *given, *failed]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_words(str(k))} {_inner(v)}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _inner(value: object) -> str:
    return f"({_value(value)})" if isinstance(value, dict) else _value(value)


def mutants_table() -> str:
    found = measured()
    lines = ["| Defect | Found in round | By |", "|---|---|---|"]
    for name, switch in MUTANTS.items():
        line = found.get(name, {})
        number = line.get("found_in_round") or "not found"
        doc, by = _sentence(switch.__doc__), line.get("by", "")
        lines.append(f"| {name}: {doc} | {number} | {by} |")
    return "\n".join(lines) + "\n"


BLOCKS = {"series": series_table, "mutants": mutants_table}


def render(page: str) -> str:
    """The page with its tables as the kept results have them."""
    return _BLOCK.sub(lambda m: f"{m[1]}\n{BLOCKS[m[2]]()}\n{m[3]}", page)


def main() -> None:
    if given := [Path(name) for name in sys.argv[1:]]:
        kept = measured()
        for path in given:
            for line in map(json.loads, path.read_text("utf-8").splitlines()):
                if "by" in line:  # without the folder, which is of the machine
                    line["by"] = re.sub(r"/[^ ]*/", "", line["by"])
                if "skipped" not in line and "skipped" not in line.get("figures", {}):
                    kept[line.get("series") or line["mutant"]] = line
        text = "".join(json.dumps(kept[name]) + "\n" for name in sorted(kept))
        KEPT.write_text(text, "utf-8")
    PAGE.write_text(render(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
