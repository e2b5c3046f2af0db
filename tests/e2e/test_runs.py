"""Whole runs of the command line against a real database and a loopback provider."""

from __future__ import annotations

import json
import re
import shlex
import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests import tables
from tests.e2e.jobs import ok, summary_of
from tests.provider import tokens_of
from tests.verifier import Rows, Verifier

if TYPE_CHECKING:
    from tests.e2e.jobs import Job
    from tests.servers import Database
    from tests.tables import Session


def report_of(job: Job) -> list[dict[str, object]]:
    (report,) = sorted(job.cli.state_dir.glob("*.errors.jsonl"))[-1:]
    return [json.loads(line) for line in report.read_text().splitlines()]


def test_two_and_a_half_thousand_rows(job: Job, session: Session) -> None:
    """Blanks, NULLs and one row too long: right vectors for all others, one row in the report."""
    tables.articles(session, 2500, width=64)
    job = replace(job, dimensions=64)
    table = Verifier(session)
    job.provider.fail_rate = 0.1

    done = ok(job.run(), 3)

    table.check(without=[str(tables.TOO_LONG)])
    good = set(map(str, tables.article_ids(2500)))
    assert set(table.embedded()) == good
    assert job.sent_twice() == []
    assert job.sent() == len(good)
    (failed,) = report_of(job)
    assert failed["id"] == str(tables.TOO_LONG)
    assert failed["code"] == "input_too_long"
    said = summary_of(done)
    assert said["embedded"] == str(len(good))
    assert (said["failed"], said["missing_after"], said["exit_code"]) == ("1", "1", "3")
    # No text of any row, in any file or stream.
    words = done.stdout + done.stderr
    words += "".join(p.read_text() for p in job.cli.state_dir.iterdir() if p.is_file())
    assert "lantern" not in words
    assert "sk-test" not in words

    job.provider.forget()
    ok(job.run(), 3)
    assert job.sent() == 0  # its length is known before it is sent
    table.check(without=[str(tables.TOO_LONG)])


def test_a_row_that_only_the_provider_finds_too_long(job: Job, session: Session) -> None:
    """A model whose tokens nobody here can count: halving finds the row, the others are stored."""
    tables.articles(session, 300, gaps=False)
    session.execute("UPDATE articles SET body = body || repeat('x', 9000) WHERE id = 123")
    table = Verifier(session)
    job.provider.max_tokens = 2000
    job.provider.dimensions = 8
    job = replace(job, dimensions=None)
    done = ok(job.run("--model", "house-model", "--batch-size", "100"), 3)
    table.check(without=["123"])
    assert job.sent_twice() == []
    assert len(job.provider.requests) <= 3 + 2 * 7 + 2
    assert "123" in done.stderr

    job.provider.forget()
    ok(job.run("--model", "house-model"), 3)
    assert [r.status for r in job.provider.requests] == [400]
    assert job.sent() == 0


def test_faults_of_every_kind_change_nothing(job: Job, session: Session) -> None:
    tables.articles(session, 400)
    table = Verifier(session)
    job.provider.fail_rate = 0.1
    job.provider.reset_rate = 0.05
    ok(job.run("--batch-size", "20"))
    table.check()
    answered = job.provider.texts_sent
    # What was cut off in the middle is not counted as answered.
    assert max(answered.values()) == 1


def test_batch_size(job: Job, session: Session) -> None:
    tables.articles(session, 250)
    table = Verifier(session)
    ok(job.run("--batch-size", "20"))
    table.check()
    sizes = [len(request.texts) for request in job.provider.requests]
    assert max(sizes) == 20
    assert len(sizes) == 12  # 225 rows


def test_gentle_keeps_the_old_pace(job: Job, session: Session) -> None:
    """One request at a time, ten rows each, a second apart."""
    tables.articles(session, 25, gaps=False)
    table = Verifier(session)
    ok(job.run("--gentle"))
    table.check()
    assert [len(request.texts) for request in job.provider.requests] == [10, 10, 5]
    times = [request.at for request in job.provider.requests]
    assert min(later - sooner for sooner, later in pairwise(times)) >= 1.0
    assert job.provider.peak_in_flight == 1


def test_force_takes_each_row_once(job: Job, session: Session) -> None:
    tables.articles(session, 200)
    table = Verifier(session)
    session.execute("UPDATE articles SET embedding = '[1,2,3,4,5,6,7,8]' WHERE id % 2 = 0")
    session.execute("UPDATE articles SET embedding = NULL WHERE id % 50 < 5")
    ok(job.run("--force", "--yes"))
    table.check()
    assert job.sent() == len(list(tables.article_ids(200)))
    assert job.sent_twice() == []


def test_existing_vectors_stay(job: Job, session: Session) -> None:
    """Without --force a vector of another origin is left alone, and paid for by nobody."""
    tables.articles(session, 50, gaps=False)
    session.execute("UPDATE articles SET embedding = '[1,2,3,4,5,6,7,8]' WHERE id <= 20")
    ok(job.run())
    assert job.sent() == 30
    kept = session.execute(
        "SELECT count(*) FROM articles WHERE embedding = '[1,2,3,4,5,6,7,8]'"
    ).fetchone()
    assert kept == (20,)


def test_resume_from_a_key_and_the_sweep(job: Job, session: Session) -> None:
    """The rows behind the key first, then what is missing before it."""
    tables.articles(session, 60, gaps=False)
    table = Verifier(session)
    ok(job.run("--resume-from", "40", "--batch-size", "20", "--concurrency", "1"))
    table.check()
    first = job.provider.requests[0].texts
    assert first[0] == tables.text_of(41)
    assert job.sent() == 60
    assert job.sent_twice() == []


def test_limit_and_resume_from_last(job: Job, session: Session) -> None:
    tables.articles(session, 100, gaps=False)
    table = Verifier(session)
    done = ok(job.run("--limit", "30", "--batch-size", "10"))
    assert summary_of(done)["state"] == "limit_reached"
    assert job.sent() == 30
    assert len(table.embedded()) == 30
    ok(job.run("--resume-from", "last", "--limit", "30"))
    assert len(table.embedded()) == 60
    done = ok(job.run())
    assert summary_of(done)["state"] == "completed"
    table.check()
    assert job.sent_twice() == []
    assert ok(job.run()).stdout.startswith("Nothing to do: 100 of 100")


def test_max_duration_ends_in_time(job: Job, session: Session) -> None:
    tables.articles(session, 600, gaps=False)
    table = Verifier(session)
    job.provider.latency = 0.2
    slow = ("--batch-size", "10", "--concurrency", "2")
    done = ok(job.run("--max-duration", "1s", *slow))
    assert summary_of(done)["state"] == "limit_reached"
    assert table.wrong() == []
    assert 0 < len(table.embedded()) < 600
    assert len(table.embedded()) == job.sent()
    job.provider.latency = 0.0
    ok(job.run())
    table.check()
    assert job.sent_twice() == []


def test_where_leaves_the_others_alone(job: Job, session: Session) -> None:
    tables.articles(session, 100)
    table = Verifier(session, Rows(where="id % 3 = 0"))
    ok(job.run("--where", "id % 3 = 0 -- 100 % of these"))
    table.check()
    assert all(int(key) % 3 == 0 for key in table.embedded())


def test_generate_one(job: Job, session: Session) -> None:
    tables.articles(session, 20, gaps=False)
    session.execute("UPDATE articles SET body = ' ' WHERE id = 9")
    table = Verifier(session)
    assert "embedded" in ok(job.run("7", command="generate-one")).stdout
    assert table.embedded() == ["7"]
    assert "unchanged" in ok(job.run("7", command="generate-one")).stdout
    assert job.sent() == 1
    ok(job.run("7", "--force", command="generate-one"))
    assert job.sent() == 2
    assert "skipped" in ok(job.run("9", command="generate-one")).stdout
    ok(job.run("99", command="generate-one"), 10)
    ok(job.run("seven", command="generate-one"), 2)
    assert table.wrong() == []
    assert table.touched() == []


def test_retry_failed_takes_only_those(job: Job, session: Session) -> None:
    tables.articles(session, 100, gaps=False)
    table = Verifier(session)
    bad = {tables.text_of(n) for n in (5, 50, 95)}
    job.provider.reject = lambda text: text in bad
    done = ok(job.run("--batch-size", "25"), 3)
    table.check(without=["5", "50", "95"])
    assert sorted(str(line["id"]) for line in report_of(job)) == ["5", "50", "95"]
    assert "--retry-failed" in done.stdout

    job.provider.forget()
    bad.discard(tables.text_of(50))
    session.execute("UPDATE articles SET embedding = NULL WHERE id = 1")
    ok(job.run("--retry-failed", "last"), 3)
    assert set(job.provider.texts_sent) == {tables.text_of(50)}
    table.check(without=["1", "5", "95"])
    run_id = str(report_of(job)[0]["run_id"])
    bad.clear()
    ok(job.run("--retry-failed", run_id))
    ok(job.run())
    table.check()


def test_the_advice_after_a_forced_run_does_what_it_says(job: Job, session: Session) -> None:
    """The rows that failed have a vector, an old one: without --force nobody would look at them."""
    tables.articles(session, 30, gaps=False)
    session.execute("UPDATE articles SET embedding = '[1,2,3,4,5,6,7,8]'")
    table = Verifier(session)
    bad = {tables.text_of(9)}
    job.provider.reject = lambda text: text in bad
    said = ok(job.run("--force", "--yes"), 3).stdout
    assert table.wrong() == ["9"]
    bad.clear()
    advice = re.search(r"Retry +embedmigrate generate-all (.*)", said)
    assert advice
    job.provider.forget()
    ok(replace(job, options=()).run(*shlex.split(advice[1])))
    table.check()
    assert job.sent() == 1


@pytest.mark.parametrize("policy", ["truncate", "skip"])
def test_too_long(job: Job, session: Session, policy: str) -> None:
    tables.articles(session, 30, gaps=False)
    session.execute(
        "UPDATE articles SET body = body || repeat(' copper lantern', 9000) WHERE id = 3"
    )
    sent: dict[str, str] = {}
    table = Verifier(session, Rows(sent=lambda text: sent.get(text, text)))
    done = ok(job.run("--on-too-long", policy))
    if policy == "skip":
        table.check(without=["3"])
        assert summary_of(done)["skipped"] == "1"
        return
    (whole,) = session.execute("SELECT body FROM articles WHERE id = 3").fetchone() or ("",)
    (cut,) = (text for text in job.provider.texts_sent if text.startswith(tables.text_of(3)))
    assert whole.startswith(cut)
    assert len(whole) / 3 < len(cut) < len(whole)
    sent[whole] = cut
    table.check()
    assert summary_of(done)["failed"] == "0"


def test_halfvec(job: Job, session: Session) -> None:
    tables.articles(session, 100, kind="halfvec", width=16)
    table = Verifier(session, Rows(kind="halfvec"))
    ok(replace(job, dimensions=16).run())
    table.check()


def test_composite_key_and_two_text_columns(job: Job, session: Session) -> None:
    session.execute(
        "CREATE TABLE articles (tenant text, n integer, title text, body text,"
        " embedding vector(8), PRIMARY KEY (tenant, n))"
    )
    session.execute(
        "INSERT INTO articles SELECT t, n, CASE WHEN n % 7 > 0 THEN 'Title ' || t || n END,"
        " CASE n % 5 WHEN 0 THEN ' ' ELSE 'Body ' || n || ' of ' || t END"
        " FROM unnest(ARRAY['b,c', 'B', 'ä\"[']) t, generate_series(-20, 80) n"
    )
    # Blank parts leave no empty line behind.
    text = "concat_ws(E'\\n', nullif(title, ''), nullif(body, ' '))"
    table = Verifier(session, Rows(key=("tenant", "n"), text=text))
    job = replace(
        job,
        options=("--table", "articles", "--text-column", "title", "--text-column", "body"),
    )
    ok(job.run("--limit", "100", "--batch-size", "16"))
    ok(job.run("--resume-from", "last", "--batch-size", "16"))
    table.check()
    assert job.sent_twice() == []
    one = ("--force", "--", "b,c", "-3")
    assert "embedded" in ok(job.run(*one, command="generate-one")).stdout
    ok(job.run("--resume-from", '["ä\\"[", "3"]'))
    assert len(job.sent_twice()) == 1


def test_text_sql_with_a_comment_and_a_percent_sign(job: Job, session: Session) -> None:
    tables.articles(session, 60, gaps=False)
    text = "CASE WHEN title LIKE '%7%' THEN upper(body) ELSE title || ': {' || body || '}' END"
    table = Verifier(session, Rows(text=text))
    job = replace(job, options=("--table", "articles", "--text-sql", f"{text} -- 100 % %s %(a)s"))
    ok(job.run())
    table.check()


def test_strange_names_in_another_schema(job: Job, session: Session) -> None:
    session.execute('CREATE SCHEMA "Böse. Schema"')
    session.execute(
        'CREATE TABLE "Böse. Schema"."Weird ""Tàble"".%s" ("The Id" uuid DEFAULT gen_random_uuid()'
        ' PRIMARY KEY, "select" text, "x; DROP TABLE y" vector(8), "日本 {}" timestamptz)'
    )
    session.execute(
        'INSERT INTO "Böse. Schema"."Weird ""Tàble"".%s" ("select")'
        " SELECT 'Row ' || n FROM generate_series(1, 50) n"
    )
    rows = Rows(
        table=("Böse. Schema", 'Weird "Tàble".%s'),
        key=("The Id",),
        text='"select"',
        column="x; DROP TABLE y",
        ours=("x; DROP TABLE y", "日本 {}"),
    )
    table = Verifier(session, rows)
    options = ("--table", '"Böse. Schema"."Weird ""Tàble"".%s"', "--text-column", "select")
    more = ("--vector-column", "x; DROP TABLE y", "--updated-at-column", "日本 {}")
    job = replace(job, options=options + more)
    ok(job.run())
    table.check()
    stamped = session.execute(
        'SELECT count("日本 {}") FROM "Böse. Schema"."Weird ""Tàble"".%s"'
    ).fetchone()
    assert stamped == (50,)
    assert "completed" in ok(job.run(command="status")).stdout


def test_partitioned_table(job: Job, session: Session) -> None:
    session.execute(
        "CREATE TABLE articles (id bigint, region text, body text, embedding vector(8),"
        " PRIMARY KEY (id, region)) PARTITION BY LIST (region);"
        "CREATE TABLE articles_eu PARTITION OF articles FOR VALUES IN ('eu');"
        "CREATE TABLE articles_rest PARTITION OF articles DEFAULT"
    )
    session.execute(
        "INSERT INTO articles SELECT n, CASE n % 3 WHEN 0 THEN 'eu' ELSE 'r' || n % 7 END,"
        " 'Row ' || n FROM generate_series(1, 200) n"
    )
    table = Verifier(session, Rows(key=("id", "region")))
    ok(job.run("--batch-size", "30"))
    table.check()
    assert job.sent_twice() == []


@pytest.mark.parametrize("kind", ["jsonb", "json"])
def test_documents(job: Job, session: Session, kind: str) -> None:
    """With nothing set but the three variables: the original's table, 1,536 dimensions."""
    tables.base_resumes(session, 60, kind=kind)
    if kind == "json":
        session.execute(
            'UPDATE base_resumes SET data = \'{"b": 1.50, "a": [1e2, "x", {"k": "\\u00e9"}]}\''
            " WHERE id = (SELECT max(id) FROM base_resumes)"
        )
    ours = ("embedding", "embedding_updated_at")
    rows = Rows(table=("base_resumes",), text="data", document=True, ours=ours)
    table = Verifier(session, rows)
    job = replace(job, options=(), dimensions=None)
    ok(job.run())
    table.check()
    assert len(table.embedded()) == 54
    stamps = session.execute("SELECT count(embedding_updated_at) FROM base_resumes").fetchone()
    assert stamps == (54,)
    job.provider.forget()
    assert "Nothing to do: 54 of 54" in ok(job.run()).stdout
    assert job.provider.requests == ()
    if kind == "json":
        assert any("a: 1e2, x\na k: é" in text for text in table.texts().values())


def test_staleness(job: Job, session: Session) -> None:
    tables.articles(session, 30, gaps=False)
    session.execute("ALTER TABLE articles ADD done_at timestamptz, ADD changed_at timestamptz")
    session.execute("UPDATE articles SET changed_at = now()")
    table = Verifier(session, Rows(ours=("embedding", "done_at")))
    tracked = ("--updated-at-column", "done_at", "--row-updated-at-column", "changed_at")
    job = replace(job, options=job.options + tracked)
    ok(job.run())
    table.check()
    # An edit that leaves the old vector in place, and a vector of unknown age.
    session.execute("UPDATE articles SET body = body || '!', changed_at = now() WHERE id = 4")
    session.execute("UPDATE articles SET changed_at = now(), done_at = NULL WHERE id = 5")
    job.provider.forget()
    assert "stale: 1" in ok(job.run(command="stats")).stdout
    ok(job.run())
    assert list(job.provider.texts_sent) == [tables.text_of(4) + "!"]
    assert table.wrong() == []
    ok(job.run())
    assert job.sent() == 1


UNDOING = {
    "before": "CREATE TRIGGER undo BEFORE UPDATE ON articles FOR EACH ROW EXECUTE FUNCTION undo()",
    "after": "CREATE TRIGGER undo AFTER UPDATE ON articles FOR EACH ROW"
    " WHEN (NEW.embedding IS NOT NULL) EXECUTE FUNCTION undo()",
}


@pytest.mark.parametrize("moment", UNDOING)
def test_a_trigger_that_nulls_the_vector_again(job: Job, session: Session, moment: str) -> None:
    """It must not be paid for twice."""
    tables.articles(session, 40, gaps=False)
    session.execute(
        "CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.id % 4 = 0 THEN"
        "  IF TG_WHEN = 'BEFORE' THEN NEW.embedding = NULL;"
        "  ELSE UPDATE articles SET embedding = NULL WHERE id = NEW.id; END IF;"
        " END IF; RETURN NEW; END $$"
    )
    session.execute(UNDOING[moment].encode())
    table = Verifier(session)
    done = ok(job.run(), 3)
    assert job.sent_twice() == []
    table.check(without=[str(n) for n in range(4, 41, 4)])
    assert summary_of(done)["embedded"] == "30"
    assert {line["code"] for line in report_of(job)} == {"trigger_undoes_write"}


def test_a_trigger_that_suppresses_the_update(job: Job, session: Session) -> None:
    tables.articles(session, 40, gaps=False)
    session.execute(
        "CREATE FUNCTION deny() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RETURN CASE WHEN NEW.id = 17 THEN NULL ELSE NEW END; END $$;"
        "CREATE TRIGGER deny BEFORE UPDATE ON articles FOR EACH ROW EXECUTE FUNCTION deny()"
    )
    table = Verifier(session)
    ok(job.run(), 3)
    table.check(without=["17"])
    assert job.sent_twice() == []
    assert [line["code"] for line in report_of(job)] == ["write_refused"]


def test_a_row_that_the_database_refuses(job: Job, session: Session) -> None:
    """A constraint on one row costs that row, and its text is quoted nowhere."""
    tables.articles(session, 40, gaps=False)
    session.execute("ALTER TABLE articles ADD CHECK (id <> 23 OR embedding IS NULL)")
    table = Verifier(session)
    done = ok(job.run(), 3)
    table.check(without=["23"])
    assert tables.text_of(23) not in done.stderr + json.dumps(report_of(job))
    assert "23514" in str(report_of(job)[0]["message"])


def test_locked_rows_come_last(job: Job, session: Session, database: Database) -> None:
    tables.articles(session, 200, gaps=False)
    table = Verifier(session)
    other = database.connect()
    with other.transaction():
        other.execute("SELECT FROM articles WHERE id = 7 FOR UPDATE")
        process = job.start("--batch-size", "50")
        deadline = time.monotonic() + 15
        while len(table.embedded()) < 199 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert table.missing() == ["7"]
    process.communicate(timeout=30)
    assert process.returncode == 0
    table.check()
    assert job.sent_twice() == []


def test_a_server_that_knows_only_floats(job: Job, session: Session) -> None:
    """It refuses base64, which is why nothing but OpenAI is asked for it."""
    tables.articles(session, 30, gaps=False)
    table = Verifier(session)
    job.provider.dimensions = 8
    ok(replace(job, dimensions=None).run("--model", "house-model"))
    table.check()
    asked = [request.body for request in job.provider.requests]
    assert {body["encoding_format"] for body in asked} == {"float"}
    assert not any("dimensions" in body for body in asked)


def test_base64_gives_the_same_vectors(job: Job, session: Session) -> None:
    tables.articles(session, 30, gaps=False)
    table = Verifier(session)
    ok(job.run("--encoding-format", "base64"))
    table.check()
    assert {r.body["encoding_format"] for r in job.provider.requests} == {"base64"}


def test_azure(job: Job, session: Session) -> None:
    tables.articles(session, 60, gaps=False)
    table = Verifier(session)
    job.provider.key = "azure-key-0123456789"
    env = {
        "OPENAI_BASE_URL": None,
        "OPENAI_API_KEY": None,
        "AZURE_OPENAI_ENDPOINT": job.provider.origin,
        "AZURE_OPENAI_API_KEY": job.provider.key,
    }
    ok(job.run("--provider", "azure", "--model", "my-deployment", env=env))
    table.check()
    (path,) = {r.path for r in job.provider.requests}
    assert re.fullmatch(r"/openai/deployments/my-deployment/embeddings\?api-version=[\w-]+", path)
    assert not any("authorization" in r.headers for r in job.provider.requests)


def test_a_text_that_changes_while_it_is_embedded(job: Job, session: Session) -> None:
    """Its first vector is dropped, and the new text is sent in the same run."""
    tables.articles(session, 50, gaps=False)
    job.provider.latency = 0.5
    process = job.start()
    job.provider.wait_for_arrivals(1)
    session.execute("UPDATE articles SET body = body || ' And more.' WHERE id = 12")
    session.execute("DELETE FROM articles WHERE id = 13")
    session.execute("UPDATE articles SET embedding = '[1,2,3,4,5,6,7,8]' WHERE id = 14")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    table = Verifier(session)
    assert table.wrong() == ["14"]  # somebody else's, and left alone
    assert table.missing() == []
    assert job.sent() == 51


@pytest.mark.parametrize("method", ["hnsw", "ivfflat"])
def test_a_live_index_and_an_old_snapshot(job: Job, session: Session, method: str) -> None:
    """Both make the run slow and the table big, neither makes it wrong; the first is said."""
    tables.articles(session, 300, gaps=False)
    session.execute(
        f"CREATE INDEX near ON articles USING {method} (embedding vector_l2_ops)".encode()
    )
    table = Verifier(session)
    with psycopg.connect(job.database.url) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM articles")
        done = ok(job.run("-v"))
        seen = reader.execute("SELECT count(embedding) FROM articles").fetchone()
    table.check()
    assert seen == (0,)
    assert f"{method} index near is live" in done.stderr
    row = session.execute("SELECT id FROM articles ORDER BY embedding <-> %s LIMIT 1", (NEAR,))
    assert row.fetchone()


NEAR = "[1,0,0,0,0,0,0,0]"


def test_a_trigger_that_edits_the_text(job: Job, session: Session) -> None:
    """In the very update that stores the vector, which would be the one of another text."""
    tables.articles(session, 40, gaps=False)
    session.execute(
        "CREATE FUNCTION edit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.id % 4 = 0 THEN NEW.body = upper(NEW.body); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER edit BEFORE UPDATE ON articles FOR EACH ROW EXECUTE FUNCTION edit()"
    )
    table = Verifier(session)
    ok(job.run(), 3)
    table.check(without=[str(n) for n in range(4, 41, 4)])
    assert job.sent_twice() == []
    assert {line["code"] for line in report_of(job)} == {"trigger_edits_text"}


def test_a_trigger_that_edits_the_text_in_one_partition(job: Job, session: Session) -> None:
    session.execute(
        "CREATE TABLE articles (id bigint PRIMARY KEY, body text, embedding vector(8))"
        " PARTITION BY RANGE (id);"
        "CREATE TABLE low PARTITION OF articles FOR VALUES FROM (1) TO (20);"
        "CREATE TABLE high PARTITION OF articles FOR VALUES FROM (20) TO (40);"
        "INSERT INTO articles SELECT n, 'text ' || n FROM generate_series(1, 39) AS n;"
        "CREATE FUNCTION edit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " NEW.body = upper(NEW.body); RETURN NEW; END $$;"
        "CREATE TRIGGER edit BEFORE UPDATE ON high FOR EACH ROW EXECUTE FUNCTION edit()"
    )
    table = Verifier(session)
    ok(job.run(), 3)
    table.check(without=[str(n) for n in range(20, 40)])
    assert {line["code"] for line in report_of(job)} == {"trigger_edits_text"}


def test_a_text_that_changes_with_the_time_of_its_vector(job: Job, session: Session) -> None:
    """No trigger is needed for it: the update itself gives each row another text."""
    tables.articles(session, 20, gaps=False)
    session.execute("ALTER TABLE articles ADD embedding_updated_at timestamptz")
    text = "body || coalesce(embedding_updated_at::text, '')"
    ok(job.run("--text-sql", text), 3)
    assert {line["code"] for line in report_of(job)} == {"trigger_edits_text"}
    assert session.execute("SELECT count(embedding) FROM articles").fetchone() == (0,)


@pytest.mark.parametrize("late", [1, 2])
def test_rows_that_the_last_sweep_found_may_have_been_the_last(
    job: Job, session: Session, late: int
) -> None:
    """What counts is what is missing in the end: nothing, or the row of which nobody knew."""
    tables.articles(session, 20, gaps=False)
    table = Verifier(session)
    coming = iter(range(1, late + 1))

    def insert(text: str) -> bool:
        """While the text of the row before is embedded, behind the cursor."""
        if text.startswith(("Article 1 ", "late ")) and (n := next(coming, None)):
            session.execute(
                "INSERT INTO articles (id, title, body) VALUES (%s, '', %s)", (-n, f"late {n}")
            )
        return False

    job.provider.reject = insert
    done = ok(job.run("--max-sweeps", "1"), 0 if late == 1 else 3)
    assert len(table.missing()) == late - 1
    assert summary_of(done)["missing_after"] == str(late - 1)


def test_the_same_text_is_paid_for_once(job: Job, session: Session) -> None:
    """In one batch and in many; the dry run says so beforehand, the summary afterwards."""
    tables.articles(session, 200, gaps=False)
    session.execute("UPDATE articles SET body = 'Apply within ' || id % 5 WHERE id > 100")
    table = Verifier(session)
    planned = ok(job.run("--dry-run"))
    assert "95 texts occur before in the table" in planned.stdout
    done = ok(job.run("--batch-size", "10", "--concurrency", "1", "--json"))
    table.check()
    assert job.sent_twice() == []
    assert job.sent() == 105
    assert json.loads(done.stdout.splitlines()[-1])["texts_reused"] == 95


_A_MINUTE = 360


@pytest.mark.parametrize("limit", ["requests", "tokens"])
def test_auto_keeps_just_below_what_the_provider_allows(
    job: Job, session: Session, limit: str
) -> None:
    """Two seconds' worth in the provider's buckets; from a cold start, against the real clock."""
    tables.articles(session, 600, width=8)
    texts = [body for (body,) in session.execute("SELECT body FROM articles WHERE body <> ''")]
    job.provider.latency = 0.1
    job.provider.burst_seconds = 2
    if limit == "requests":
        job.provider.bucket_rpm = _A_MINUTE
    else:
        job.provider.bucket_tpm = _A_MINUTE * 5 * tokens_of(texts) / len(texts)

    ok(job.run("--batch-size", "5"))

    asked = job.provider.requests
    refused = sum(request.status == 429 for request in asked)
    granted = [request for request in asked if request.status == 200]
    assert refused < 0.05 * len(asked)
    seconds = max(r.at for r in granted) - min(r.at for r in granted)
    assert len(granted) / seconds * 60 >= 0.9 * _A_MINUTE
    assert job.sent_twice() == []
