"""What a run can be in, and why it ends early; apart, so that `status` starts quickly."""

from enum import StrEnum


class State(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    THROTTLED = "throttled"
    STOPPING = "stopping"
    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    LIMIT_REACHED = "limit_reached"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DEAD = "dead"

    @property
    def live(self) -> bool:
        return self in _LIVE


_LIVE = {State.STARTING, State.RUNNING, State.THROTTLED, State.STOPPING}


class StopReason(StrEnum):
    """Why the tap was closed before the queue was empty."""

    ASKED = "asked"
    SIGINT = "sigint"
    SIGTERM = "sigterm"
    LIMIT = "limit"
    DURATION = "duration"
    BUDGET = "budget"
    ERROR = "error"
