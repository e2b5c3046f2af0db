"""What the two streams are: a person's terminal, a log, or a program."""

import sys
from dataclasses import dataclass
from io import TextIOWrapper

from rich.console import Console

from embedmigrate.config import surroundings


@dataclass(frozen=True, slots=True)
class Streams:
    """stdout carries the result; stderr carries progress, logs and errors."""

    out: Console
    err: Console
    interactive: bool
    can_ask: bool


def open_streams(*, json: bool = False, color: str = "auto", no_input: bool = False) -> Streams:
    """Decide once, for every output of the process.

    FORCE_COLOR and `--color always` colour a pipe and never animate it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace", line_buffering=True)
    interactive = (
        sys.stderr.isatty()
        and surroundings.terminal_kind() not in {"", "dumb", "unknown"}
        and not surroundings.in_ci()
        and not json
    )
    return Streams(
        _console(color, stderr=False, interactive=interactive and sys.stdout.isatty()),
        _console(color, stderr=True, interactive=interactive),
        interactive,
        can_ask=sys.stdin is not None and sys.stdin.isatty() and interactive and not no_input,
    )


def _console(color: str, *, stderr: bool, interactive: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    plain = surroundings.no_color() or color == "never"
    forced = not plain and (color == "always" or surroundings.force_color())
    return Console(
        stderr=stderr,
        force_interactive=interactive,
        force_terminal=True if forced else (None if stream.isatty() else False),
        no_color=plain,
        highlight=False,
        soft_wrap=True,
        legacy_windows=False,
        emoji=False,
        markup=False,
    )
