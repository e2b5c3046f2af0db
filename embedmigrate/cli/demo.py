"""`demo`: the real job, in front of the user, on a server and a model that need nothing."""

import asyncio
import shutil
import tempfile
from pathlib import Path

from embedmigrate.app import demo
from embedmigrate.app.generate import GenerateAll
from embedmigrate.app.values import Summary
from embedmigrate.cli import results, wording
from embedmigrate.cli.audience import watchers_for
from embedmigrate.cli.terminal import Streams
from embedmigrate.config import load
from embedmigrate.errors import Exit
from embedmigrate.postgres import embedded
from embedmigrate.sample import SEARCHES


def run_demo(streams: Streams, *, rows: int, seed: int, keep: bool, path: str | None) -> Exit:
    """Start, fill, embed, search, and leave nothing behind unless `keep`."""
    folder = Path(path) if path else Path(tempfile.mkdtemp(prefix="embedmigrate-demo-"))
    if not path:
        folder.chmod(0o755)  # mkdtemp closes it to the user who runs the server for root
    url = f"embedded:{folder}"
    out = streams.out
    out.print("embedmigrate demo: an embedded PostgreSQL, invented résumés, a local model.\n")
    try:
        server = embedded.start(url)
        try:
            asyncio.run(demo.create(server.url, rows=rows, seed=seed))
            out.print(
                f"Created base_resumes with {wording.plural(rows, 'résumé')}, no vectors yet.\n"
            )
            summary = _embed(streams, url, folder)
            if not summary.exit_code:
                _search(streams, server.url)
        finally:
            server.keep(keep)
            server.stop()
    finally:
        if not keep and not path:
            shutil.rmtree(folder, ignore_errors=True)
    if keep:
        out.print(f"\nKept and running. Look at it with:\n  psql '{server.url}'")
        out.print(f"  embedmigrate stats --database-url embedded:{folder} --provider local")
        out.print(f"End it with:\n  kill $(head -1 {folder}/data/postmaster.pid)")
    return summary.exit_code


def _embed(streams: Streams, url: str, folder: Path) -> Summary:
    """The very job that `generate-all` runs, with the settings that it would be given."""
    flags = {
        "database_url": url,
        "provider": "local",
        "model": "wordllama",
        "state_dir": folder / "state",
        "table": "base_resumes",
        "text_column": ["data"],
        "vector_column": "embedding",
        "batch_size": 64,
    }
    loaded = load(flags, environ={})
    with watchers_for(loaded, streams) as watcher:
        run = GenerateAll(
            loaded, watcher, command=f"embedmigrate generate-all --database-url {url}"
        )
        summary = asyncio.run(run.run())
    results.summary(summary, streams)
    return summary


def _search(streams: Streams, url: str) -> None:
    questions = [question for question, _ in SEARCHES]
    for question, hits in zip(questions, asyncio.run(demo.search(url, questions)), strict=True):
        streams.out.print(f"\nSearch: {question}")
        for hit in hits:
            streams.out.print(f"  {hit.similarity:.3f}  {hit.title}, {hit.name}")
