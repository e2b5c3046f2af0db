"""Keeps the state file of a live run: progress, cursor, first errors, and the final word."""

import asyncio
import contextlib
import dataclasses
import getpass
import os
import socket
import time

from embedmigrate.app.opening import Opening
from embedmigrate.app.records import as_json, error_line, now
from embedmigrate.engine.ledger import Ledger
from embedmigrate.engine.model import Failure, Progress
from embedmigrate.engine.states import State
from embedmigrate.errors import CheckpointError, EmbedMigrateError, Exit
from embedmigrate.secrets import redact
from embedmigrate.state import JobFiles, RunState
from embedmigrate.state.record import KEPT_ERRORS

_EVERY_SECONDS = 1.0


def user() -> str:
    """The operator's name; a container may know the number only."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


def selection_of(opening: Opening) -> dict[str, str]:
    s = opening.settings
    return {"where": s.where or "", "force": str(s.force), "retry_failed": s.retry_failed or ""}


def check_fingerprint(last: RunState, opening: Opening) -> None:
    """Would this run mix its vectors with others of the last one's?

    Raises:
        CheckpointError: Naming each difference.
    """
    mine = opening.fingerprint()
    names = [name for name in mine if last.fingerprint.get(name) != mine[name]]
    if names:
        raise CheckpointError(
            "checkpoint was made with other settings",
            code="checkpoint_mismatch",
            facts=tuple(f"{n}: {last.fingerprint.get(n)} -> {mine[n]}" for n in names),
            hint="--restart to begin again (existing vectors stay until overwritten), "
            "or restore the old setting",
        )


class Keeper:
    """Owns the run's entry in the state directory while the lock is held."""

    def __init__(
        self,
        files: JobFiles,
        opening: Opening,
        *,
        run_id: str,
        command: str,
        last_success_at: str | None = None,
    ) -> None:
        self._files = files
        self.state = RunState(
            run_id=run_id,
            job_id=opening.settings.job_id or f"emb-job-{int(time.time() * 1000)}",
            state=State.STARTING,
            pid=os.getpid(),
            host=socket.gethostname(),
            user=user(),
            started_at=now(),
            updated_at=now(),
            fingerprint=opening.fingerprint(),
            selection=selection_of(opening),
            target={
                "table": opening.target.name,
                "vector_column": opening.target.vector_column,
                "side_table": opening.target.side.name if opening.target.side else None,
                "primary_key": [k.name for k in opening.target.key],
                "where": opening.database.place,
            },
            model={
                "provider": opening.choice.provider,
                "name": opening.choice.name,
                "dimensions": opening.target.dimensions,
            },
            command=redact(command),
            error_report=str(files.error_report(run_id)),
            last_success_at=last_success_at,
            executor=opening.settings.executor,
            actors=opening.actors,
        )

    def fail(self, failure: Failure) -> None:
        line = error_line(failure, self.state.run_id)
        with contextlib.suppress(OSError):  # a full disk must not stop rows that can be embedded
            self._files.append_error(self.state.run_id, line)
        if len(self.state.errors) < KEPT_ERRORS:
            self.state = dataclasses.replace(self.state, errors=[*self.state.errors, line])

    def note(self, progress: Progress) -> None:
        """Take over a snapshot; nothing is written yet."""
        self.state = dataclasses.replace(
            self.state,
            state=progress.state,
            updated_at=now(),
            cursor=list(progress.cursor) if progress.cursor else None,
            progress=as_json(progress),
        )

    async def keep(self, ledger: Ledger) -> None:
        """Save once a second for as long as the run lasts.

        In a thread, so that a slow disk does not hold up the run; a full one only warns later:
        the database knows which rows are done.
        """
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            self.note(ledger.progress)
            with contextlib.suppress(CheckpointError):
                await asyncio.to_thread(self._files.save, self.state)

    def begin(self) -> None:
        """The first save: a run that cannot save its place does not begin."""
        self._files.save(self.state)

    def end(
        self, progress: Progress, exit_code: Exit, error: EmbedMigrateError | None = None
    ) -> None:
        self.note(progress)
        said = {"code": error.code, "message": redact(error.message)} if error else None
        ended = now()
        self.state = dataclasses.replace(
            self.state,
            ended_at=ended,
            exit_code=int(exit_code),
            error=said,
            last_success_at=self.state.last_success_at if exit_code else ended,
        )
        self._files.save(self.state)
