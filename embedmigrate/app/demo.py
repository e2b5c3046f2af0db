"""The demo's use cases: a table of invented résumés to embed, and searches that use the vectors."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from embedmigrate.embedders.local import open_local
from embedmigrate.postgres.session import Database, transaction
from embedmigrate.postgres.vectors import vector_text
from embedmigrate.sample import resumes, table_sql

DIMENSIONS = 256


@dataclass(frozen=True, slots=True)
class Hit:
    """`similarity` is the cosine, 1 for the same direction."""

    name: str
    title: str
    similarity: float


async def create(url: str, *, rows: int, seed: int) -> None:
    """Make the table anew and fill it with résumés that have no vector yet."""
    database = Database(url, size=1)
    connection = await database.connect()
    try:
        async with transaction(connection):
            await connection.execute("DROP TABLE IF EXISTS base_resumes")
            await connection.execute(table_sql(DIMENSIONS))
            copy = 'COPY base_resumes (id, "userId", data, "updatedAt") FROM STDIN'
            async with connection.cursor().copy(copy) as lines:
                for resume in resumes(rows, seed):
                    document = json.dumps(resume.data, ensure_ascii=False)
                    await lines.write_row((resume.id, resume.user_id, document, "2026-01-01"))
    finally:
        await connection.close()


async def search(url: str, questions: Sequence[str], *, most: int = 3) -> list[list[Hit]]:
    """The nearest résumés of each question, by cosine distance."""
    embedder = open_local(None)
    database = Database(url, size=1)
    connection = await database.connect()
    try:
        embedded = await embedder.embed(questions)
        found = []
        for vector in embedded.vectors:
            cursor = await connection.execute(
                "SELECT data->'personalInfo'->>'name', data->>'title',"
                " 1 - (embedding <=> %(question)s::vector) FROM base_resumes"
                " ORDER BY embedding <=> %(question)s::vector LIMIT %(most)s",
                {"question": vector_text(vector), "most": most},
            )
            found.append([Hit(*row) for row in await cursor.fetchall()])
        return found
    finally:
        await connection.close()
        await embedder.aclose()
