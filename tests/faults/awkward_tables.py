"""Tables that cannot be paged, cannot be written, or answer back: refused, or proven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

import psycopg
from psycopg import sql

from tests.e2e.jobs import Job
from tests.faults.arena import arena
from tests.faults.series import Outcome, series
from tests.servers import Database
from tests.verifier import Rows, Verifier

if TYPE_CHECKING:
    from tests.tables import Session

PLAIN = "CREATE TABLE articles (id bigint {}, title text, body text, embedding vector(8));"
FILL = (
    "INSERT INTO articles (id, title, body)"
    " SELECT n, CASE WHEN n % 3 = 0 THEN 'hidden' ELSE 'shown' END, 'Text ' || n"
    " FROM generate_series(1, 120) AS n;"
)
EDITS = (
    "CREATE FUNCTION edit() RETURNS trigger LANGUAGE plpgsql AS"
    " $$BEGIN NEW.{} := {}; RETURN NEW; END$$;"
    "CREATE TRIGGER edit BEFORE UPDATE ON articles FOR EACH ROW EXECUTE FUNCTION edit();"
)
POLICY = (
    "ALTER TABLE articles ENABLE ROW LEVEL SECURITY;"
    "CREATE POLICY shown ON articles USING (title = 'shown');"
)


@dataclass(frozen=True)
class Case:
    """`code` is the exit code that is right; where it is 10, nothing is sent.

    Attributes:
        touches: A trigger of the case itself changes `title` or `body`.
        role: Run as a role that does not own the table.
    """

    setup: str
    code: int = 0
    options: tuple[str, ...] = ()
    where: LiteralString = "true"
    touches: bool = False
    role: bool = False


KEY = PLAIN.format("PRIMARY KEY")
CASES = {
    "no key": Case(PLAIN.format("") + FILL, 10),
    "nullable unique key": Case(PLAIN.format("UNIQUE") + FILL, 10, ("--key-column", "id")),
    "key that repeats": Case(PLAIN.format("NOT NULL") + FILL, 10, ("--key-column", "id")),
    "unique key without NULL": Case(
        PLAIN.format("NOT NULL UNIQUE") + FILL, 0, ("--key-column", "id")
    ),
    "view": Case(KEY + FILL + "CREATE VIEW seen AS TABLE articles", 10, ("--table", "seen")),
    "materialized view": Case(
        KEY + FILL + "CREATE MATERIALIZED VIEW seen AS TABLE articles", 10, ("--table", "seen")
    ),
    "generated vector": Case(
        KEY + FILL + "ALTER TABLE articles ADD made vector(8)"
        " GENERATED ALWAYS AS (embedding) STORED",
        10,
        ("--vector-column", "made"),
    ),
    "generated text": Case(
        "CREATE TABLE articles (id bigint PRIMARY KEY, title text, source text,"
        " body text GENERATED ALWAYS AS (upper(title) || ' of ' || id) STORED,"
        " embedding vector(8));" + FILL.replace(", body)", ", source)")
    ),
    "partitioned": Case(
        KEY.replace(";", " PARTITION BY HASH (id);")
        + "".join(
            f"CREATE TABLE part{n} PARTITION OF articles"
            f" FOR VALUES WITH (MODULUS 3, REMAINDER {n});"
            for n in range(3)
        )
        + FILL
    ),
    "row level security": Case(KEY + FILL + POLICY, where="title = 'shown'", role=True),
    "trigger edits another column": Case(
        KEY + FILL + EDITS.format("title", "OLD.title || '!'"), touches=True
    ),
    "trigger tidies the text": Case(
        KEY + FILL + EDITS.format("body", "upper(NEW.body)"), 3, touches=True
    ),
}


@series("awkward-tables", rows=("D5",), short=len(CASES), long=len(CASES))
def awkward_tables(rounds: int, seed: int) -> Outcome:
    """One run over each kind of table."""
    broken, refused = list[str](), 0
    names = [list(CASES)[n % len(CASES)] for n in range(rounds)]
    for name in names:
        case = CASES[name]
        with arena() as job, psycopg.connect(job.database.url, autocommit=True) as session:
            session.execute(case.setup.encode())
            refused += case.code == 10
            broken += [f"{name}, seed {seed}: {words}" for words in _one(job, session, case)]
    return Outcome(rounds, {"refused": refused, "proven": rounds - refused}, tuple(broken))


def _one(job: Job, session: Session, case: Case) -> list[str]:
    ours = ("embedding", "title", "body") if case.touches else ("embedding",)
    table = Verifier(session, Rows(where=case.where, ours=ours))
    database = job.database
    if case.role:
        role = database.create_role("only-for-tests")
        session.execute(
            sql.SQL("GRANT SELECT, UPDATE ON articles TO {}").format(sql.Identifier(role))
        )
        url = database.tcp_url(role, "only-for-tests")
        database = Database(database.name, url, database.server)
    done = Job(job.cli, database, job.provider).run(*case.options, "-q")
    found = []
    if done.returncode != case.code:
        found.append(f"exit {done.returncode}: {(done.stdout + done.stderr)[-300:]}")
    if case.code == 10 and job.provider.arrived:
        found.append("refused after something was sent")
    if case.code == 0 and (missing := table.missing()):
        found.append(f"I2: {len(missing)} rows without a vector")
    if wrong := table.wrong():
        found.append(f"I1: {len(wrong)} wrong vectors")
    if touched := table.touched():
        found.append(f"I3: {len(touched)} rows")
    if case.role:
        session.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
    return found
