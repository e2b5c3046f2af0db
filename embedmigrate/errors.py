"""Every error that embedmigrate raises on purpose, and the exit code that each one means.

EmbedMigrateError
├── ConfigError          2   a setting is missing, unknown or impossible
├── BudgetError          8   the estimate is above --max-cost
├── TargetError          10  the table, a column, the key or pgvector does not fit
├── LockedError          11  another run works on the same target
├── DatabaseAuthError    12  login or privilege refused
├── CheckpointError      13  the state file cannot be used
├── DatabaseUnavailable  5   the database stayed away longer than --db-wait
├── RemoteUnavailable    5   a server that --url names does not answer
├── ClusterUnavailable   5   the cluster has no actor to give, or they die again and again
└── ProviderError        7   the provider refuses to work with us at all
    ├── TransientError   5   may pass by itself: wait and send again
    │   ├── RateLimited
    │   └── BadReply     7   an answer that is not a well-formed set of embeddings
    ├── RejectedInput    3   a text in the request is refused: halve until it stands alone
    └── RequestTooLarge  3   the request as a whole is refused: halve and remember
"""

import copyreg
from collections.abc import Mapping
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; 2 is what Typer uses for usage errors, 3 and 10-12 follow restic's."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    PARTIAL = 3
    GATE = 4
    TEMPORARY = 5
    STOPPED = 6
    PROVIDER = 7
    BUDGET = 8
    TARGET = 10
    LOCKED = 11
    DATABASE_AUTH = 12
    CHECKPOINT = 13
    INTERRUPTED = 130
    TERMINATED = 143


class EmbedMigrateError(Exception):
    """What happened, the facts around it, and the next command.

    Args:
        message: One line: what happened, with the value and where it came from.
        code: A stable name for machines and for the documentation's anchors.
        facts: Further lines for a person.
        hint: One command or setting that helps.
        details: The same facts for machines.
    """

    exit_code = Exit.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        code: str = "internal",
        facts: tuple[str, ...] = (),
        hint: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.facts = facts
        self.hint = hint
        self.details = dict(details or {})

    def __reduce__(self) -> tuple[object, ...]:
        """An error of another process is rebuilt from what it holds, not by its constructor."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class ConfigError(EmbedMigrateError):
    exit_code = Exit.USAGE


class BudgetError(EmbedMigrateError):
    exit_code = Exit.BUDGET


class TargetError(EmbedMigrateError):
    exit_code = Exit.TARGET


class LockedError(EmbedMigrateError):
    exit_code = Exit.LOCKED


class DatabaseAuthError(EmbedMigrateError):
    exit_code = Exit.DATABASE_AUTH


class CheckpointError(EmbedMigrateError):
    exit_code = Exit.CHECKPOINT


class DatabaseUnavailable(EmbedMigrateError):  # noqa: N818  the name says the state, not a fault
    exit_code = Exit.TEMPORARY


class RemoteUnavailable(EmbedMigrateError):  # noqa: N818  the name says the state, not a fault
    exit_code = Exit.TEMPORARY


class ClusterUnavailable(EmbedMigrateError):  # noqa: N818  the name says the state, not a fault
    exit_code = Exit.TEMPORARY


class ProviderError(EmbedMigrateError):
    exit_code = Exit.PROVIDER


class TransientError(ProviderError):
    """May pass by itself.

    Args:
        message: As in EmbedMigrateError.
        retry_after: Seconds that the provider asked us to wait, if it did.
        code: As in EmbedMigrateError.
        status: The HTTP status, if there was an answer.
    """

    exit_code = Exit.TEMPORARY
    advice = "run the same command again later: what was embedded is saved; or check --base-url"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        code: str = "provider_unavailable",
        status: int | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=self.advice)
        self.retry_after = retry_after
        self.status = status


class RateLimited(TransientError):  # noqa: N818  the provider's own word
    advice = "run the same command again later, or lower --rpm and --tpm"


class BadReply(TransientError):  # noqa: N818  the provider's answer is at fault
    exit_code = Exit.PROVIDER
    advice = "check --base-url and --model: the answer is not an embeddings API's"


class RejectedInput(ProviderError):  # noqa: N818  a verdict on the input
    """The provider refused the content of the request; `status` is its HTTP status."""

    exit_code = Exit.PARTIAL

    def __init__(self, message: str, *, code: str, status: int | None = None) -> None:
        super().__init__(message, code=code)
        self.status = status


class RequestTooLarge(RejectedInput):
    pass
