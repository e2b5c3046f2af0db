"""Where a run takes up: the job's files, the last run's state, its cursor and its failed rows."""

from embedmigrate.app import planning
from embedmigrate.app.keeper import selection_of
from embedmigrate.app.opening import Opening, database_url
from embedmigrate.config import Loaded
from embedmigrate.config.surroundings import state_directory
from embedmigrate.engine.model import Key, Noticed
from embedmigrate.engine.states import State
from embedmigrate.errors import CheckpointError, ConfigError
from embedmigrate.state import JobFiles, RunState, job_name, network_file_system
from embedmigrate.state.name import vector_place

_UNFINISHED = {State.STOPPED, State.INTERRUPTED, State.FAILED, State.LIMIT_REACHED}


def job_files(loaded: Loaded) -> JobFiles:
    s = loaded.settings
    place = vector_place(s.table, s.vector_column, s.side_table)
    return JobFiles(state_directory(s), job_name(database_url(s.database_url), s.table, place))


def check_place(files: JobFiles) -> list[Noticed]:
    """What is to be said of where the state directory is."""
    kind = network_file_system(files.directory)
    if kind is None:
        return []
    message = (
        f"the state directory is on {kind}, where locks may not hold between machines: the lock in "
        "the database keeps a second run out; --state-dir chooses a local one"
    )
    return [Noticed("state_dir_on_network", message)]


def last_run(files: JobFiles, *, restart: bool) -> tuple[RunState | None, list[Noticed]]:
    """The last run's state; a damaged file gives way to the one kept before it, and says so."""
    notices = []
    if restart:
        aside = files.put_aside("restarted")
        if aside:
            notices.append(Noticed("checkpoint_put_aside", f"the old state is kept in {aside}"))
        return None, notices
    try:
        return files.load(), notices
    except CheckpointError as error:
        previous = files.load_previous() if error.code == "checkpoint_corrupt" else None
        if previous is None:
            raise
        aside = files.put_aside("corrupt")
        message = f"{error.message}; kept as {aside}, going on from the run before it"
        return previous, [Noticed("checkpoint_corrupt", message)]


def starting_key(opening: Opening, last: RunState | None) -> Key | None:
    """Where the first pass begins.

    Raises:
        CheckpointError: `last` is asked for and there is no such cursor.
    """
    given = opening.settings.resume_from
    if given != "last":
        return planning.parse_key(given, len(opening.target.key)) if given else None
    if last is None:
        raise CheckpointError(
            "there is no saved cursor for --resume-from last",
            code="checkpoint_missing",
            hint="run without it: rows without a vector are found anyway",
        )
    mine = selection_of(opening)
    if last.selection.get("where") != mine["where"]:
        raise CheckpointError(
            "the saved cursor was made with another --where",
            code="checkpoint_mismatch",
            facts=(f"where: {last.selection.get('where')!r} -> {mine['where']!r}",),
            hint="run without --resume-from, or restore the old --where",
        )
    return tuple(last.cursor) if last.cursor else None


def already_done(opening: Opening, last: RunState | None, selected: int) -> int:
    """Rows that an interrupted run had done, so that its bar goes on and does not restart."""
    s = opening.settings
    if last is None or s.force or s.retry_failed or s.limit:
        return 0
    ended = State(last.state)
    if not (ended in _UNFINISHED or ended.live) or last.selection != selection_of(opening):
        return 0
    # By what is left now, and not by the last saved count: a killed run did not save its end.
    return max(0, int(last.progress.get("rows_total") or 0) - selected) if selected else 0


def failed_keys(files: JobFiles, given: str, last: RunState | None) -> list[Key]:
    """The keys in a run's error report."""
    if given == "last":
        if last is None:
            raise CheckpointError(
                "there is no last run",
                code="report_missing",
                hint="without --retry-failed every row without a vector is tried",
            )
        given = last.run_id
    if not given.isalnum():
        raise ConfigError(
            f"--retry-failed {given!r} is not a run id",
            code="setting_invalid",
            hint="embedmigrate status shows the last run's; --retry-failed last is short for it",
        )
    ids = [line["id"] for line in files.errors_of(given) if not line.get("skipped")]
    return [tuple(i) if isinstance(i, list) else (str(i),) for i in ids]
