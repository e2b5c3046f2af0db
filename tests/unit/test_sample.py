"""The demo's résumés are the same on every run and different from each other."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter

import numpy as np
import psycopg
import pytest

from embedmigrate.embedders.local import WordLlamaEmbedder
from embedmigrate.postgres.text import readable
from embedmigrate.sample import SEARCHES, resumes, table_sql
from tests.servers import Database


def test_the_series_depends_on_the_seed_alone() -> None:
    hundred = list(resumes(100))
    assert list(resumes(10)) == hundred[:10]
    assert list(resumes(10, seed=8)) != hundred[:10]
    assert hundred[0].id == "cuuydugdzuwrt1q7nig2ckrmq"


def test_ids_look_like_cuids_and_are_unique() -> None:
    many = list(resumes(2000))
    ids = {resume.id for resume in many} | {resume.user_id for resume in many}
    assert len(ids) == 4000
    assert all(re.fullmatch(r"c[a-z0-9]{24}", key) for key in ids)


def test_documents_are_varied_and_of_the_usual_size() -> None:
    documents = [resume.data for resume in resumes(1000)]
    sizes = [len(json.dumps(document)) for document in documents]
    assert min(sizes) > 900
    assert max(sizes) < 3000
    professions = Counter(re.sub("^(Junior|Senior|Lead) ", "", d["title"]) for d in documents)
    assert len(professions) == 15
    assert min(professions.values()) > 30
    assert len({json.dumps(document) for document in documents}) == 1000


def test_documents_have_the_fields_of_an_applicant_tracking_system() -> None:
    for resume in resumes(200):
        data = resume.data
        assert data["personalInfo"]["email"].endswith("@example.com")
        assert {"title", "summary", "skills", "education", "languages"} < set(data)
        assert data["experience"][0]["period"].endswith("present")
        assert all(2 <= len(job["highlights"]) <= 4 for job in data["experience"])
        assert "{n}" not in json.dumps(data)
        assert "  " not in readable(json.dumps(data))


@pytest.mark.parametrize(("question", "profession"), SEARCHES)
def test_searches_find_their_profession(question: str, profession: str) -> None:
    documents = [resume.data for resume in resumes(1000)]
    texts = [question, *(readable(json.dumps(document)) for document in documents)]
    vectors = asyncio.run(WordLlamaEmbedder().embed(texts)).vectors
    best = np.argsort(-(vectors[1:] @ vectors[0]))[:20]
    assert all(profession in documents[i]["title"] for i in best)


def test_the_table_stamps_vectors_that_change(database: Database) -> None:
    connection = database.connect()
    connection.execute(table_sql(3).encode())
    for resume in resumes(2):
        connection.execute(
            'INSERT INTO base_resumes (id, "userId", data) VALUES (%s, %s, %s)',
            (resume.id, resume.user_id, json.dumps(resume.data)),
        )

    def stamps(statement: str) -> list[bool]:
        connection.execute(statement.encode())
        rows = connection.execute(
            "SELECT embedding_updated_at > now() - interval '1 hour' FROM base_resumes ORDER BY id"
        )
        return [bool(row[0]) for row in rows]

    first = "id = (SELECT min(id) FROM base_resumes)"
    assert stamps("UPDATE base_resumes SET data = data") == [False, False]
    assert stamps(f"UPDATE base_resumes SET embedding = '[1,2,3]' WHERE {first}") == [True, False]
    connection.execute("UPDATE base_resumes SET embedding_updated_at = NULL")
    assert stamps("UPDATE base_resumes SET embedding = embedding") == [False, False]
    with pytest.raises(psycopg.errors.DataException):
        connection.execute("UPDATE base_resumes SET embedding = '[1,2]'")
