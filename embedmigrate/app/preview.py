"""`generate-all --dry-run` and `stats`: look at everything, change nothing, call no API."""

from collections.abc import Awaitable, Callable

from embedmigrate.app import executing, planning
from embedmigrate.app.continuing import failed_keys, job_files, last_run, starting_key
from embedmigrate.app.keeper import check_fingerprint
from embedmigrate.app.opening import Opening
from embedmigrate.app.records import key_text
from embedmigrate.app.slowdown import warnings
from embedmigrate.app.values import Check, Counts, DryRun, Estimate, Stats
from embedmigrate.app.workplace import check_width
from embedmigrate.config import Loaded
from embedmigrate.embedders import open_embedder
from embedmigrate.engine.model import Key
from embedmigrate.errors import (
    CheckpointError,
    EmbedMigrateError,
    Exit,
    LockedError,
    ProviderError,
)
from embedmigrate.postgres import census
from embedmigrate.state import RunState

Step = Callable[[], Awaitable[str]]

_NEEDS = {
    "repetition": "plan",
    "target": "connect",
    "model": "target",
    "privileges": "target",
    "checkpoint": "target",
    "other run": "target",
    "plan": "target",
    "probe": "credentials",
}
"""A check that another's failure makes impossible is skipped, and says so."""


class Preview:
    """Runs every preflight check, and lists all failures at once."""

    def __init__(self, loaded: Loaded, opening: Opening) -> None:
        self._loaded = loaded
        self._opening = opening
        self._checks: list[Check] = []
        self._last: RunState | None = None
        self._after: Key | None = None
        self._counts: Counts | None = None
        self._selected: int | None = None
        self._estimate: Estimate | None = None
        self._state_file: str | None = None

    async def run(self) -> DryRun:
        steps: dict[str, Step] = {
            "connect": self._opening.connect,
            "target": self._opening.resolve,
            "model": self._model,
            "privileges": self._opening.privileges,
            "executor": self._executor,
            "credentials": self._credentials,
            "checkpoint": self._checkpoint,
            "other run": self._other_run,
            "plan": self._plan,
            "repetition": self._repeated,
        }
        if self._opening.settings.probe:
            steps["probe"] = self._probe
        for name, step in steps.items():
            await self._check(name, step)
        if self._passed("target"):
            opening, rows = self._opening, self._selected or 0
            found = warnings(opening.burden, opening.target.dimensions, rows, self._estimate)
            self._checks += [Check(n.code, "warning", n.message) for n in found]
        return DryRun(
            checks=tuple(self._checks),
            exit_code=self._verdict(),
            place=self._opening.place if self._passed("target") else None,
            counts=self._counts,
            selected=self._selected,
            estimate=self._estimate,
            resume_from=self._after,
            state_file=self._state_file,
        )

    async def _check(self, name: str, step: Step) -> None:
        needed = _NEEDS.get(name)
        if needed and not self._passed(needed):
            self._checks.append(Check(name, "skipped", f"not checked: {needed} failed"))
            return
        try:
            self._checks.append(Check(name, "ok", await step()))
        except EmbedMigrateError as error:
            # A live run is worth knowing and no reason against a plan; nor is a role that may
            # only read: the preview is its to run.
            mild = name == "other run" or error.details.get("privilege") in {"UPDATE", "INSERT"}
            self._checks.append(Check(name, "warning" if mild else "failed", error.message, error))

    def _passed(self, name: str) -> bool:
        return any(c.name == name and c.status == "ok" for c in self._checks)

    def _verdict(self) -> Exit:
        failed = DryRun(tuple(self._checks), Exit.OK).error
        if failed:
            return failed.exit_code
        return Exit.GATE if self._opening.settings.detailed_exitcode and self._selected else Exit.OK

    async def _credentials(self) -> str:
        return self._opening.credentials()

    async def _model(self) -> str:
        return self._opening.fit()

    async def _executor(self) -> str:
        return executing.check(self._opening)

    async def _checkpoint(self) -> str:
        files = job_files(self._loaded)
        self._state_file = str(files.state)
        files.inspect()
        if self._opening.settings.restart:
            return "--restart would put the state file aside"
        try:
            self._last = files.load()
        except CheckpointError as error:
            if error.code != "checkpoint_corrupt" or files.load_previous() is None:
                raise
            return f"{error.message}; a run would go on from the one before it"
        if self._last is None:
            return "none yet: the first run"
        check_fingerprint(self._last, self._opening)
        return f"last run {self._last.run_id} ended {self._last.state}, same settings"

    async def _other_run(self) -> str:
        if job_files(self._loaded).live():
            raise LockedError(
                "a run is working on this target now",
                code="lock_held",
                hint="embedmigrate status · embedmigrate stop",
            )
        return "none on this machine"

    async def _plan(self) -> str:
        opening, s = self._opening, self._opening.settings
        self._after = starting_key(opening, self._last)
        if self._after:
            await census.check_key(opening.database, opening.target, self._after, "--resume-from")
        counter = planning.counter_of(opening)
        self._counts = await planning.count(opening)
        self._selected = await planning.select(opening, self._counts, self._after)
        if s.retry_failed:
            files = job_files(self._loaded)
            self._selected = len(failed_keys(files, s.retry_failed, self._last))
        planned = await planning.estimate(opening, counter, self._counts, self._selected)
        self._estimate = planned
        planning.check_budget(opening, planned)
        start = f"after id {key_text(self._after)}" if self._after else "at the first row"
        rows = opening.concurrency * opening.choice.batch_size
        return f"would start {start}; a crash costs at most {rows:,} rows sent again"

    async def _repeated(self) -> str:
        """Before `--limit`, which takes whatever comes first."""
        s, planned = self._opening.settings, self._estimate
        if s.retry_failed or not planned or not self._selected:
            return "not counted"
        found = await census.repeated(self._opening.database, self._opening.target, force=s.force)
        if not found:
            return "no text occurs twice"
        tokens = round(planned.tokens / planned.rows * found)
        return (
            f"{found:,} texts occur before in the table; those that the run still remembers "
            f"are not sent again: up to {tokens:,} tokens less"
        )

    async def _probe(self) -> str:
        """One short text: the only request that a dry run makes, and only when it is told to."""
        opening = self._opening
        width = opening.target.dimensions if self._passed("target") else 1
        embedder = open_embedder(
            opening.choice, opening.access, width=width, notice=lambda _code, _message: None
        )
        try:
            embedded = await embedder.embed(["embedmigrate probe"])
        finally:
            await embedder.aclose()
        got = embedded.vectors.shape[1]
        if self._passed("target") and got != width:
            check_width(embedder, opening)
            raise ProviderError(
                f"the provider returned {got} dimensions, the column takes {width}",
                code="dimension_mismatch",
                hint="check --model and --dimensions; not every server honours a shortened width",
            )
        return f"one text came back as {got} dimensions, {embedded.tokens} tokens charged"


async def dry_run(loaded: Loaded) -> DryRun:
    """Check and plan.

    Raises:
        EmbedMigrateError: The settings do not even allow to begin with the checks.
    """
    async with Opening(loaded) as opening:
        return await Preview(loaded, opening).run()


async def stats(loaded: Loaded, *, estimated: bool, fail_under: float | None) -> Stats:
    """Coverage of the table, and what it takes to finish it.

    Args:
        loaded: The settings.
        estimated: From the planner's statistics, without reading the table.
        fail_under: Per cent of coverage below which the exit code is 4.
    """
    async with Opening(loaded, connections=2) as opening:
        await opening.connect()
        await opening.resolve()
        orphaned = None
        if estimated:
            taken = await census.estimate(opening.database, opening.target)
            counts, planned = planning.counts_of(taken), None
        else:
            counts = await planning.count(opening)
            rows = counts.missing + counts.stale
            counter = planning.sampler(opening, planning.counter_of(opening))
            planned = await planning.estimate(opening, counter, counts, rows)
            orphaned = await census.orphans(opening.database, opening.target)
        below = fail_under is not None and counts.coverage * 100 < fail_under
        return Stats(
            place=opening.place,
            counts=counts,
            tracks_staleness=opening.target.tracks_staleness,
            indexes=opening.burden.named,
            model_of_last_run=_model_of_last_run(loaded),
            estimate=planned,
            exit_code=Exit.GATE if below else Exit.OK,
            orphaned=orphaned,
        )


def _model_of_last_run(loaded: Loaded) -> str | None:
    try:
        last, _ = last_run(job_files(loaded), restart=False)
    except CheckpointError:
        return None
    return str(last.model["name"]) if last else None
