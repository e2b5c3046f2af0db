"""Errors on their way out: one message with cause and next command, redacted, and the exit code."""

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

import typer
from rich.text import Text

from embedmigrate.cli.terminal import Streams
from embedmigrate.errors import ConfigError, EmbedMigrateError, Exit
from embedmigrate.secrets import redact

_COMMANDS = {"generate-all", "generate-one", "stats", "status", "stop", "serve", "init", "config"}
_COMMANDS |= {"demo"}


def show(
    error: EmbedMigrateError, streams: Streams, *, verbose: bool = False, job: str | None = None
) -> None:
    """`error:` what happened, the facts, `hint:` what to do next."""
    code = f"   [{error.code}] exit {int(error.exit_code)}" if verbose else ""
    where = f" {job}:" if job else ""
    head = Text.assemble(("error:", "bold red"), f"{where} {redact(error.message)}{code}")
    streams.err.print(head)
    for fact in error.facts:
        streams.err.print(f"  {redact(fact)}")
    if error.hint:
        streams.err.print(Text.assemble(("  hint:", "bold"), f" {redact(error.hint)}"))


@contextlib.contextmanager
def reported(
    streams: Streams, *, json: bool, verbose: bool, summary: bool = False
) -> Iterator[None]:
    """Turn what goes wrong inside into a message and an exit code.

    Args:
        streams: Where to write.
        json: As one object on stderr; with `summary` also as the last line of stdout.
        verbose: Show the error's code.
        summary: Whether the command promises a summary whatever the outcome.
    """
    try:
        yield
    except EmbedMigrateError as error:
        _leave(error, streams, json=json, verbose=verbose, summary=summary)
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001  the last line of defence against a leaking traceback
        _leave(bug(error), streams, json=json, verbose=verbose, summary=summary)


def run_as_json(app: typer.Typer) -> NoReturn:
    """Run a command line that asks for JSON: what Typer itself refuses is an object as well."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        code = Exit.INTERRUPTED
    except Exception as error:
        if not isinstance(error, typer.BadParameter.__mro__[1]):
            raise
        from embedmigrate.cli import jsonl  # noqa: PLC0415

        said = str(getattr(error, "format_message", error.__str__)())
        command = next((word for word in sys.argv[1:] if word in _COMMANDS), "")
        hint = " ".join(filter(None, ["embedmigrate", command, "--help"]))
        refused = ConfigError(said, code="usage", hint=hint)
        if command == "generate-all":
            print(jsonl.refused_summary(refused), flush=True)  # noqa: T201
        print(jsonl.exit_error(refused, None), file=sys.stderr, flush=True)  # noqa: T201
        code = refused.exit_code
    sys.exit(int(code or 0))


def _leave(
    error: EmbedMigrateError, streams: Streams, *, json: bool, verbose: bool, summary: bool
) -> NoReturn:
    if json:
        from embedmigrate.cli import jsonl  # noqa: PLC0415

        if summary:
            print(jsonl.refused_summary(error), flush=True)  # noqa: T201
        streams.err.print(jsonl.exit_error(error, None))
    else:
        show(error, streams, verbose=verbose)
    raise typer.Exit(int(error.exit_code))


def bug(error: Exception) -> EmbedMigrateError:
    """An unexpected error: where it happened, and never its text, which may hold a row's."""
    import traceback  # noqa: PLC0415

    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    frames = traceback.extract_tb(cause.__traceback__)
    where = [f"{f.filename}:{f.lineno} {f.name}" for f in frames[-6:]]
    return EmbedMigrateError(
        f"unexpected {type(cause).__name__}; this is a bug in embedmigrate",
        code="internal",
        facts=("What was embedded is saved.", *where),
        hint="run the same command again; please report the lines above",
    )
