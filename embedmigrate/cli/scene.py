"""What every command begins with and ends by: its settings, its streams, its exit code."""

import gc
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import typer

from embedmigrate.cli.failures import reported
from embedmigrate.cli.terminal import Streams, open_streams
from embedmigrate.config import Loaded, load, options, surroundings
from embedmigrate.errors import Exit

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scene:
    """The settings of one call, and the streams that they ask for."""

    loaded: Loaded
    streams: Streams

    @property
    def json(self) -> bool:
        return self.loaded.settings.json


def open_scene(flags: Mapping[str, Any], *, summary: bool = False) -> Scene:
    """Read the settings; what is wrong with them is already reported as the flags ask."""
    json = bool(flags.get("json")) or surroundings.json_lines()
    color = str(flags.get("color") or "auto")
    streams = open_streams(json=json, color=color, no_input=bool(flags.get("no_input")))
    with reported(streams, json=json, verbose=bool(flags.get("verbose")), summary=summary):
        loaded = load(flags)
    s = loaded.settings
    streams = open_streams(json=s.json, color=s.color, no_input=s.no_input)
    if not s.json and s.quiet < 2:  # noqa: PLR2004
        for warning in loaded.warnings:
            streams.err.print(f"warning: {warning}")
    if s.verbose and not s.json:
        for path in loaded.files:
            streams.err.print(f"read {path}")
    return Scene(loaded, streams)


def same_command(name: str, flags: Mapping[str, Any]) -> str:
    """The command that names the same job again: target, model and files, nothing of one run."""
    kept = {
        k: v
        for k, v in flags.items()
        if options()[k].panel in {"Target", "Model"} or k in {"config", "env_file", "state_dir"}
    }
    words = ["embedmigrate", name]
    for key, value in kept.items():
        if key == "database_url":
            continue  # it may hold a password; the environment has it the next time as well
        for one in value if isinstance(value, list) else [value]:
            flag = f"--{key.replace('_', '-')}"
            words += [flag] if one is True else [flag, str(one)]
    import shlex  # noqa: PLC0415

    return shlex.join(words)


def run(work: Coroutine[Any, Any, T]) -> T:
    import asyncio  # noqa: PLC0415  a tenth of the time that --help and status take

    gc.freeze()
    gc.enable()
    return asyncio.run(work)


def leave(code: Exit) -> NoReturn:
    raise typer.Exit(int(code))
