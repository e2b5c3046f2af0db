"""`generate-all --all-jobs`: the jobs of the configuration file, and what is shown of them."""

import os
from collections.abc import Mapping
from typing import Any, NoReturn

from embedmigrate.cli.failures import bug, reported
from embedmigrate.cli.scene import Scene, leave, run, same_command
from embedmigrate.config import Loaded, load_jobs, surroundings
from embedmigrate.errors import Exit


def generate(scene: Scene, flags: Mapping[str, Any]) -> NoReturn:
    """Run them, or with `--dry-run` only look."""
    s = scene.loaded.settings
    with reported(scene.streams, json=scene.json, verbose=s.verbose > 0, summary=not s.dry_run):
        jobs = load_jobs(scene.loaded, flags)
        code = _preview(scene, jobs) if s.dry_run else _run(scene, jobs, flags)
        leave(code)
    raise AssertionError("reported() leaves")


def _run(scene: Scene, jobs: Mapping[str, Loaded], flags: Mapping[str, Any]) -> Exit:
    from embedmigrate.app.all_jobs import AllJobs, exit_code_of  # noqa: PLC0415
    from embedmigrate.cli.several import Several  # noqa: PLC0415

    common = {key: value for key, value in flags.items() if key != "all_jobs"}

    def command(name: str) -> str:
        return same_command("generate-all", {"job": name, **common})

    with Several(scene.loaded, jobs, scene.streams) as hall:

        async def every() -> Exit:
            work = AllJobs(jobs, hall, command=command, bug=bug)
            ends = await work.run()
            code = exit_code_of(ends)
            hall.close(ends, code)
            if work.hangs:  # to leave the loop would be to wait for it
                os._exit(code)
            return code

        return run(every())


def _preview(scene: Scene, jobs: Mapping[str, Loaded]) -> Exit:
    from embedmigrate.app.all_jobs import preview_all, previewed  # noqa: PLC0415
    from embedmigrate.cli import closing, jsonl, jsonl_jobs, results  # noqa: PLC0415

    found = run(preview_all(jobs))
    total, code = previewed(found)
    if scene.json:
        for name, one in found.items():
            print(jsonl.dry_run(one, name), flush=True)  # noqa: T201
            if one.error:
                scene.streams.err.print(jsonl.exit_error(one.error, None, name))
        print(jsonl_jobs.all_plans(found, total, code), flush=True)  # noqa: T201
    elif not scene.loaded.settings.quiet or code not in {Exit.OK, Exit.GATE}:
        closing.plans(found, total, scene.streams)
    if summary := surroundings.step_summary():
        with summary.open("a", encoding="utf-8") as page:
            for name, one in found.items():
                page.write(f"## Job {name}\n\n{results.markdown_plan(one)}\n")
            page.write(f"Together: {closing.total(total)}\n")
    return code
