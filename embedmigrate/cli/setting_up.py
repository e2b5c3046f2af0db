"""The commands before the first run: `init`, `demo`, `config show`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from embedmigrate.cli.failures import reported
from embedmigrate.cli.options import takes_settings
from embedmigrate.cli.scene import leave, open_scene
from embedmigrate.cli.terminal import open_streams

HELP_NAMES = {"help_option_names": ["-h", "--help"]}

config_app = typer.Typer(
    help="The settings in force.", no_args_is_help=True, context_settings=HELP_NAMES
)


@config_app.command("show")
@takes_settings("config show")
def config_show(flags: Mapping[str, Any]) -> None:
    """Every setting with its value and where it came from; secrets masked.

    `embedmigrate config show`

    `embedmigrate config show --job articles --json`
    """
    scene = open_scene(flags)
    from embedmigrate.cli.configuration import show_settings  # noqa: PLC0415

    show_settings(scene.loaded, scene.streams, json=scene.json)


@takes_settings("init")
def init(
    flags: Mapping[str, Any],
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the DDL for what is missing; run nothing.")
    ] = False,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="PATH", help="File to write.")
    ] = "embedmigrate.toml",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
    dimensions: Annotated[
        int,
        typer.Option("--dimensions", metavar="N", help="Width of a column that is missing.", min=1),
    ] = 1536,
) -> None:
    """Look at the database and write embedmigrate.toml; --sql prints the DDL it suggests.

    `embedmigrate init`

    `embedmigrate init --table public.articles --sql`
    """
    scene = open_scene(flags)
    with reported(scene.streams, json=scene.json, verbose=scene.loaded.settings.verbose > 0):
        from embedmigrate.cli.configuration import run_init  # noqa: PLC0415

        run_init(
            scene.loaded,
            scene.streams,
            sql=sql,
            output=output,
            overwrite=overwrite,
            dimensions=dimensions,
        )


def demo(
    rows: Annotated[int, typer.Option("--rows", help="Résumés to generate.", min=1)] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the generator.")] = 7,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server's data in place.")] = False,
    path: Annotated[
        str | None, typer.Option("--path", metavar="PATH", help="Where the server keeps its data.")
    ] = None,
) -> None:
    """The whole job on an embedded PostgreSQL with a local model: no key, no server.

    `embedmigrate demo`

    `embedmigrate demo --rows 5000 --keep`
    """
    streams = open_streams()
    with reported(streams, json=False, verbose=False):
        from embedmigrate.cli.demo import run_demo  # noqa: PLC0415

        leave(run_demo(streams, rows=rows, seed=seed, keep=keep, path=path))
