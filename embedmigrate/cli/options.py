"""Settings → command-line options: each command's signature is made from the one class."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_origin

import typer

from embedmigrate.config.settings import Option, options, table

invoked: str | None = None
"""The command that this process runs, or "" for none; the others need no options then.

Making the options of all commands takes a tenth of the time in which `status` has answered.
"""

PANELS = (
    "Target",
    "Model",
    "Selection",
    "Safety",
    "Rate and retries",
    "Scale",
    "Checkpoint",
    "Server",
    "Output",
    "Help",
)


def takes_settings(command: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command all options of the settings that name it.

    The command receives those that were given as one mapping, `flags`, keyed as in the
    configuration file, beside its own parameters.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        if invoked is not None and command.partition(" ")[0] != invoked:
            return _undressed(function)
        own = [p for p in inspect.signature(function).parameters.values() if p.name != "flags"]
        mine = {key: o for key, o in options().items() if command in o.commands and o.flag}

        @functools.wraps(function)
        def wrapper(**given: Any) -> None:
            given.pop("version", None)
            flags = {key: given.pop(key) for key in mine}
            function(flags={k: v for k, v in flags.items() if v not in (None, [], 0, "")}, **given)

        parameters = [*own, *(_parameter(key, option) for key, option in mine.items()), _VERSION]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        del wrapper.__wrapped__
        return wrapper

    return decorate


def _undressed(function: Callable[..., None]) -> Callable[..., None]:
    """Only a name and a help text, for the list of commands."""

    def listed() -> None:
        raise AssertionError("only the invoked command is run")

    listed.__name__, listed.__doc__ = function.__name__, function.__doc__
    return listed


def _parameter(key: str, option: Option) -> inspect.Parameter:
    name = f"--{key.replace('_', '-')}"
    kind = _kind(table()[key].kind)
    declared: dict[str, Any] = {
        "help": option.help + ("" if kind is bool else _default(key)),
        "rich_help_panel": option.panel,
        "show_default": False,
        "metavar": option.metavar,
    }
    counted = key in {"quiet", "verbose"}
    if counted:
        kind, declared["count"] = int, True
    names = [f"{name}/{option.off}" if option.off else name, *filter(None, [option.short])]
    return inspect.Parameter(
        key,
        inspect.Parameter.KEYWORD_ONLY,
        default=0 if counted else None,
        annotation=Annotated[kind, typer.Option(*names, **declared)],
    )


def _kind(kind: Any) -> Any:
    """What the parser has to know; numbers and durations are the settings' own to judge."""
    if kind is bool or get_origin(kind) is Literal:
        return kind
    return list[str] if get_origin(kind) is tuple else str


def _default(key: str) -> str:
    default = table()[key].default
    if default in (None, (), 0) or isinstance(default, bool) or "Default" in options()[key].help:
        return ""
    shown = ", ".join(default) if isinstance(default, tuple) else default
    return f" [default: {shown:g}]" if isinstance(shown, float) else f" [default: {shown}]"


def _print_version(wanted: bool | None) -> None:
    if wanted:
        from embedmigrate import __version__  # noqa: PLC0415

        typer.echo(f"embedmigrate {__version__}")
        raise typer.Exit


VersionFlag = Annotated[
    bool | None,
    typer.Option(
        "--version",
        "-V",
        help="Show the version and exit.",
        rich_help_panel="Help",
        callback=_print_version,
        is_eager=True,
        show_default=False,
    ),
]
_VERSION = inspect.Parameter(
    "version", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=VersionFlag
)
