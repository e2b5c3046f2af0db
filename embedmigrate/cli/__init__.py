"""The command line: Typer commands over the use cases, and the only code that prints."""

import sys


def main() -> None:
    """Run the command line; the exit code is one of `errors.Exit`."""
    from embedmigrate.cli.commands import app  # noqa: PLC0415  quick for whoever imports the package
    from embedmigrate.cli.lasting import outlast  # noqa: PLC0415

    outlast()
    if "--json" in sys.argv[1:]:
        from embedmigrate.cli.failures import run_as_json  # noqa: PLC0415

        run_as_json(app)
    app()
