"""Tables to embed, filled the same way on every run."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql

from embedmigrate.sample import resumes, table_sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection
    from psycopg.rows import TupleRow

    Session = Connection[TupleRow]

TOO_LONG = 1777
"""The id of the article that no OpenAI model takes whole."""

BLANKS = (None, "", " \n\t", "\u00a0\u00a0", "\u200b\u2003")
_WORDS = (
    *("river", "copper", "lantern", "orchard", "ledger", "ziegel", "naïve", "日本", "🦉", "Ωmega"),
    *("violin", "gravel", "meadow", "signal", "harbour", "thistle", "quartz", "ember", "canal"),
)


def text_of(number: int, seed: int = 0) -> str:
    """A text that no other number has."""
    words = random.Random(f"{seed}-{number}").choices(_WORDS, k=6)
    return f"Article {number} of {seed}: {' '.join(words)}."


def body_of(number: int, *, gaps: bool = True) -> str | None:
    """Every fifty rows five without text, each in another way."""
    if gaps and number % 50 < len(BLANKS):
        return BLANKS[number % 50]
    if gaps and number == TOO_LONG:
        return f"{text_of(number)} " + "lantern copper " * 6000
    return text_of(number)


def article_ids(rows: int, *, gaps: bool = True) -> Iterator[int]:
    """Those with a text that can be embedded."""
    ids = range(1, rows + 1)
    return (n for n in ids if not gaps or (n % 50 >= len(BLANKS) and n != TOO_LONG))


def articles(
    session: Session,
    rows: int,
    *,
    width: int = 8,
    gaps: bool = True,
    kind: LiteralString = "vector",
) -> None:
    """`articles` with a bigint key, text in `body`, and columns that nobody may touch."""
    session.execute(
        sql.SQL(
            "CREATE TABLE articles (id bigint PRIMARY KEY, title text NOT NULL, body text,"
            " embedding {kind}({width}), views integer NOT NULL DEFAULT 0,"
            " seen timestamptz NOT NULL DEFAULT clock_timestamp())"
        ).format(kind=sql.SQL(kind), width=sql.Literal(width))
    )
    with session.cursor() as cursor, cursor.copy("COPY articles (id, title, body) FROM STDIN") as c:
        for number in range(1, rows + 1):
            c.write_row((number, f"Title {number}", body_of(number, gaps=gaps)))


def base_resumes(session: Session, rows: int, *, width: int = 1536, kind: str = "jsonb") -> None:
    """The table that the tool began with: jsonb, "userId", a trigger on embedding, cuid keys.

    Every tenth document holds nothing to embed.
    """
    statements = table_sql(width).replace("data jsonb", f"data {kind}")
    session.execute(statements.encode())
    with (
        session.cursor() as cursor,
        cursor.copy('COPY base_resumes (id, "userId", data) FROM STDIN') as copy,
    ):
        for number, resume in enumerate(resumes(rows)):
            data = resume.data if number % 10 else empty_document(number)
            copy.write_row((resume.id, resume.user_id, json.dumps(data)))


def empty_document(number: int) -> dict[str, Any]:
    """Documents of which nothing is left when empty values are dropped."""
    empty: tuple[dict[str, Any], ...] = (
        {},
        {"title": "", "skills": []},
        {"title": None, "personalInfo": {"name": " \u00a0"}},
    )
    return empty[number // 10 % len(empty)]
