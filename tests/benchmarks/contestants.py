"""Who is measured: how each is installed and started."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

from tests.benchmarks.table import FILLED, SIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARK = "bare"
"""All others are compared with it."""
_PEERS = Path(__file__).parent / "peers"
_INSTALLING = 900


@dataclass(frozen=True)
class Work:
    """What a contestant is told.

    Attributes:
        url: The database.
        provider: The provider, without /v1.
        state: An empty folder.
    """

    url: str
    provider: str
    state: Path
    batch_size: int
    concurrency: int
    server: str


@dataclass(frozen=True)
class Contestant:
    """One way to fill the table.

    Attributes:
        words: What it is, for the table of results.
        command: What to start, given the interpreter to use.
        needs: Packages from the index; installed into an environment of its own unless `here`.
        here: A module; where it can be imported, this environment will do.
        counted: The query for the rows it has done; some write to a table of their own.
        leaves: Tables of its own.
        side: Its vectors go into a side table, which is made for it beforehand.
        servers: What it can read.
    """

    name: str
    words: str
    command: Callable[[str, Work], list[str]]
    needs: tuple[str, ...] = ()
    here: str = ""
    peer: bool = False
    counted: LiteralString = FILLED
    leaves: tuple[str, ...] = ()
    side: bool = False
    servers: tuple[str, ...] = ("base64", "float")


class NotInstalled(Exception):  # noqa: N818  a fact to report
    """The package index does not give it, or it does not fit this Python."""


@dataclass
class Environments:
    """Throw-away virtual environments, one for each contestant that needs one."""

    folder: Path
    _made: dict[str, str] = field(default_factory=dict)

    def python_of(self, contestant: Contestant) -> str:
        """The interpreter to start it with.

        Raises:
            NotInstalled: With pip's last lines.
        """
        if not contestant.needs or (contestant.here and find_spec(contestant.here)):
            return sys.executable
        if contestant.name not in self._made:
            self._made[contestant.name] = self._install(contestant)
        return self._made[contestant.name]

    def _install(self, contestant: Contestant) -> str:
        place = self.folder / contestant.name
        venv.create(place, with_pip=True)
        python = str(place / "bin" / "python")
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        try:
            done = subprocess.run(
                [*pip, *contestant.needs],
                capture_output=True,
                text=True,
                timeout=_INSTALLING,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NotInstalled(f"pip took longer than {_INSTALLING} s") from None
        if done.returncode:
            raise NotInstalled(done.stderr.strip()[-500:])
        return python


@contextlib.contextmanager
def environments() -> Iterator[Environments]:
    """Removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="embedmigrate-peers-"))
    try:
        yield Environments(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _embedmigrate(python: str, work: Work) -> list[str]:
    return [*_automatic(python, work), f"--concurrency={work.concurrency}"]


def _automatic(python: str, work: Work) -> list[str]:
    options = {
        "database-url": work.url,
        "table": "resumes",
        "text-column": "body",
        "base-url": f"{work.provider}/v1",
        "encoding-format": work.server,
        "batch-size": str(work.batch_size),
        "state-dir": str(work.state),
    }
    given = [f"--{name}={value}" for name, value in options.items()]
    return [python, "-m", "embedmigrate", "generate-all", *given]


def _script(name: str) -> Callable[[str, Work], list[str]]:
    def command(python: str, work: Work) -> list[str]:
        sizes = (str(work.batch_size), str(work.concurrency))
        return [python, str(_PEERS / f"{name}.py"), work.url, work.provider, *sizes]

    return command


CONTESTANTS = {
    one.name: one
    for one in (
        Contestant("embedmigrate", "all safety on", _embedmigrate),
        Contestant(
            "embedmigrate-auto",
            "the same with its default, `--concurrency auto`: no number in flight is given",
            _automatic,
        ),
        Contestant(
            "embedmigrate-side",
            "the same with `--side-table`: hash, model and time beside each vector, by binary COPY",
            lambda python, work: [*_embedmigrate(python, work), f"--side-table={SIDE}"],
            counted="SELECT count(*) FROM resume_vectors WHERE vector_dims(embedding) = 1536",
            leaves=(SIDE,),
            side=True,
        ),
        Contestant(MARK, "httpx2, orjson, no safety at all", _script("bare"), servers=("base64",)),
        Contestant(
            "script",
            "AsyncOpenAI and executemany, binary",
            _script("script"),
            needs=("openai", "psycopg[binary]", "pgvector", "numpy"),
            here="openai",
        ),
        Contestant(
            "vecshift",
            "its apply command, without an index, into a second column; concurrency fixed at 4",
            _script("vecshift_apply"),
            needs=("vecshift",),
            peer=True,
            counted="SELECT count(embedding_v2) FROM resumes",
        ),
        Contestant(
            "pgai",
            "its vectorizer worker, once, into a table of its own",
            _script("pgai_worker"),
            needs=("pgai[vectorizer-worker]",),
            peer=True,
            counted="SELECT count(embedding) FROM pgai_vectors",
            leaves=("pgai_vectors",),
        ),
        Contestant(
            "langchain",
            "PGVector.add_texts into its own table; one request at a time",
            _script("langchain_pgvector"),
            needs=("langchain-postgres", "langchain-openai", "psycopg[binary]"),
            peer=True,
            counted="SELECT count(embedding) FROM langchain_pg_embedding",
            leaves=("langchain_pg_embedding", "langchain_pg_collection"),
        ),
        Contestant(
            "llamaindex",
            "IngestionPipeline and PGVectorStore, its own table",
            _script("llamaindex_pipeline"),
            needs=(
                "llama-index-core",
                "llama-index-vector-stores-postgres",
                "llama-index-embeddings-openai",
            ),
            peer=True,
            counted="SELECT count(embedding) FROM data_resumes",
            leaves=("data_resumes",),
        ),
    )
}
