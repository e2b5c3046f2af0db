"""Where the vectors of a series go: into a column of the row itself, or into a side table.

Whoever damages runs asks for no more than this, and so does it with either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString, Protocol

from tests import tables
from tests.side_verifier import SideVerifier
from tests.verifier import Verifier

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tests.e2e.jobs import Job
    from tests.tables import Session

SIDE_TABLE = "article_vectors"
INTO_SIDE_TABLE = ("--side-table", SIDE_TABLE)

_AS_INIT_PRINTS_IT: LiteralString = (
    "CREATE TABLE article_vectors (id bigint NOT NULL, embedding vector(8) NOT NULL,"
    " model text NOT NULL, dimensions integer NOT NULL, text_sha256 bytea NOT NULL,"
    " embedded_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id),"
    " FOREIGN KEY (id) REFERENCES articles (id) ON DELETE CASCADE ON UPDATE CASCADE)"
)
_PENDING: LiteralString = "SELECT count(*) FROM articles WHERE embedding IS NULL"
_PENDING_BESIDE: LiteralString = (
    "SELECT count(*) FROM articles a LEFT JOIN article_vectors v ON v.id = a.id"
    " AND v.text_sha256 = sha256(convert_to(a.body, 'UTF8')) WHERE v.id IS NULL"
)


class Table(Protocol):
    """What a verifier finds; it asks the tool about nothing."""

    @property
    def session(self) -> Session: ...
    @property
    def others(self) -> Mapping[Any, str]: ...
    def wrong(self) -> Collection[Any]: ...
    def missing(self) -> Collection[Any]: ...
    def embedded(self) -> Collection[Any]: ...
    def touched(self) -> Collection[Any]: ...
    def texts(self) -> Mapping[Any, str]: ...


class Beside:
    """A side table in the words of the verifier of a column."""

    def __init__(self, session: Session, job: Job) -> None:
        self.session = session
        self._job = job
        self._side = SideVerifier(session)

    @property
    def others(self) -> Mapping[str, str]:
        return self._side.pictures

    def wrong(self) -> list[str]:
        """I1: also vectors of texts that had been edited before they were written."""
        late = self._side.outdated_when_written()
        return sorted({*self._side.wrong([*self._job.provider.texts_sent]), *late})

    def missing(self) -> list[str]:
        """I2: whatever a run would have to do, so those of an old text as well."""
        return sorted([*self._side.missing(), *self._side.stale()])

    def embedded(self) -> list[str]:
        """Rows with a vector of the text that they have now."""
        return sorted(self._side.kept().keys() - set(self._side.stale()))

    def touched(self) -> list[str]:
        return self._side.touched()

    def texts(self) -> Mapping[str, str]:
        return self._side.texts()


def verifier(job: Job, session: Session | None = None) -> Table:
    """Takes its picture of everything else now."""
    session = session or job.database.connect()
    return Beside(session, job) if job.beside else Verifier(session)


def create(job: Job, session: Session, rows: int) -> None:
    """`articles` with a text in each row, and the place for their vectors."""
    tables.articles(session, rows, gaps=False)
    if job.beside:
        session.execute("ALTER TABLE articles DROP COLUMN embedding")
        session.execute(_AS_INIT_PRINTS_IT)


def drop(session: Session) -> None:
    """Whatever `create` has made, and what others have made of it."""
    session.execute("DROP TABLE IF EXISTS articles, others, article_vectors, other_vectors CASCADE")


def pending(job: Job, session: Session) -> int:
    """Rows without a vector of their text."""
    row = session.execute(_PENDING_BESIDE if job.beside else _PENDING).fetchone()
    return int(row[0]) if row else 0


def stored(job: Job, session: Session) -> int:
    """Rows with a vector, right or wrong."""
    beside: LiteralString = "SELECT count(*) FROM article_vectors"
    row = session.execute(beside if job.beside else "SELECT count(embedding) FROM articles")
    return int((row.fetchone() or (0,))[0])


def edit(job: Job, session: Session, number: int, body: str) -> None:
    """As an application does: where it does not know of the vectors, it leaves them alone."""
    if not job.beside:
        session.execute(
            "UPDATE articles SET body = %s, embedding = NULL WHERE id = %s", (body, number)
        )
        return
    # Between the two nobody knows when the edit was committed: see `outdated_when_written`.
    session.execute(
        "UPDATE articles SET body = %s, seen = 'infinity' WHERE id = %s", (body, number)
    )
    session.execute("UPDATE articles SET seen = clock_timestamp() WHERE id = %s", (number,))


def take_away(
    job: Job, session: Session, where: LiteralString, values: tuple[int, ...]
) -> set[str]:
    """Make rows pending again whose text stays; what texts they have.

    Args:
        job: The arena's.
        session: Whose it is.
        where: A condition on rows of `a`, of those that have a vector.
        values: Of its parameters.
    """
    column: LiteralString = (
        f"UPDATE articles SET embedding = NULL WHERE id IN (SELECT id FROM articles a"
        f" WHERE embedding IS NOT NULL AND {where}) RETURNING body"
    )
    beside: LiteralString = (
        f"DELETE FROM article_vectors v USING articles r WHERE r.id = v.id AND v.id IN"
        f" (SELECT id FROM article_vectors a WHERE {where}) RETURNING r.body"
    )
    return {body for (body,) in session.execute(beside if job.beside else column, values)}
