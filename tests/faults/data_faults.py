"""Names, texts, encodings and tables that nobody would choose, and that exist."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psycopg
from psycopg import sql

from embedmigrate.errors import EmbedMigrateError
from embedmigrate.postgres import census, lock, privileges
from embedmigrate.postgres.resolution import Wish, read_target
from embedmigrate.postgres.session import Connection, Database
from embedmigrate.postgres.sink import ColumnSink
from embedmigrate.postgres.source import TableSource
from embedmigrate.postgres.target import Target
from tests import servers, tables
from tests.e2e.jobs import Job
from tests.faults.arena import arena
from tests.faults.series import Outcome, series
from tests.provider import vector_of
from tests.verifier import INVISIBLE, Rows, Verifier, visible

if TYPE_CHECKING:
    from tests.tables import Session

MOST_RSS = 300
NAME_BYTES = 63
PIECES = (
    *('"', "'", ";", "--", "/*", "*/", "%", "%s", "%(x)s", "%%", "%b", ".", " ", "\\", "$1", "$$"),
    *("{", "}", "{}", "{0}", "\n", "\t", "\r", "\x01", "\x1b", "\x7f", "é", "日本", "🦉"),
    *("\u202e", "\u0301", "\u00a0", "\ufeff", "select", "User", ":x", "?", "_em_k0", "_em_text"),
    *('"; DROP TABLE canary; --', "'); DROP TABLE canary; --", "$$; DROP TABLE canary; $$"),
    *("_em_new", "_em_digest", "articles", "E'", "U&", "[", "]", "(", ")", ",", "`"),
)


def hostile(chance: random.Random) -> str:
    """At most 63 bytes, and often exactly so many."""
    name = "".join(chance.choices(PIECES, k=chance.randint(1, 6)))
    if chance.random() < 0.15:
        name += "x" * NAME_BYTES
    return name.encode()[:NAME_BYTES].decode(errors="ignore")


@series("hostile-identifiers", rows=("D6",), short=60, long=1000)
def hostile_identifiers(rounds: int, seed: int) -> Outcome:
    """Schema, table and three columns with such names: each works or is refused."""
    chance, broken, refused = random.Random(seed), list[str](), Counter[str]()
    with arena() as job, psycopg.connect(job.database.url, autocommit=True) as session:
        session.execute("CREATE TABLE canary (id integer)")
        session.execute("INSERT INTO canary SELECT 1")

        async def all_of_them() -> None:
            database = Database(job.database.url)
            await database.open()
            try:
                for number in range(rounds):
                    await _one_name(database, session, chance, refused, broken, number)
            finally:
                await database.close()

        asyncio.run(all_of_them())
        for number in range(min(6, 1 + rounds // 100)):
            broken += _by_command_line(job, session, chance, number)
    named = [f"seed {seed}: {words}" for words in broken]
    return Outcome(rounds, {"refused": dict(refused), "injected": 0}, tuple(named))


def _names(chance: random.Random) -> tuple[str, str, list[str]]:
    columns = list[str]()
    while len(columns) < 3:
        if (name := hostile(chance)) not in columns:
            columns.append(name)
    return hostile(chance), hostile(chance), columns


def _create(session: Session, schema: str, table: str, columns: list[str]) -> None:
    session.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    key, text, vector = map(sql.Identifier, columns)
    place = sql.Identifier(schema, table)
    session.execute(
        sql.SQL("CREATE TABLE {} ({} text PRIMARY KEY, {} text, {} vector(8))").format(
            place, key, text, vector
        )
    )
    session.execute(
        sql.SQL("INSERT INTO {} ({}, {}) VALUES ('a', 'one'), ('%s', 'two'), ('\"', ' ')").format(
            place, key, text
        )
    )


def _quoted(*parts: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def _verifier(session: Session, schema: str, table: str, columns: list[str]) -> Verifier:
    key, text, vector = columns
    named = sql.Identifier(text).as_string(None)
    rows = Rows(table=(schema, table), key=(key,), text=named, column=vector, ours=(vector,))
    return Verifier(session, rows)


async def _one_name(
    database: Database,
    session: Session,
    chance: random.Random,
    refused: Counter[str],
    broken: list[str],
    number: int,
) -> None:
    schema, table, columns = _names(chance)
    where = f"name {number}: {(schema, table, columns)!r}"
    _create(session, schema, table, columns)
    verifier = _verifier(session, schema, table, columns)
    try:
        await _through_the_library(database, _quoted(schema, table), columns)
    except EmbedMigrateError as error:
        refused[error.code] += 1
    except Exception as error:  # noqa: BLE001 - what a name must never bring about
        broken.append(f"{type(error).__name__}: {error}, {where}")
    else:
        if verifier.missing():
            broken.append(f"I2: rows without a vector, {where}")
    if verifier.wrong() or verifier.touched():
        broken.append(f"I1 or I3, {where}")
    broken += _unharmed(session, where)
    session.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


def _unharmed(session: Session, where: str) -> list[str]:
    """The canary and the table itself, and nothing else."""
    row = session.execute(
        "SELECT count(*), count(*) FILTER (WHERE relname = 'canary') FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE relkind = 'r'"
        " AND nspname NOT IN ('pg_catalog', 'information_schema')"
    ).fetchone()
    return [] if row in {(2, 1), (2, 2)} else [f"injected: {row} tables, {where}"]


async def _through_the_library(database: Database, table: str, columns: list[str]) -> None:
    key, text, vector = columns
    wish = Wish(table, (key,), (text,), None, vector, None, None, None)

    async def look(connection: Connection) -> Target:
        target = await read_target(connection, wish)
        await privileges.check_privileges(connection, target)
        await privileges.check_expressions(connection, target)
        await privileges.read_burden(connection, target)
        return target

    target = await database.run(look)
    connection = await database.connect()
    try:
        await lock.take(connection, target)
    finally:
        await connection.close()
    await census.take(database, target)
    await census.estimate(database, target)
    rows = [row async for row in TableSource(database, target).rows(None, force=False)]
    vectors = np.stack([vector_of(row.text, 8) for row in rows])
    await ColumnSink(database, target).write(rows, vectors, force=False)


def _by_command_line(job: Job, session: Session, chance: random.Random, number: int) -> list[str]:
    schema, table, columns = _names(chance)
    where = f"command line {number}: {(schema, table, columns)!r}"
    _create(session, schema, table, columns)
    verifier = _verifier(session, schema, table, columns)
    key, text, vector = columns
    options = (f"--table={_quoted(schema, table)}", f"--key-column={key}")
    mine = Job(job.cli, job.database, job.provider, options)
    done = mine.run(f"--text-column={text}", f"--vector-column={vector}", "-q")
    broken = _unharmed(session, where)
    if done.returncode not in (0, 2, 10) or "Traceback" in done.stderr:
        broken.append(f"exit {done.returncode}, {where}: {done.stderr[-400:]}")
    if verifier.wrong() or verifier.touched() or (done.returncode == 0 and verifier.missing()):
        broken.append(f"I1, I2 or I3, {where}")
    session.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
    return broken


RANGES = (
    *((0x20, 0x7E), (0xA1, 0x24F), (0x300, 0x36F), (0x590, 0x6FF), (0x900, 0x97F)),
    *((0x3040, 0x30FF), (0x4E00, 0x9FFF), (0x1F300, 0x1FAFF), (0x1, 0x1F), (0x7F, 0x9F)),
    *((0xFFF0, 0xFFFF), (0x2000, 0x206F), (0xE0000, 0xE007F), (0x10FF00, 0x10FFFF)),
    *((0xE000, 0xE0FF), (0xFDD0, 0xFDEF)),
)
SPACES = "\t\n\v\f\r \x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000" + INVISIBLE


def strange(chance: random.Random) -> str:
    """One in ten with nothing in it that can be seen; no NUL, which PostgreSQL cannot hold."""
    if chance.random() < 0.1:
        return "".join(chance.choices(SPACES, k=chance.randint(0, 80)))
    letters = (chr(chance.randint(*chance.choice(RANGES))) for _ in range(chance.randint(1, 40)))
    return "".join(letters)


@series("strange-texts", rows=("D1", "D2", "D7"), short=500, long=10_000)
def strange_texts(rounds: int, seed: int) -> Outcome:
    """Each is sent as it is, once, and its vector stored; what is blank is never sent."""
    chance, broken = random.Random(seed), list[str]()
    with arena() as job, psycopg.connect(job.database.url, autocommit=True) as session:
        tables.articles(session, 0)
        with (
            session.cursor() as cursor,
            cursor.copy("COPY articles (id, title, body) FROM STDIN") as copy,
        ):
            for number in range(rounds):
                copy.write_row((number, "", strange(chance)))
        table = Verifier(session)
        done = job.run("-q", timeout=300)
        if done.returncode != 0:
            broken.append(f"exit {done.returncode}, seed {seed}: {done.stderr[-400:]}")
        broken += [f"I1: row {key}, seed {seed}" for key in table.wrong()[:5]]
        broken += [f"I2: row {key}, seed {seed}" for key in table.missing()[:5]]
        broken += [f"I3: row {key}, seed {seed}" for key in table.touched()[:5]]
        sent, texts = job.provider.texts_sent, Counter(table.texts().values())
        if sent.keys() != texts.keys() or sent - texts:  # the same text need not be sent again
            broken.append(f"sent: {len(sent - texts)} too much, {len(texts.keys() - sent)} never")
        blank = sum(n for text, n in sent.items() if not visible(text))
        if blank:
            broken.append(f"{blank} blank texts sent, seed {seed}")
        rss = max(_huge(job, session, policy, broken) for policy in ("fail", "truncate"))
    figures = {"texts_sent": sent.total(), "blank": rounds - texts.total(), "blank_sent": blank}
    return Outcome(rounds, {**figures, "rss_mb_with_a_text_of_10_mb": rss}, tuple(broken))


def _huge(job: Job, session: Session, policy: str, broken: list[str]) -> int:
    """Megabytes in memory at most, with texts of 10 MB among others."""
    session.execute("TRUNCATE articles")
    session.execute(
        "INSERT INTO articles (id, title, body) SELECT n, '', CASE WHEN n % 100 = 7"
        " THEN repeat('lantern copper ', 666667) ELSE 'Short ' || n END"
        " FROM generate_series(1, 300) AS n"
    )
    process = job.start("-q", "--on-too-long", policy)
    most = 0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        most = max([most, *(int(x.split()[1]) for x in lines if x.startswith("VmHWM"))])
        time.sleep(0.01)
    _, err = process.communicate(timeout=60)
    short = [k for k in Verifier(session).missing() if int(k) % 100 != 7]
    wanted = 3 if policy == "fail" else 0
    if process.returncode != wanted or short:
        broken.append(f"10 MB, {policy}: exit {process.returncode}, {len(short)}: {err[-300:]}")
    if most // 1024 > MOST_RSS:
        broken.append(f"10 MB, {policy}: {most // 1024} MB in memory")
    return most // 1024


ENCODINGS = ("SQL_ASCII", "LATIN1", "EUC_JP", "WIN1252")


@series("encodings", rows=("D3",), short=2, long=4)
def encodings(rounds: int, seed: int) -> Outcome:
    """A database that cannot hold every text is refused before anything is sent."""
    broken = []
    with arena() as job:
        for number in range(rounds):
            encoding = ENCODINGS[number % len(ENCODINGS)]
            name, server = f"{job.database.name}_{number}", job.database.server
            server.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE 'C'").format(
                    sql.Identifier(name), sql.Literal(encoding)
                )
            )
            database = servers.Database(name, server.dsn(name), server)
            session = database.connect()
            session.execute("CREATE EXTENSION vector")
            session.execute("SET client_encoding = 'UTF8'")
            session.execute("CREATE TABLE articles (id int PRIMARY KEY, body text)")
            session.execute("ALTER TABLE articles ADD embedding vector(8)")
            session.execute("INSERT INTO articles VALUES (1, 'one')")
            done = Job(job.cli, database, job.provider).run()
            if done.returncode != 10 or encoding not in done.stderr or job.provider.arrived:
                broken.append(f"{encoding}: exit {done.returncode}, {done.stderr[-300:]}")
            database.drop()
    return Outcome(rounds, {"requests": 0, "seed": seed}, tuple(broken))
