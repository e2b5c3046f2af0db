"""The command line: Typer commands over the use cases, and the only code that prints."""

import gc
import sys


def main() -> None:
    """Run the command line; the exit code is one of `errors.Exit`."""
    # Nothing that imports make is garbage: looking for it takes a tenth of a short command's time,
    # and so does looking through everything at the end. `scene.run` turns it on for the work.
    gc.disable()
    try:
        _run()
    finally:
        gc.freeze()


def _run() -> None:
    # All imports in here: whoever imports the package need not wait for them.
    from embedmigrate.cli import options  # noqa: PLC0415
    from embedmigrate.cli.lasting import outlast  # noqa: PLC0415
    from embedmigrate.config.surroundings import completing  # noqa: PLC0415

    outlast()
    if not completing():
        options.invoked = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    from embedmigrate.cli.commands import app  # noqa: PLC0415  made for the command just named

    if "--json" in sys.argv[1:]:
        from embedmigrate.cli.failures import run_as_json  # noqa: PLC0415

        run_as_json(app)
    app()
