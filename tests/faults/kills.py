"""SIGKILL at random moments, with an application that writes and a provider that fails."""

from tests.e2e.killing import BATCH, WORKERS, kill_rounds
from tests.faults.arena import arena
from tests.faults.series import Outcome, series


@series("random-kills", rows=("S1", "S13", "C1", "C2", "C3", "C4"), short=50, long=1000)
def random_kills(rounds: int, seed: int) -> Outcome:
    """SIGKILL at random moments, while an application edits, deletes, inserts and takes vectors
    away and 5 % of the requests fail; every stored vector is looked at after every fifth one."""
    with arena() as job:
        try:
            found = kill_rounds(job, rounds=rounds, seed=seed)
        except AssertionError as wrong:
            return Outcome(rounds, broken=(f"I1, seed {seed}: {wrong}",))
    broken = []
    if found.exit_code != 0:
        broken.append(f"the last run ended with {found.exit_code}, seed {seed}")
    if found.leftovers:
        broken.append(f"temporary files left: {found.leftovers}, seed {seed}")
    if found.damaged:
        broken.append(f"state files damaged: {found.damaged}, seed {seed}")
    if max(found.lost) > WORKERS * BATCH:
        broken.append(f"I4: {max(found.lost)} texts lost by one kill, seed {seed}")
    figures = {
        "edits": found.edits,
        "texts_sent": found.texts,
        "wrong_vectors": 0,
        "missing_at_exit_0": 0,
        "damaged_state_files": len(found.damaged),
        "sent_again_by_one_kill_at_most": max(found.lost),
        "bound": WORKERS * BATCH,
    }
    return Outcome(found.kills, figures, tuple(broken))
