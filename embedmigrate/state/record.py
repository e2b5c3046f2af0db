"""What the state file says of a run, and how it is told from a file that is damaged or foreign."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from types import UnionType
from typing import Any, get_args, get_origin

from embedmigrate.engine.states import State
from embedmigrate.errors import CheckpointError

FORMAT = "embedmigrate-state"
VERSION = 1
KEPT_ERRORS = 100
_TARGET = {"table", "vector_column"}


@dataclass(frozen=True, slots=True)
class RunState:
    """One run, live or ended; no text, no URL, no key.

    Attributes:
        fingerprint: What may not change between runs over the same vectors.
        selection: What may change, but makes a saved cursor worthless.
        cursor: The lowest contiguous finished key.
        progress: The engine's last snapshot.
        errors: The first failed rows; all of them are in the error report.
        last_success_at: When a run last ended with exit code 0; kept across those that did not.
        actors: As many as were asked for; 0 where the process does it all.
    """

    run_id: str
    job_id: str
    state: str
    pid: int
    host: str
    user: str
    started_at: str
    updated_at: str
    fingerprint: dict[str, str]
    selection: dict[str, str]
    target: dict[str, Any]
    model: dict[str, Any]
    command: str
    progress: dict[str, Any] = field(default_factory=dict)
    cursor: list[str] | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    error_report: str | None = None
    error: dict[str, Any] | None = None
    ended_at: str | None = None
    exit_code: int | None = None
    last_success_at: str | None = None
    executor: str = "local"
    actors: int = 0

    @property
    def place(self) -> str:
        """The column that the run fills, with its table."""
        side, table = self.target.get("side_table"), self.target["table"]
        beside = f" for {table}" if side else ""
        return f"{side or table}.{self.target['vector_column']}{beside}"

    def encode(self) -> bytes:
        body = asdict(self)
        head = {"format": FORMAT, "version": VERSION, "checksum": _checksum(body)}
        text = json.dumps(head | body, indent=1, ensure_ascii=False) + "\n"
        return text.encode("utf-8", "surrogatepass")  # an argument need not be valid Unicode

    @classmethod
    def decode(cls, content: bytes, path: str) -> "RunState":
        """Read what `encode` wrote.

        Raises:
            CheckpointError: Damaged, of another program, or of a newer version.
        """
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            raise _unusable(path, "is damaged: it is not JSON", "checkpoint_corrupt") from None
        if not isinstance(body, dict) or body.pop("format", None) != FORMAT:
            raise _unusable(path, "was not written by embedmigrate", "checkpoint_foreign")
        version = body.pop("version", None)
        if type(version) is not int or version < 1:
            raise _unusable(path, "is damaged: it has no version", "checkpoint_corrupt")
        if version > VERSION:
            raise CheckpointError(
                f"{path} was written by a newer embedmigrate (format {version}, this one knows "
                f"{VERSION})",
                code="checkpoint_newer",
                hint="upgrade embedmigrate, or pass --restart to put the file aside",
            )
        if body.pop("checksum", None) != _checksum(body):
            raise _unusable(path, "is damaged: its checksum does not match", "checkpoint_corrupt")
        known = {f.name: f.type for f in fields(cls)}
        kept = {name: value for name, value in body.items() if name in known}
        try:
            state = cls(**kept)
        except TypeError:
            raise _unusable(path, "is damaged: fields are missing", "checkpoint_corrupt") from None
        whole = all(_fits(value, known[name]) for name, value in kept.items())
        if not whole or state.state not in list(State) or not state.target.keys() >= _TARGET:
            raise _unusable(path, "is damaged: a field makes no sense", "checkpoint_corrupt")
        return state


def _fits(value: object, kind: Any) -> bool:
    """Whether a value that was read is of the type that a field is declared with."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_fits(value, part) for part in parts)
    if origin is list:
        return isinstance(value, list) and all(_fits(v, parts[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(v, parts[1]) for v in value.values())
    return kind is Any or isinstance(value, kind)


def _checksum(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _unusable(path: str, what: str, code: str) -> CheckpointError:
    return CheckpointError(
        f"{path} {what}",
        code=code,
        facts=("Vectors are safe: the database alone decides which rows are pending.",),
        hint="pass --restart to put the file aside and go on",
    )
