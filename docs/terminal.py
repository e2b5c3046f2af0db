"""Draws `docs/terminal.svg`: the display of a run, from the display's own code and sample values.

`python docs/terminal.py` writes the picture.
"""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from embedmigrate.app.values import Counts, Estimate, Place, Started, Summary
from embedmigrate.cli import results
from embedmigrate.cli.live import LiveWatcher
from embedmigrate.cli.terminal import Streams
from embedmigrate.engine.model import Progress
from embedmigrate.engine.states import State
from embedmigrate.errors import Exit

PICTURE = Path(__file__).with_name("terminal.svg")
_COLUMNS = 104

_PLACE = Place(
    database="prod",
    host="db.internal",
    port=5432,
    where="app@db.internal:5432/prod",
    server="18.4",
    pgvector="0.8.5",
    table="public.articles",
    primary_key=("id",),
    key_types=("bigint",),
    text="body",
    text_columns=("body",),
    vector_column="embedding",
    vector_type="vector",
    dimensions=1536,
    provider="openai",
    model="text-embedding-3-small",
)
_BEFORE = Counts(
    total=1_248_310,
    without_text=1_204,
    eligible=1_247_106,
    embedded=1_190_422,
    missing=56_684,
    stale=0,
)
_STARTED = Started(
    run_id="7f3c9a",
    version="0.1.0",
    pid=48213,
    host="ops1",
    place=_PLACE,
    counts=_BEFORE,
    selected=56_684,
    already_done=0,
    estimate=Estimate(
        rows=56_684,
        tokens=23_353_808,
        error=0.03,
        sampled=1_000,
        counter="cl100k_base",
        requests=443,
        seconds=1_401,
        bound_by="tpm",
        cost_usd=0.467,
        price=0.02,
    ),
    resume_from=None,
    force=False,
    state_file="~/.local/state/embedmigrate/prod-5fe53e.public.articles.embedding.json",
    error_report="~/.local/state/embedmigrate/7f3c9a.errors.jsonl",
    batch_size=128,
    concurrency=8,
)
_RUNNING = Progress(
    state=State.RUNNING,
    rows_selected=56_684,
    rows_stored=34_193,
    rows_failed=7,
    requests=268,
    retries=4,
    tokens=14_090_400,
    cost_usd=0.2818,
    rows_per_second=40.4,
    elapsed_seconds=846,
    eta_seconds=556,
    in_flight=8,
    concurrency=8,
    cursor=("918233",),
)
_SUMMARY = Summary(
    run_id="7f3c9a",
    state=State.COMPLETED_WITH_ERRORS,
    exit_code=Exit.PARTIAL,
    place=_PLACE,
    progress=replace(
        _RUNNING,
        state=State.COMPLETED_WITH_ERRORS,
        rows_stored=56_672,
        rows_failed=12,
        requests=467,
        retries=9,
        tokens=23_341_190,
        cost_usd=0.467,
        elapsed_seconds=1_404,
        cursor=("1248310",),
    ),
    before=_BEFORE,
    after=replace(_BEFORE, embedded=1_247_094, missing=12),
    counted_after=True,
    errors_by_code={"input_too_long": 11, "input_rejected": 1},
    skipped_by_code={},
    new_rows_left=False,
    state_file=_STARTED.state_file,
    error_report=_STARTED.error_report,
    next_command=(
        "embedmigrate generate-all --table public.articles --text-column body --retry-failed 7f3c9a"
    ),
)


def record() -> Console:
    """The session on a console that remembers it."""
    console = Console(
        record=True,
        width=_COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
        legacy_windows=False,
    )
    streams = Streams(console, console, interactive=True, can_ask=False)
    prompt = Text("$ ", style="dim")
    command = "embedmigrate generate-all --table public.articles --text-column body --tpm 1000000"
    console.print(Text.assemble(prompt, (command, "bold")))
    console.print(results.opening(_STARTED))
    watcher = LiveWatcher(streams)
    watcher.progress = _RUNNING
    watcher._began = time.monotonic() - _RUNNING.elapsed_seconds - 0.5  # noqa: SLF001  a still
    console.print(watcher.frame())
    console.print(Text("\n... nine minutes later ...\n", style="dim italic"))
    results.summary(_SUMMARY, streams)
    return console


def draw() -> str:
    """The picture as SVG, the same on every run; the reader's own font, none from the network."""
    picture = record().export_svg(title="embedmigrate", unique_id="embedmigrate")
    picture = re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    return re.sub(r"[ \t]+$", "", picture, flags=re.MULTILINE)


if __name__ == "__main__":
    PICTURE.write_text(draw(), "utf-8")
