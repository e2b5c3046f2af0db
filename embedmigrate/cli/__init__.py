"""The command line: Typer commands over the use cases, and the only code that prints."""


def main() -> None:
    """Run the command line; the exit code is one of `errors.Exit`."""
    from embedmigrate.cli.commands import app  # noqa: PLC0415  quick for whoever imports the package

    app()
