"""What embedmigrate refuses to do, as data: the cause, the exit code, the words and the hint.

Values in braces are filled in by the test: `{url}` and its like are database URLs, `{files}` is a
folder for what a test writes itself, `{state}` the state directory, `{closed}` a port that nobody
listens on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PASSWORD = "S3cr3t"
KEY = "sk-canary-9f8e7d6c5b4a39281706f5e4d3c2b1a0"
TEXT = "Rosalind keeps xylophone receipts under floorboard"
CANARIES = (PASSWORD, KEY, "canary-9f8e7d6c", "xylophone", "floorboard")

SHARED = ("--text-column", "body")
ARTICLES = ("--table", "articles", *SHARED)


@dataclass(frozen=True)
class Case:
    """A call of `generate-all` that must end before anything is sent.

    Attributes:
        words: Each has to be in the message or in its facts.
        hint: Has to be in the hint.
        args: Beside those of every call; after them, so that they win.
        env: On top of a complete and correct environment; None takes a variable away.
        files: Written into `{files}` beforehand.
        plain: Also look at the message as a person sees it.
        dry: The same code ends `--dry-run`.
    """

    id: str
    exit: int
    code: str
    words: tuple[str, ...]
    hint: str
    args: tuple[str, ...] = ARTICLES
    env: dict[str, str | None] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    plain: bool = False
    dry: bool = False


def _url(id_: str, url: str, *words: str, plain: bool = False) -> Case:
    return Case(
        f"url-{id_}",
        2,
        "database_url_invalid",
        ("database URL", "not shown", *words),
        "postgresql://USER@HOST:5432/DBNAME",
        env={"DATABASE_URL": url},
        plain=plain,
    )


_AT = f"{PASSWORD}@db.invalid:5432/prod"

URLS = (
    _url("mysql", f"mysql://app:{_AT}", "not a PostgreSQL URL", '"mysql"', plain=True),
    _url("misspelt", f"postgressql+psycopg://app:{_AT}", '"postgressql"'),
    _url("password-for-scheme", f"{PASSWORD}://app:x@db.invalid/prod", "not a PostgreSQL URL"),
    _url("bad-port", f"postgresql://app:{PASSWORD}@db.invalid:54x2/prod", "port"),
    _url("port-too-large", f"postgresql://app:{PASSWORD}@db.invalid:99999/prod", "port"),
    _url("at-sign", f"postgresql://app:p@{_AT}", "@"),
    _url("slash", f"postgresql://app:p/{_AT}", "@"),
    _url("space", f"postgresql://app:p {_AT}"),
    _url("no-scheme", f"app:{_AT}"),
    _url("unknown-parameter", f"postgresql://app:{_AT}?pasword={PASSWORD}"),
    _url("keywords", f"host=db.invalid pasword={PASSWORD}"),
)

SETTINGS = (
    Case(
        "no-database",
        2,
        "database_url_missing",
        ("no database configured", "--database-url", "DATABASE_URL", "./.env"),
        "export DATABASE_URL=",
        env={"DATABASE_URL": None},
        plain=True,
        dry=True,
    ),
    Case(
        "no-key",
        2,
        "api_key_missing",
        ("no API key for provider openai", "OPENAI_API_KEY", "--api-key-file"),
        "embedmigrate generate-all --dry-run --probe",
        env={"OPENAI_API_KEY": None, "OPENAI_BASE_URL": None},
        plain=True,
        dry=True,
    ),
    Case(
        "key-with-newline",
        2,
        "api_key_malformed",
        ("OPENAI_API_KEY", "line break"),
        "export OPENAI_API_KEY",
        env={"OPENAI_API_KEY": f"{KEY}\n"},
        plain=True,
    ),
    Case(
        "key-of-two-lines",
        2,
        "api_key_malformed",
        ("key.txt", "line break"),
        "OPENAI_API_KEY",
        args=(*ARTICLES, "--api-key-file", "{files}/key.txt"),
        env={"OPENAI_API_KEY": None},
        files={"key.txt": f"{KEY}\nsecond line\n"},
    ),
    Case(
        "key-not-ascii",
        2,
        "api_key_malformed",
        ("OPENAI_API_KEY", "no key has"),
        "export OPENAI_API_KEY",
        env={"OPENAI_API_KEY": f"{KEY}\u2026"},
    ),
    Case(
        "key-file-missing",
        2,
        "secret_unreadable",
        ("nothing.txt cannot be read",),
        "--api-key-file",
        args=(*ARTICLES, "--api-key-file", "{files}/nothing.txt"),
        env={"OPENAI_API_KEY": None},
    ),
    Case(
        "key-command-fails",
        2,
        "secret_unreadable",
        ("--api-key-command failed with exit code 3",),
        "run the command by itself",
        args=(*ARTICLES, "--api-key-command", f"echo {KEY}; echo {KEY} >&2; exit 3"),
        env={"OPENAI_API_KEY": None},
    ),
    Case(
        "url-file-missing",
        2,
        "secret_unreadable",
        ("nothing.txt cannot be read",),
        "--database-url-file",
        args=(*ARTICLES, "--database-url-file", "{files}/nothing.txt"),
        env={"DATABASE_URL": None},
    ),
    Case(
        "batch-size-0",
        2,
        "setting_invalid",
        ("--batch-size '0'", "at least 1"),
        "embedmigrate generate-all --help",
        args=(*ARTICLES, "--batch-size", "0"),
        dry=True,
    ),
    Case(
        "delay-negative",
        2,
        "setting_invalid",
        ("--delay '-1'", "at least 0"),
        "embedmigrate generate-all --help",
        args=(*ARTICLES, "--delay", "-1"),
    ),
    Case(
        "several-settings",
        2,
        "setting_invalid",
        ("3 problems", "--batch-size", "--delay", "environment EMBEDMIGRATE_LIMIT"),
        "embedmigrate generate-all --help",
        args=(*ARTICLES, "--batch-size", "0", "--delay", "soon"),
        env={"EMBEDMIGRATE_LIMIT": "-3"},
        plain=True,
    ),
    Case(
        "unknown-config-key",
        2,
        "config_key_unknown",
        ('unknown setting "batchsize" in', 'did you mean "batch_size"?'),
        "embedmigrate generate-all --help",
        args=(*ARTICLES, "--config", "{files}/job.toml"),
        files={"job.toml": f'batchsize = 10\napi_key = "{KEY}"\n'},
        plain=True,
    ),
    Case(
        "config-not-toml",
        2,
        "config_invalid",
        ("job.toml is not valid TOML", "line 2"),
        "--config",
        args=(*ARTICLES, "--config", "{files}/job.toml"),
        files={"job.toml": f'api_key = "{KEY}"\ndatabase_url = {PASSWORD}\n'},
    ),
    Case(
        "config-of-wrong-shape",
        2,
        "config_invalid",
        ("job.toml", "jobs"),
        "[jobs.NAME]",
        args=(*ARTICLES, "--config", "{files}/job.toml"),
        files={"job.toml": "jobs = 3\n"},
    ),
    Case(
        "config-missing",
        2,
        "config_missing",
        ("nothing.toml does not exist",),
        "embedmigrate init",
        args=(*ARTICLES, "--config", "{files}/nothing.toml"),
    ),
    Case(
        "env-file-missing",
        2,
        "env_file_missing",
        ("nothing.env does not exist",),
        "--env-file",
        args=(*ARTICLES, "--env-file", "{files}/nothing.env"),
    ),
    Case(
        "env-file-not-text",
        2,
        "env_file_invalid",
        ("odd.env", "UTF-8"),
        "--env-file",
        args=(*ARTICLES, "--env-file", "{files}/odd.env"),
        files={"odd.env": "LATIN=\udcff\n"},
    ),
    Case(
        "job-unknown",
        2,
        "job_unknown",
        ('no job "people"', "articles"),
        "[jobs.NAME]",
        args=("--config", "{files}/job.toml", "--job", "people"),
        files={"job.toml": '[jobs.articles]\ntable = "articles"\n'},
    ),
    Case(
        "plain-http",
        2,
        "base_url_insecure",
        ("db.invalid", "unencrypted"),
        "--allow-http",
        env={"OPENAI_BASE_URL": "http://db.invalid/v1"},
    ),
    Case(
        "password-in-base-url",
        2,
        "base_url_invalid",
        ("--base-url must not hold a user or password",),
        "OPENAI_API_KEY",
        env={"OPENAI_BASE_URL": f"http://me:{PASSWORD}@127.0.0.1/v1"},
    ),
    Case(
        "base-url-not-http",
        2,
        "base_url_invalid",
        ("is not an http address",),
        "https://HOST/v1",
        env={"OPENAI_BASE_URL": "127.0.0.1:8080"},
    ),
    Case(
        "price-unknown",
        2,
        "price_unknown",
        ("--max-cost cannot be kept", "text-embedding-mystery"),
        "--price",
        args=(*ARTICLES, "--model", "text-embedding-mystery", "--max-cost", "1"),
    ),
)

DATABASE = (
    Case(
        "server-down",
        5,
        "database_unavailable",
        ("cannot connect to", "127.0.0.1:{closed}"),
        "--database-url",
        env={"DATABASE_URL": f"postgresql://app:{PASSWORD}@127.0.0.1:{{closed}}/prod"},
        plain=True,
        dry=True,
    ),
    Case(
        "wrong-password",
        12,
        "database_login_refused",
        ("login refused by", "password authentication failed"),
        "PGPASSWORD",
        env={"DATABASE_URL": "{wrong}"},
        plain=True,
    ),
    Case(
        "no-database-of-that-name",
        10,
        "database_not_found",
        ('database "nowhere" does not exist',),
        "--database-url",
        env={"DATABASE_URL": "{nowhere}"},
    ),
    Case(
        "no-connect-privilege",
        12,
        "database_login_refused",
        ("login refused by", "permission denied for database"),
        "GRANT CONNECT",
        env={"DATABASE_URL": "{forbidden}"},
    ),
    Case(
        "no-pgvector",
        10,
        "pgvector_missing",
        ('extension "vector" is not installed in database',),
        "CREATE EXTENSION vector;",
        env={"DATABASE_URL": "{bare}"},
        plain=True,
    ),
    Case(
        "no-table",
        10,
        "table_not_found",
        ('table "public.article" does not exist', "Similar:", "public.articles", "cms.article"),
        "--table SCHEMA.TABLE",
        args=("--table", "public.article", *SHARED),
        plain=True,
        dry=True,
    ),
    Case(
        "table-name-malformed",
        10,
        "table_not_found",
        ("'a.b.c.d' is not a table name",),
        "--table SCHEMA.TABLE",
        args=("--table", "a.b.c.d", *SHARED),
    ),
    Case(
        "view",
        10,
        "not_a_table",
        ('"public.shown" is not a table',),
        "--table",
        args=("--table", "shown", *SHARED),
    ),
    Case(
        "no-text-column",
        10,
        "column_missing",
        ('table "public.articles" has no column "bodi"', "Similar: body"),
        "--text-column",
        args=("--table", "articles", "--text-column", "bodi"),
    ),
    Case(
        "no-vector-column",
        10,
        "column_missing",
        ('has no column "vec"',),
        "--vector-column",
        args=(*ARTICLES, "--vector-column", "vec"),
    ),
    Case(
        "not-a-vector",
        10,
        "not_a_vector",
        ("public.articles.body is text, not a vector",),
        "--vector-column",
        args=(*ARTICLES, "--vector-column", "body"),
    ),
    Case(
        "not-a-timestamp",
        10,
        "not_a_timestamp",
        ("public.articles.body is text, not a timestamp",),
        "--updated-at-column",
        args=(*ARTICLES, "--updated-at-column", "body"),
    ),
    Case(
        "no-primary-key",
        10,
        "primary_key_missing",
        ('table "public.keyless" has no primary key',),
        "--key-column",
        args=("--table", "keyless", *SHARED),
        dry=True,
    ),
    Case(
        "key-not-unique",
        10,
        "key_not_unique",
        ("(body) is not a key of public.articles",),
        "--key-column",
        args=(*ARTICLES, "--key-column", "body"),
    ),
    Case(
        "vector-untyped",
        10,
        "vector_untyped",
        ("public.untyped.embedding is vector without a width",),
        "ALTER TABLE public.untyped ALTER COLUMN embedding TYPE vector(1536);",
        args=("--table", "untyped", *SHARED),
    ),
    Case(
        "vector-of-other-width",
        10,
        "dimension_mismatch",
        ("public.articles.embedding is vector(1536)", "text-embedding-3-large gives 3072"),
        "--dimensions 1536",
        args=(*ARTICLES, "--model", "text-embedding-3-large"),
        plain=True,
        dry=True,
    ),
    Case(
        "vector-narrow",
        10,
        "dimension_mismatch",
        ("public.narrow.embedding is vector(3)", "text-embedding-ada-002 gives 1536"),
        "--vector-column",
        args=("--table", "narrow", *SHARED, "--model", "text-embedding-ada-002"),
    ),
    Case(
        "model-cannot-shorten",
        2,
        "dimension_mismatch",
        ("text-embedding-ada-002 gives 1536 dimensions, not 256",),
        "--dimensions",
        args=(*ARTICLES, "--model", "text-embedding-ada-002", "--dimensions", "256"),
    ),
    Case(
        "may-not-update",
        12,
        "privilege_missing",
        ("may not update public.articles.embedding",),
        "GRANT UPDATE (embedding) ON public.articles TO",
        env={"DATABASE_URL": "{reader}"},
        plain=True,
    ),
    Case(
        "may-not-read",
        12,
        "privilege_missing",
        ("may not read public.articles.id",),
        "GRANT SELECT (id, body, embedding) ON public.articles TO",
        env={"DATABASE_URL": "{nobody}"},
    ),
    Case(
        "may-not-use-schema",
        12,
        "privilege_missing",
        ("may not use the schema hidden",),
        "GRANT USAGE ON SCHEMA hidden TO",
        args=("--table", "hidden.articles", *SHARED),
        env={"DATABASE_URL": "{reader}"},
    ),
    Case(
        "may-not-read-in-where",
        12,
        "privilege_missing",
        ("permission denied",),
        "GRANT",
        args=(*ARTICLES, "--where", "EXISTS (SELECT FROM cms.article)"),
        env={"DATABASE_URL": "{writer}"},
    ),
    Case(
        "where-malformed",
        10,
        "selection_invalid",
        ("the database cannot run the selection",),
        "--where",
        args=(*ARTICLES, "--where", "colour = 'red'"),
        dry=True,
    ),
    Case(
        "text-that-cannot-be-made",
        10,
        "row_unreadable",
        ("a row cannot be read", "22P02"),
        "--where",
        args=("--table", "articles", "--text-sql", "(body::int)::text"),
        plain=True,
        dry=True,
    ),
    Case(
        "resume-from-wrong-type",
        2,
        "key_invalid",
        ("--resume-from does not fit the key of public.articles: (id bigint)",),
        "--resume-from",
        args=(*ARTICLES, "--resume-from", "ckxyz"),
    ),
    Case(
        "resume-from-too-few-columns",
        2,
        "key_invalid",
        ("--resume-from names 1 value", "(tenant text, id bigint)"),
        "JSON list",
        args=("--table", "composite", *SHARED, "--resume-from", "1"),
    ),
    Case(
        "above-max-cost",
        8,
        "over_budget",
        ("estimate $0.000", "is above --max-cost 0.0000001"),
        "--max-cost",
        args=(*ARTICLES, "--max-cost", "0.0000001"),
        plain=True,
        dry=True,
    ),
)

STATE = (
    Case(
        "resume-from-last-without-state",
        13,
        "checkpoint_missing",
        ("no saved cursor for --resume-from last",),
        "run without it",
        args=(*ARTICLES, "--resume-from", "last"),
        dry=True,
    ),
    Case(
        "retry-failed-unknown-run",
        13,
        "report_missing",
        ("no error report of run abc123",),
        "embedmigrate status",
        args=(*ARTICLES, "--retry-failed", "abc123"),
    ),
    Case(
        "retry-failed-without-a-run",
        13,
        "report_missing",
        ("there is no last run",),
        "--retry-failed",
        args=(*ARTICLES, "--retry-failed", "last"),
    ),
    Case(
        "retry-failed-not-a-run-id",
        2,
        "setting_invalid",
        ("'../../etc/passwd' is not a run id",),
        "embedmigrate status",
        args=(*ARTICLES, "--retry-failed", "../../etc/passwd"),
    ),
    Case(
        "state-dir-is-a-file",
        13,
        "state_dir_unwritable",
        ("state directory", "cannot be written", "Nothing was sent"),
        "--state-dir",
        args=(*ARTICLES, "--state-dir", "{files}/occupied"),
        files={"occupied": "not a directory"},
        plain=True,
        dry=True,
    ),
    Case(
        "state-dir-below-a-file",
        13,
        "state_dir_unwritable",
        ("cannot be written",),
        "--state-dir",
        args=(*ARTICLES, "--state-dir", "{files}/occupied/below"),
        files={"occupied": "not a directory"},
    ),
    Case(
        "state-dir-world-writable",
        13,
        "state_dir_unsafe",
        ("others may write to the state directory",),
        "chmod 700",
        args=(*ARTICLES, "--state-dir", "{open}"),
        dry=True,
    ),
)

CASES = (*URLS, *SETTINGS, *DATABASE, *STATE)
