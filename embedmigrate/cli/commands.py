"""The commands: each reads its settings, calls one use case and shows what came of it."""

import time
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

import typer

from embedmigrate.cli.failures import reported, show
from embedmigrate.cli.options import VersionFlag, takes_settings
from embedmigrate.cli.scene import Scene, leave, open_scene, run, same_command
from embedmigrate.cli.serving import serve
from embedmigrate.cli.setting_up import HELP_NAMES, config_app, demo, init
from embedmigrate.config import surroundings
from embedmigrate.errors import Exit

_RUN_EXITS = """
**Exit status**: 0 done, nothing to do, or a planned limit · 2 bad option or setting · 3 some rows
failed · 4 rows pending (--detailed-exitcode) · 5 an outage outlasted the retries: run again ·
6 stopped · 7 provider refused · 8 --max-cost · 10 table, column or width · 11 another run ·
12 login or privilege · 13 state file · 130/143 interrupted. Treat any other as failure.
"""

app = typer.Typer(
    name="embedmigrate",
    help="Fill pgvector columns in PostgreSQL: fast, resumable, honest about what it did and cost.",
    no_args_is_help=True,
    context_settings=HELP_NAMES,
    pretty_exceptions_show_locals=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback()
def root(version: VersionFlag = None) -> None:
    """What holds for all commands."""


@app.command("generate-all", rich_help_panel="Embed", epilog=_RUN_EXITS)
@takes_settings("generate-all")
def generate_all(flags: Mapping[str, Any]) -> None:
    """Embed every selected row that has no current embedding.

    `embedmigrate generate-all --table public.articles --text-column body`

    `embedmigrate generate-all --batch-size 20 --dry-run`

    `embedmigrate generate-all --all-jobs`
    """
    scene = open_scene(flags, summary=not flags.get("dry_run"))
    if scene.loaded.settings.all_jobs:
        from embedmigrate.cli import all_jobs  # noqa: PLC0415

        all_jobs.generate(scene, flags)
    if scene.loaded.settings.dry_run:
        _preview(scene)
    s = scene.loaded.settings
    with reported(scene.streams, json=scene.json, verbose=s.verbose > 0, summary=True):
        from embedmigrate.app.generate import GenerateAll  # noqa: PLC0415
        from embedmigrate.cli.audience import watchers_for  # noqa: PLC0415

        with watchers_for(scene.loaded, scene.streams) as watcher:
            job = GenerateAll(scene.loaded, watcher, command=same_command("generate-all", flags))
            summary = run(job.run())
        watcher.close(summary)
        if summary.error and not scene.json:
            show(summary.error, scene.streams, verbose=s.verbose > 0)
        leave(summary.exit_code)


def _preview(scene: Scene) -> NoReturn:
    s = scene.loaded.settings
    with reported(scene.streams, json=scene.json, verbose=s.verbose > 0):
        from embedmigrate.app.preview import dry_run  # noqa: PLC0415
        from embedmigrate.cli import jsonl, results  # noqa: PLC0415

        found = run(dry_run(scene.loaded))
        if scene.json:
            print(jsonl.dry_run(found), flush=True)  # noqa: T201
        elif not s.quiet or found.exit_code not in {Exit.OK, Exit.GATE}:
            results.dry_run(found, scene.streams)
        if summary := surroundings.step_summary():
            with summary.open("a", encoding="utf-8") as page:
                page.write(results.markdown_plan(found))
        if scene.json and (error := found.error):
            scene.streams.err.print(jsonl.exit_error(error, None))
        leave(found.exit_code)
    raise AssertionError("reported() leaves")


@app.command("generate-one", rich_help_panel="Embed", epilog=_RUN_EXITS)
@takes_settings("generate-one")
def generate_one(
    flags: Mapping[str, Any],
    key: Annotated[
        list[str],
        typer.Argument(metavar="KEY...", help="The row's key; all columns of it in order."),
    ],
) -> None:
    """Embed one row by primary key.

    `embedmigrate generate-one 918233 --table public.articles --text-column body`

    `embedmigrate generate-one ckxyz123 --force`
    """
    scene = open_scene(flags)
    with reported(scene.streams, json=scene.json, verbose=scene.loaded.settings.verbose > 0):
        from embedmigrate.app.one import generate_one as one  # noqa: PLC0415
        from embedmigrate.cli import jsonl, reports  # noqa: PLC0415

        row = run(one(scene.loaded, key))
        if scene.json:
            print(jsonl.row(row), flush=True)  # noqa: T201
        elif not scene.loaded.settings.quiet or row.exit_code:
            reports.one_row(row, scene.streams)
        leave(row.exit_code)


@app.command("stats", rich_help_panel="Look")
@takes_settings("stats")
def stats(
    flags: Mapping[str, Any],
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="From the planner's statistics, without reading rows."),
    ] = False,
    fail_under: Annotated[
        float | None,
        typer.Option(
            "--fail-under", metavar="PCT", help="Exit 4 when coverage is below.", min=0, max=100
        ),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Tab-separated values.")] = False,
) -> None:
    """Coverage of the table: how much has a vector, how much is missing, what it takes to finish.

    `embedmigrate stats --table public.articles --text-column body`

    `embedmigrate stats --fail-under 99.5 --json`

    **Exit status**: 0 reported · 4 coverage below --fail-under · others as for generate-all.
    """
    scene = open_scene(flags)
    with reported(scene.streams, json=scene.json, verbose=scene.loaded.settings.verbose > 0):
        if scene.loaded.settings.url:
            from embedmigrate.cli import remote  # noqa: PLC0415

            leave(remote.stats(scene, fail_under=fail_under, plain=plain))
        from embedmigrate.app.preview import stats as look  # noqa: PLC0415
        from embedmigrate.cli import jsonl, reports  # noqa: PLC0415

        found = run(look(scene.loaded, estimated=estimate, fail_under=fail_under))
        if scene.json:
            print(jsonl.stats(found), flush=True)  # noqa: T201
        else:
            reports.stats(found, scene.streams, tsv=plain)
        leave(found.exit_code)


@app.command("status", rich_help_panel="Look")
@takes_settings("status")
def status(
    flags: Mapping[str, Any],
    watch: Annotated[
        float | None,
        typer.Option("--watch", metavar="SECONDS", help="Redraw every so often.", min=0.2),
    ] = None,
) -> None:
    """State of the current or last run; reads the local state file, or asks a server.

    `embedmigrate status --table public.articles`

    `embedmigrate status --url https://db1.internal:5001 --json`

    **Exit status**: 0 whenever it could report · 13 the state file cannot be read.
    """
    scene = open_scene(flags)
    with reported(scene.streams, json=scene.json, verbose=scene.loaded.settings.verbose > 0):
        _show_status(scene)
        while watch:
            time.sleep(watch)
            if scene.streams.interactive and not scene.json:
                scene.streams.out.clear()
            _show_status(scene)


def _show_status(scene: Scene) -> None:
    if scene.loaded.settings.url:
        from embedmigrate.cli import remote  # noqa: PLC0415

        remote.status(scene)
        return
    from embedmigrate.app.control import statuses  # noqa: PLC0415

    found = statuses(scene.loaded)
    out = scene.streams.out
    if scene.json:
        from embedmigrate.cli import jsonl  # noqa: PLC0415

        for one in found:
            print(jsonl.status(one), flush=True)  # noqa: T201
        if not found:
            print(jsonl.no_status(), flush=True)  # noqa: T201
    elif not found:
        s = scene.loaded.settings
        place = f"{s.side_table or s.table}.{s.vector_column} "
        job = place if "table" in scene.loaded.origins else ""
        out.print(f"No run recorded for {job or 'any job '}in {surroundings.state_directory(s)}.")
    elif len(found) == 1:
        from embedmigrate.cli import status as report  # noqa: PLC0415

        report.show(found[0], scene.streams)
    else:
        for one in found:
            done = one.run.progress.get("done_ratio") or 0.0
            out.print(
                f"{one.run.place}  {one.run.state}  "
                f"{int(done * 100)} %  run {one.run.run_id}  on {one.run.target['where']}"
            )


@app.command("stop", rich_help_panel="Look")
@takes_settings("stop")
def stop(
    flags: Mapping[str, Any],
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait.", min=0)
    ] = 60.0,
    now: Annotated[bool, typer.Option("--now", help="Abort the requests in flight.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Ask and return at once.")] = False,
) -> None:
    """Ask a running job to finish what is in flight and exit.

    `embedmigrate stop`

    `embedmigrate stop --table public.articles --timeout 120`

    **Exit status**: 0 stopped, or nothing was running · 5 still running after the timeout.
    """
    scene = open_scene(flags)
    out = scene.streams.out
    with reported(scene.streams, json=scene.json, verbose=scene.loaded.settings.verbose > 0):
        if scene.loaded.settings.url:
            from embedmigrate.cli import remote  # noqa: PLC0415

            leave(remote.stop(scene, timeout=timeout, now=now, wait=not no_wait))
        from embedmigrate.app import control  # noqa: PLC0415
        from embedmigrate.cli import jsonl  # noqa: PLC0415
        from embedmigrate.state import RunState  # noqa: PLC0415

        def asked(run: RunState) -> None:
            if not scene.json:
                out.print(f"Asked run {run.run_id} (pid {run.pid} on {run.host}) to stop.")

        ended = control.stop(
            scene.loaded, timeout=timeout, now=now, wait=not no_wait, on_asked=asked
        )
        for one in ended:
            if scene.json:
                print(jsonl.stop(one), flush=True)  # noqa: T201
            else:
                _show_stop(one, scene)
        leave(Exit.TEMPORARY if any(one.result == "timeout" for one in ended) else Exit.OK)


def _show_stop(ended: Any, scene: Scene) -> None:
    out = scene.streams.out
    if ended.result == "not_running":
        out.print("Nothing is running.")
    elif ended.result == "timeout":
        out.print("It is still running; embedmigrate stop --now aborts what is in flight.")
    elif ended.result == "stopped" and ended.run:
        p = ended.run.progress
        out.print(
            f"Stopped. {p.get('rows_done', 0):,} of {p.get('rows_total', 0):,} rows done; "
            f"checkpoint saved at id {p.get('last_id') or '(none yet)'}."
        )
        out.print(f"Resume: {ended.run.command}")


app.command("serve", rich_help_panel="Serve")(serve)
app.command("init", rich_help_panel="Set up")(init)
app.command("demo", rich_help_panel="Set up")(demo)
app.add_typer(config_app, name="config", rich_help_panel="Set up")
