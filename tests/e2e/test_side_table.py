"""Vectors in a table of their own: complete, right, with provenance, and nothing else touched."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import signal
from typing import TYPE_CHECKING, LiteralString

import pytest
from psycopg import sql

from tests import tables
from tests.e2e.jobs import Job, ok, summary_of
from tests.pooler import pooled
from tests.provider import vector_of
from tests.schemas import validate
from tests.side_verifier import SideVerifier

if TYPE_CHECKING:
    from tests.provider import Body
    from tests.tables import Session

ROWS = 300
SIDE = ("--side-table", "article_vectors")
SMALL = ("--batch-size", "10", "--concurrency", "4")


@pytest.fixture
def side(job: Job) -> Job:
    """Over `articles`, which has no vector column, into `article_vectors`."""
    return dataclasses.replace(job, options=(*job.options, *SIDE))


def ddl(job: Job) -> str:
    """What `init --sql` prints."""
    command = ("init", "--sql", "--table", "articles", *SIDE, "--dimensions", "8")
    return ok(job.cli(*command, env=job.env)).stdout


def create(job: Job, session: Session, rows: int = ROWS, *, halfvec: bool = False) -> SideVerifier:
    """Both tables, the side table as the tool itself suggests it."""
    tables.articles(session, rows)
    session.execute("ALTER TABLE articles DROP COLUMN embedding")
    statements = ddl(job)
    if halfvec:
        statements = statements.replace("vector(8)", "halfvec(8)")
    session.execute(statements)
    return SideVerifier(job.database.connect(), kind="halfvec" if halfvec else "vector")


def rows_of(job: Job) -> dict[str, int]:
    """What `stats` counts."""
    found: dict[str, int] = validate(ok(job.run("--json", command="stats")).stdout)["rows"]
    return found


def test_a_run_is_complete_and_leaves_the_source_as_it_is(side: Job, session: Session) -> None:
    table = create(side, session)
    assert rows_of(side)["missing"] == len(table.texts()) == len(table.missing())

    done = ok(side.run(*SMALL, "--json"))

    table.check(side.provider.texts_sent)
    assert table.touched() == []
    assert side.sent_twice() == []
    documents = [validate(line) for line in done.stdout.splitlines()]
    assert documents[0]["target"]["side_table"] == "public.article_vectors"
    counted = rows_of(side)
    assert counted["embedded"] == len(table.texts())
    assert (counted["missing"], counted["stale"], counted["orphaned"]) == (0, 0, 0)
    assert (
        "public.article_vectors.embedding for public.articles"
        in ok(side.run(command="stats")).stdout
    )
    said = ok(side.cli("status", env=side.env)).stdout
    assert "public.article_vectors.embedding for public.articles" in said
    assert "State      completed" in said


def test_new_rows_are_copied(side: Job, session: Session) -> None:
    """A rule keeps every INSERT away; COPY knows no rules."""
    table = create(side, session)
    session.execute("CREATE RULE none AS ON INSERT TO article_vectors DO INSTEAD NOTHING")
    ok(side.run(*SMALL))
    table.check(side.provider.texts_sent)


def test_an_edit_while_its_text_is_embedded_is_embedded_in_the_same_run(
    side: Job, session: Session
) -> None:
    table = create(side, session)
    numbers = itertools.count(1)

    def edit(texts: tuple[str, ...]) -> None:
        if (n := next(numbers)) <= 5:
            change = "UPDATE articles SET body = %s WHERE body = %s"
            session.execute(change, (f"Edit {n}", texts[0]))

    side.provider.intercept = edit
    ok(side.run(*SMALL))

    table.check(side.provider.texts_sent)
    assert all(side.provider.texts_sent[f"Edit {n}"] == 1 for n in range(1, 6))


def test_an_edit_after_its_vector_is_stale_exactly_and_done_again(
    side: Job, session: Session
) -> None:
    table = create(side, session)
    ok(side.run())
    first = table.kept()
    session.execute("UPDATE articles SET views = views + 1")  # no edit of a text
    session.execute("UPDATE articles SET body = 'Edited ' || id WHERE id BETWEEN 10 AND 14")
    session.execute("UPDATE articles SET body = body || ' ', seen = now() WHERE id = 20")
    session.execute("UPDATE articles SET body = ' ' WHERE id = 21")  # nothing left to embed
    session.execute("DELETE FROM article_vectors WHERE id = 30")
    session.execute("DELETE FROM articles WHERE id = 31")
    stale = ["10", "11", "12", "13", "14", "20"]
    assert table.stale() == stale

    counted = rows_of(side)
    assert (counted["stale"], counted["missing"], counted["orphaned"]) == (6, 1, 0)
    assert side.run("--dry-run", "--detailed-exitcode").returncode == 4
    one = ok(side.run("10", command="generate-one")).stdout
    assert "embedded" in one
    done = ok(side.run())

    assert summary_of(done)["embedded"] == "6"
    table.check(side.provider.texts_sent)
    now = table.kept()
    assert {key for key in first if key in now and now[key].sha256 != first[key].sha256} == set(
        stale
    )


def test_another_model_makes_every_row_stale(side: Job, session: Session) -> None:
    table = create(side, session, 60)
    ok(side.run("--limit", "20"))
    session.execute("UPDATE article_vectors SET model = 'another'")
    assert rows_of(side)["stale"] == 20
    ok(side.run())
    table.check(side.provider.texts_sent)

    refused = side.run("--model", "text-embedding-3-large")
    assert (refused.returncode, "text-embedding-3-large" in refused.stderr) == (13, True)
    ok(side.run("--model", "text-embedding-3-large", "--restart"))
    assert table.wrong(side.provider.texts_sent, "text-embedding-3-large") == []


def test_a_deleted_row_takes_its_vector_along_or_is_counted(side: Job, session: Session) -> None:
    table = create(side, session, 60)
    ok(side.run())
    session.execute("DELETE FROM articles WHERE id = 10")
    assert rows_of(side)["orphaned"] == 0
    session.execute("ALTER TABLE article_vectors DROP CONSTRAINT article_vectors_id_fkey")
    session.execute("DELETE FROM articles WHERE id IN (11, 12)")
    assert table.orphaned() == ["11", "12"]
    assert rows_of(side)["orphaned"] == 2
    assert "orphaned: 2" in ok(side.run(command="stats")).stdout


def test_rows_that_vanish_while_they_are_embedded_are_left_out(side: Job, session: Session) -> None:
    table = create(side, session)

    def delete(texts: tuple[str, ...]) -> None:
        session.execute("DELETE FROM articles WHERE body = %s", (texts[-1],))

    eligible = len(table.texts())
    side.provider.intercept = delete
    done = ok(side.run(*SMALL))
    table.check(side.provider.texts_sent)
    assert int(summary_of(done)["embedded"]) == len(table.kept()) == eligible - eligible // 10


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("tenant uuid, id int", "md5((n % 3)::text)::uuid, n"),
        ('tenant varchar(20) COLLATE "C", id smallint', "'Mandant ' || n % 3, n"),
        (
            "tenant numeric, id timestamptz",
            "n % 3 + 0.5, '2026-01-01Z'::timestamptz + n * interval '1 h'",
        ),
    ],
)
def test_composite_keys_copied_and_merged(
    side: Job, session: Session, columns: LiteralString, values: LiteralString
) -> None:
    session.execute(
        f"CREATE TABLE articles ({columns}, body text, PRIMARY KEY (id, tenant));"
        f"INSERT INTO articles SELECT {values}, 'Text ' || n FROM generate_series(1, 100) n"
    )
    session.execute(ddl(side))
    table = SideVerifier(side.database.connect(), key=("id", "tenant"))
    ok(side.run(*SMALL))
    table.check(side.provider.texts_sent)
    session.execute("UPDATE articles SET body = body || '!' WHERE body LIKE '%7'")
    assert rows_of(side)["stale"] == 10
    ok(side.run(*SMALL))
    table.check(side.provider.texts_sent)


def test_names_and_expressions_of_any_kind(side: Job, session: Session) -> None:
    """Unqualified names in expressions are the table's own, also those the side table has."""
    session.execute("""
        CREATE SCHEMA "Odd";
        CREATE TABLE "Odd"."Art%s icles" ("I%d" text COLLATE "C", part int, model text,
          embedding text, text_sha256 text, PRIMARY KEY ("I%d", part)) PARTITION BY LIST (part);
        CREATE TABLE "Odd".one PARTITION OF "Odd"."Art%s icles" FOR VALUES IN (1);
        CREATE TABLE "Odd".two PARTITION OF "Odd"."Art%s icles" FOR VALUES IN (2);
        INSERT INTO "Odd"."Art%s icles" SELECT 'k' || n, n % 2 + 1, 'model ' || n, 'e' || n, 'yes'
          FROM generate_series(1, 60) n""")
    named = ("--table", '"Odd"."Art%s icles"', "--side-table", '"Vec.tors %s"')
    command = ("init", "--sql", *named, "--dimensions", "8")
    session.execute(ok(side.cli(*command, env=side.env)).stdout)
    own = ("--text-sql", "model || ' %s ' || embedding -- ?", "--where", "text_sha256 LIKE 'y%'")
    job = dataclasses.replace(side, options=(*named, *own, "--model", "100%sure"))
    ok(job.run(*SMALL))
    session.execute("""UPDATE "Odd"."Art%s icles" SET model = 'edited' WHERE "I%d" LIKE 'k1%'""")
    assert (rows_of(job)["stale"], rows_of(job)["orphaned"]) == (11, 0)
    ok(job.run(*SMALL))
    found = session.execute("""
        SELECT s.model || ' %s ' || s.embedding, v.embedding::text, v.model
          FROM "Odd"."Art%s icles" s LEFT JOIN "Odd"."Vec.tors %s" v USING ("I%d", part)""")
    rows = found.fetchall()
    assert len(rows) == 60
    for text, vector, model in rows:
        stored = [float(x) for x in vector.strip("[]").split(",")]
        assert stored == pytest.approx(vector_of(text, 8).tolist(), abs=1e-6)
        assert model == "100%sure"


def test_documents_are_hashed_as_they_are_stored(side: Job, session: Session) -> None:
    tables.base_resumes(session, 40, width=8)
    session.execute("ALTER TABLE base_resumes DROP COLUMN embedding CASCADE")
    named = ("--table", "base_resumes", *SIDE)
    session.execute(ok(side.cli("init", "--sql", *named, "--dimensions", "8", env=side.env)).stdout)
    job = dataclasses.replace(side, options=named)
    ok(job.run())
    changed = """UPDATE base_resumes SET data = data || '{"title": "Edited"}'
        WHERE id IN (SELECT id FROM article_vectors LIMIT 3)"""
    session.execute(changed)
    counted = rows_of(job)
    assert (counted["stale"], counted["missing"], counted["without_text"]) == (3, 0, 4)
    ok(job.run())
    hashed = session.execute(
        "SELECT count(*) FROM base_resumes r JOIN article_vectors v USING (id)"
        " WHERE v.text_sha256 = sha256(convert_to(r.data::text, 'UTF8'))"
    )
    assert hashed.fetchone() == (36,)


def test_halfvec_and_a_vector_that_does_not_fit_it(side: Job, session: Session) -> None:
    table = create(side, session, 60, halfvec=True)
    asked: list[str] = []

    def enlarge(answer: Body) -> Body:
        for item in answer["data"]:
            if asked[item["index"]] == huge:
                item["embedding"] = [70_000.0] * 8
        return answer

    huge = table.texts()["25"]
    side.provider.intercept = lambda texts: asked.__setitem__(slice(None), texts)
    side.provider.mangle = enlarge
    one = ("--concurrency", "1", "--batch-size", "20", "--encoding-format", "float")
    failed = ok(side.run(*one), 3)
    assert "write_refused" in failed.stderr
    assert table.missing() == ["25"]
    assert table.wrong(side.provider.texts_sent) == []

    side.provider.mangle = None
    ok(side.run("--retry-failed", "last"))
    table.check(side.provider.texts_sent)


def test_force_embeds_every_row_again(side: Job, session: Session) -> None:
    table = create(side, session, 60)
    ok(side.run())
    session.execute("UPDATE article_vectors SET embedded_at = '2020-01-01'")
    ok(side.run("--force", "--yes"))
    table.check(side.provider.texts_sent)
    assert set(side.provider.texts_sent.values()) == {2}
    old = session.execute("SELECT count(*) FROM article_vectors WHERE embedded_at < '2021-01-01'")
    assert old.fetchone() == (0,)


def test_a_dry_run_writes_nothing(side: Job, session: Session) -> None:
    table = create(side, session, 60)
    done = ok(side.run("--dry-run", "--json"))
    plan = validate(done.stdout)
    assert plan["plan"]["rows_selected"] == len(table.missing()) == len(table.texts())
    assert table.kept() == {}
    assert side.sent() == 0


def test_the_time_is_the_server_s(side: Job, session: Session) -> None:
    create(side, session, 60)
    began = session.execute("SELECT clock_timestamp()").fetchone()
    ok(side.run())
    found = session.execute(
        "SELECT bool_and(embedded_at BETWEEN %s AND clock_timestamp()) FROM article_vectors", began
    )
    assert found.fetchone() == (True,)


def test_a_missing_side_table_is_refused_with_the_command_that_prints_it(
    side: Job, session: Session
) -> None:
    tables.articles(session, 60)
    done = side.run("-v")
    assert done.returncode == 10
    assert "side_table_missing" in done.stderr
    assert (
        "embedmigrate init --sql --table articles --side-table article_vectors --dimensions 8"
        in done.stderr
    )
    assert side.sent() == 0
    found = session.execute("SELECT to_regclass('article_vectors')").fetchone()
    assert found == (None,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ALTER TABLE article_vectors DROP COLUMN model", "no column model"),
        ("ALTER TABLE article_vectors ALTER text_sha256 TYPE text", "text_sha256 is text"),
        ("ALTER TABLE article_vectors ALTER embedded_at TYPE timestamp", "embedded_at is"),
        ("ALTER TABLE article_vectors ADD run int NOT NULL", "run is NOT NULL"),
        ("ALTER TABLE article_vectors DROP CONSTRAINT article_vectors_pkey", "primary key"),
        (
            "ALTER TABLE article_vectors DROP CONSTRAINT article_vectors_id_fkey,"
            " ALTER id TYPE text",
            "id is text; in the table it is bigint",
        ),
        ("ALTER TABLE article_vectors RENAME id TO article", "no column id"),
    ],
)
def test_another_shape_is_refused(
    side: Job, session: Session, change: LiteralString, words: str
) -> None:
    create(side, session, 60)
    session.execute(change)
    done = side.run("-v")
    assert done.returncode == 10
    assert "side_table_unfit" in done.stderr
    assert words in done.stderr
    assert side.sent() == 0


def test_a_width_and_settings_that_do_not_fit_are_refused(side: Job, session: Session) -> None:
    create(side, session, 60)
    wide = side.run("-v", env={"EMBEDMIGRATE_DIMENSIONS": "16"})
    assert wide.returncode == 10
    assert "--side-table article_vectors_16 --dimensions 16" in wide.stderr
    both = side.run("-v", "--row-updated-at-column", "seen")
    assert (both.returncode, "setting_invalid" in both.stderr) == (2, True)
    itself = dataclasses.replace(side, options=(*side.options[:-1], "articles"))
    assert itself.run().returncode == 10


def test_a_killed_run_costs_no_more_than_was_in_flight(side: Job, session: Session) -> None:
    table = create(side, session, 600)
    side.provider.latency = 0.1
    for _ in range(3):
        before, kept = side.sent(), len(table.kept())
        process = side.start(*SMALL)
        while side.sent() < before + 60 and process.poll() is None:
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
        while side.provider.in_flight:
            pass
        assert table.wrong(side.provider.texts_sent) == []
        assert side.sent() - before - (len(table.kept()) - kept) <= 40
    side.provider.latency = 0.0
    ok(side.run(*SMALL))
    table.check(side.provider.texts_sent)
    assert table.touched() == []


def test_rows_that_an_application_holds_locked_come_last(side: Job, session: Session) -> None:
    table = create(side, session)
    holder = side.database.connect()
    holder.autocommit = False
    holder.execute("SELECT FROM articles WHERE id IN (10, 110) FOR UPDATE")
    process = side.start(*SMALL)
    wanted = len(table.texts()) - 2
    while len(table.kept()) < wanted and process.poll() is None:
        pass
    assert process.poll() is None
    holder.rollback()
    process.communicate()
    assert process.returncode == 0
    table.check(side.provider.texts_sent)
    assert side.sent_twice() == []


def test_a_role_that_only_reads_the_source_is_enough(side: Job, session: Session) -> None:
    table = create(side, session, 60)
    role = side.database.create_role("only-for-tests")
    env = {"DATABASE_URL": side.database.tcp_url(role, "only-for-tests")}
    session.execute(
        sql.SQL(
            "GRANT SELECT (id, body) ON articles TO {0};"
            "GRANT SELECT, INSERT ON article_vectors TO {0}"
        ).format(sql.Identifier(role))
    )
    refused = side.run(env=env)
    assert refused.returncode == 12
    assert "GRANT UPDATE" in refused.stderr
    assert side.run("--dry-run", env=env).returncode == 0  # who may only read may look
    grant = sql.SQL("GRANT UPDATE ON article_vectors TO {}").format(sql.Identifier(role))
    session.execute(grant)
    ok(side.run(env=env))
    table.check(side.provider.texts_sent)


@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed")
def test_through_a_transaction_pooler(side: Job, session: Session) -> None:
    table = create(side, session)
    with pooled(side.database) as through:
        ok(side.run(*SMALL, env={"DATABASE_URL": through.url}))
        session.execute("UPDATE articles SET body = 'Edited ' || id WHERE id % 10 = 7")
        ok(side.run(*SMALL, "--pooler", env={"DATABASE_URL": through.url}))
    table.check(side.provider.texts_sent)


def test_a_second_run_into_the_same_side_table_is_kept_out(side: Job, session: Session) -> None:
    """Also from another state directory, where only the lock in the database holds."""
    table = create(side, session)
    side.provider.latency = 0.5
    other = dataclasses.replace(side, options=(*side.options, "--state-dir", "other"))
    first = side.start("--batch-size", "5", "--concurrency", "1")
    while not side.provider.arrived:
        pass
    refused = other.run()
    assert refused.returncode == 11
    assert "public.article_vectors.embedding" in refused.stderr
    side.provider.latency = 0.0
    first.communicate()
    assert first.returncode == 0
    table.check(side.provider.texts_sent)
    assert side.sent_twice() == []
