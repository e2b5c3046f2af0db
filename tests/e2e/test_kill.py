"""SIGKILL at random moments, with an application that works in the same table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.killing import BATCH, WORKERS, kill_rounds

if TYPE_CHECKING:
    from tests.e2e.jobs import Job

ROUNDS = 20


def test_twenty_kills(job: Job) -> None:
    found = kill_rounds(job, rounds=ROUNDS, seed=20)

    assert found.kills >= ROUNDS - 2
    assert found.checks == ROUNDS // 5
    assert found.exit_code == 0, found.output
    assert found.edits > 200
    assert found.sent_again <= found.kills * WORKERS * BATCH
    assert max(found.lost) <= WORKERS * BATCH, found.lost
    assert found.leftovers == []
