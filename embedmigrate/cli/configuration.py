"""`config show` and `init`: the settings in force, and a first file of them."""

import shlex
from pathlib import Path
from typing import Any

from rich.table import Table

from embedmigrate.app.values import Proposal, Setup
from embedmigrate.cli import jsonl, toml, wording
from embedmigrate.cli.terminal import Streams
from embedmigrate.config import Loaded, Settings, options
from embedmigrate.embedders.models import choose
from embedmigrate.errors import ConfigError
from embedmigrate.postgres import embedded
from embedmigrate.postgres.address import parameters
from embedmigrate.secrets import Secret, hint_of, redact

_DEFAULT_FILE = "embedmigrate.toml"
_URLS = {"database_url", "lock_database_url"}


def show_settings(loaded: Loaded, streams: Streams, *, json: bool) -> None:
    """Every setting with its value and where it came from; secrets masked."""
    s = loaded.settings
    chosen = _chosen(s)
    listed = []
    for key in options():
        value, origin = _shown(key, getattr(s, key)), loaded.origins.get(key, "default")
        if value is None and key in chosen:
            value, origin = chosen[key], f"default for {s.provider}"
        listed.append((key, value, origin))
    if json:
        body = {
            "settings": {key: {"value": value, "origin": origin} for key, value, origin in listed},
            "files": list(loaded.files),
            "jobs": list(loaded.jobs),
            "warnings": list(loaded.warnings),
        }
        print(jsonl.line("config", body), flush=True)  # noqa: T201
        return
    _show_listed(listed, streams)
    for label, names in (("files read", loaded.files), ("jobs", loaded.jobs)):
        streams.out.print(redact(f"{label}: {', '.join(names) or 'none'}"))


def _show_listed(listed: list[tuple[str, Any, str]], streams: Streams) -> None:
    if not (streams.interactive and streams.out.is_terminal):
        for key, value, origin in listed:
            streams.out.print(redact(f"{key}: {_words(value)}  ({origin})"))
        return
    panels = {key: option.panel for key, option in options().items()}
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_column(style="dim", overflow="fold")
    panel = ""
    for key, value, origin in listed:
        if panels[key] != panel:
            panel = panels[key]
            table.add_row(panel)
        table.add_row(f"  {key}", redact(_words(value)), redact(origin))
    streams.out.print(table)


def _words(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shown(key: str, value: Any) -> Any:
    if isinstance(value, Secret):
        secret = value.reveal().strip()
        return _masked_url(secret) if key in _URLS else hint_of(secret)
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _masked_url(url: str) -> str:
    """The URL without its password; nothing at all of what libpq would not even understand."""
    if embedded.is_embedded(url):
        return redact(url)
    try:
        given = parameters(url)
    except ConfigError:
        return "*** (not a PostgreSQL URL)"
    shown = redact(url)
    hidden = (str(v) for k, v in given.items() if "password" in k and v)
    return "***" if any(secret in shown for secret in hidden) else shown


def _chosen(s: Settings) -> dict[str, Any]:
    """What the provider's profile fills in where the operator left it open."""
    try:
        choice = choose(
            s.provider,
            s.model,
            dimensions=s.dimensions,
            price=s.price,
            batch_size=s.batch_size,
            batch_bytes=s.batch_bytes,
            concurrency=s.concurrency,
        )
    except ConfigError:
        return {}  # the settings contradict each other; a run says how, here they are only shown
    return {
        "model": choice.name,
        "dimensions": choice.dimensions,
        "price": choice.price,
        "batch_size": choice.batch_size,
        "batch_bytes": choice.limits.bytes,
    }


def run_init(
    loaded: Loaded,
    streams: Streams,
    *,
    sql: bool,
    output: str,
    overwrite: bool,
    dimensions: int,
) -> None:
    """Propose jobs and write them to `output`; with `sql` print the DDL instead.

    Raises:
        ConfigError: The file is there already, or cannot be written.
        TargetError: There is no vector column to fill.
    """
    import asyncio  # noqa: PLC0415

    from embedmigrate.app import setup  # noqa: PLC0415  config show does without the pool

    json = loaded.settings.json
    if sql:
        text = asyncio.run(setup.statements(loaded, dimensions))
        # Not redacted: it holds names from the catalog alone, and a changed name would be wrong.
        print(jsonl.line("init", {"sql": text}) if json else text, flush=True)  # noqa: T201
        return
    path = Path(output)
    if path.exists() and not overwrite:
        raise _exists(path)
    found = asyncio.run(setup.inspect(loaded))
    _write(path, toml.document(found), overwrite=overwrite)
    following = _next_command(loaded, output, found)
    if json:
        body = {
            "file": output,
            "where": found.where,
            "pgvector": found.pgvector or None,
            "jobs": [_job(job) for job in found.jobs],
            "next_command": following,
        }
        print(jsonl.line("init", body), flush=True)  # noqa: T201
    else:
        _report(loaded, streams, found, output, following)


def _exists(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is there already",
        code="config_exists",
        facts=("Nothing was written.",),
        hint="--overwrite to replace it, or --output PATH for another file",
    )


def _write(path: Path, text: str, *, overwrite: bool) -> None:
    """Whole or not at all, and never over a file that has appeared meanwhile."""
    try:
        if not overwrite:
            with path.open("x", encoding="utf-8") as new:
                new.write(text)
            return
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(text, "utf-8")
        beside.replace(path)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}",
            code="config_unwritable",
            hint="--output PATH for a file in a folder that you may write to",
        ) from None


def _job(job: Proposal) -> dict[str, Any]:
    return {
        "name": job.name,
        "settings": job.settings,
        "found": job.found,
        "notes": list(job.notes),
        "problems": list(job.problems),
    }


def _report(
    loaded: Loaded, streams: Streams, found: Setup, output: str, following: str | None
) -> None:
    quiet = loaded.settings.quiet
    if not quiet:
        streams.out.print(redact(f"Looked at {found.where}."))
    for job in found.jobs:
        if not quiet:
            table = job.settings["table"]
            streams.out.print(redact(f"\n[jobs.{toml.key(job.name)}] {table}"))
            streams.out.print(wording.pairs(job.found.items()))
        for problem in job.problems:
            if quiet <= 1:
                streams.err.print(redact(f"warning: job {job.name} cannot run yet: {problem}"))
    if quiet:
        return
    streams.out.print(redact(f"\nWrote {output}."))
    other = next((f for f in loaded.files if f.endswith(".toml")), output)
    if output == _DEFAULT_FILE and other != output:
        streams.out.print(redact(f"It takes the place of {other}, which is not read beside it."))
    if loaded.origins.get("database_url") == "--database-url":
        streams.out.print("The database URL is not in it: export DATABASE_URL first.")
    if following:
        streams.out.print(redact(f"Next: {following}"))


def _next_command(loaded: Loaded, output: str, found: Setup) -> str | None:
    """For the first job that can run."""
    job = next((job for job in found.jobs if not job.problems), None)
    if job is None:
        return None
    words = ["embedmigrate", "generate-all", "--job", job.name, "--dry-run"]
    if Path(output) != Path(_DEFAULT_FILE):
        words += ["--config", output]
    for key, value in (
        ("env-file", loaded.settings.env_file),
        ("database-url-file", loaded.settings.database_url_file),
    ):
        if value and loaded.origins.get(key.replace("-", "_")) == f"--{key}":
            words += [f"--{key}", str(value)]
    return shlex.join(words)
