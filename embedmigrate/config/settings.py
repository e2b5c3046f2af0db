"""Every setting once: its type, default, help and the commands that take it.

The command line, the environment variables, the keys of the configuration file and the reference
in docs/ are all made from this class: `--foo-bar`, `EMBEDMIGRATE_FOO_BAR` and `foo_bar` are one.
"""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_type_hints

from embedmigrate.secrets import Secret

ALL = frozenset(
    {"generate-all", "generate-one", "stats", "status", "stop", "serve", "init", "config show"}
)
TABLE = ALL - {"init"}
RUN = frozenset({"generate-all", "generate-one", "serve", "config show"})
JOB = frozenset({"generate-all", "config show"})
COST = RUN | {"stats"}
SERVE = frozenset({"serve", "config show"})
REMOTE = frozenset({"stats", "status", "stop", "config show"})

CountOrAuto: TypeAlias = int | Literal["auto"]


@dataclass(frozen=True)
class Option:
    """How a setting appears on the command line, and the bounds of its number.

    `flag` is false for what argv must not show; the metavar TIME marks a duration in seconds.
    """

    panel: str
    help: str
    commands: frozenset[str] = JOB
    metavar: str | None = None
    short: str | None = None
    off: str | None = None
    flag: bool = True
    ge: float | None = None
    gt: float | None = None
    le: float | None = None

    @property
    def duration(self) -> bool:
        return self.metavar == "TIME"


@dataclass(frozen=True)
class Setting:
    """One field of `Settings`; `kind` is its type without None."""

    key: str
    kind: Any
    default: Any
    option: Option


@dataclass(frozen=True, kw_only=True)
class Settings:
    # fmt: off
    # Target
    database_url: Annotated[Secret | None, Option("Target", "PostgreSQL URL, or embedded:PATH. A password here is visible in `ps`: prefer DATABASE_URL or ~/.pgpass.", ALL, "URL")] = None
    database_url_file: Annotated[Path | None, Option("Target", "Read the URL from a file.", ALL, "PATH")] = None
    job: Annotated[str | None, Option("Target", "A [jobs.NAME] table of the configuration file.", TABLE, "NAME", "-j")] = None
    all_jobs: Annotated[bool, Option("Target", "Every job of the configuration file, at the same time; those of one provider account share its limits.", frozenset({"generate-all"}))] = False
    table: Annotated[str, Option("Target", "Table, as SCHEMA.TABLE or found by the search path.", ALL, "TABLE", "-t")] = "base_resumes"
    key_column: Annotated[tuple[str, ...], Option("Target", "Key column; repeat for a composite key. Default: the primary key.", TABLE, "NAME")] = ()
    text_column: Annotated[tuple[str, ...], Option("Target", "Column to embed; repeat to join several by a newline. json and jsonb are rendered as readable lines.", TABLE, "NAME")] = ("data",)
    text_sql: Annotated[str | None, Option("Target", "SQL expression over the row to embed instead of columns.", TABLE, "EXPRESSION")] = None
    where: Annotated[str | None, Option("Target", "SQL condition: only rows that meet it.", TABLE, "CONDITION")] = None
    vector_column: Annotated[str, Option("Target", "The vector(n) or halfvec(n) column to fill.", TABLE, "NAME")] = "embedding"
    side_table: Annotated[str | None, Option("Target", "Keep the vectors in this table beside the other, with the hash of each text. --vector-column is one of its columns.", ALL, "NAME")] = None
    updated_at_column: Annotated[str | None, Option("Target", "Timestamp column set together with the vector; `none` for none. Default: embedding_updated_at, where there is one.", TABLE, "NAME")] = None
    row_updated_at_column: Annotated[str | None, Option("Target", "Timestamp of the row's last change: a vector older than it is stale.", TABLE, "NAME")] = None
    # Model
    provider: Annotated[Literal["openai", "azure", "local", "hash"], Option("Model", "Who embeds; an OpenAI-compatible server is openai with --base-url.", COST, "NAME")] = "openai"
    model: Annotated[str | None, Option("Model", "Model name; for azure the deployment, for local a folder or wordllama.", COST, "NAME", "-m")] = None
    dimensions: Annotated[int | None, Option("Model", "Ask the model for a shortened width.", COST, "N", ge=1, le=16000)] = None
    base_url: Annotated[str | None, Option("Model", "Address of an OpenAI-compatible server, up to /v1.", RUN, "URL")] = None
    api_key: Annotated[Secret | None, Option("Model", "API key; never on the command line.", RUN, flag=False)] = None
    api_key_file: Annotated[Path | None, Option("Model", "Read the API key from a file.", RUN, "PATH")] = None
    api_key_command: Annotated[str | None, Option("Model", "Read the API key from a command's output.", RUN, "COMMAND")] = None
    api_version: Annotated[str, Option("Model", "Azure's API version.", RUN, "VERSION")] = "2024-10-21"
    encoding_format: Annotated[Literal["auto", "base64", "float"], Option("Model", "How vectors travel; auto: base64 from OpenAI and Azure, float from other servers.", RUN, "FORMAT")] = "auto"
    price: Annotated[float | None, Option("Model", "USD per million tokens, for a model whose price is not known.", COST, "USD", ge=0)] = None
    allow_http: Annotated[bool, Option("Model", "Send texts, or the token of --url, unencrypted to a host that is not this one.", RUN | REMOTE)] = False
    # Selection
    force: Annotated[bool, Option("Selection", "Embed every eligible row again, not only those without a current embedding.", RUN, off="--skip-existing")] = False
    resume_from: Annotated[str | None, Option("Selection", "Start after this key (composite: a JSON list), or `last`: after the saved cursor. A final sweep still looks at every row.", JOB, "ID|last")] = None
    limit: Annotated[int | None, Option("Selection", "Take at most N rows.", JOB, "N", ge=1)] = None
    max_duration: Annotated[float | None, Option("Selection", "Stop after so long, such as 2h.", JOB, "TIME", gt=0)] = None
    retry_failed: Annotated[str | None, Option("Selection", "Only the rows that failed in this run, or `last`.", JOB, "RUN_ID|last")] = None
    on_too_long: Annotated[Literal["fail", "truncate", "skip"], Option("Selection", "What to do with a text above the model's limit.", RUN, "POLICY")] = "fail"
    max_sweeps: Annotated[int, Option("Selection", "Look so many times for rows that appeared meanwhile.", JOB, "N", ge=1)] = 3
    # Safety
    dry_run: Annotated[bool, Option("Safety", "Check everything, print the plan, change nothing, call no API.", JOB, short="-n")] = False
    probe: Annotated[bool, Option("Safety", "With --dry-run: send one short text to test key, model and width.", JOB)] = False
    detailed_exitcode: Annotated[bool, Option("Safety", "With --dry-run: exit 4 when rows are pending.", JOB)] = False
    max_cost: Annotated[float | None, Option("Safety", "Never spend more than so many USD in this run.", JOB, "USD", gt=0)] = None
    yes: Annotated[bool, Option("Safety", "Answer every question with yes.", JOB, short="-y")] = False
    no_input: Annotated[bool, Option("Safety", "Never ask.", JOB)] = False
    # Rate and retries
    batch_size: Annotated[int | None, Option("Rate and retries", "Rows in one request. Default: 128 (local: 256).", JOB, "N", "-b", ge=1, le=4096)] = None
    batch_bytes: Annotated[int | None, Option("Rate and retries", "UTF-8 bytes in one request at most. Default: 1000000.", JOB, "N", ge=1)] = None
    concurrency: Annotated[CountOrAuto, Option("Rate and retries", "Requests in flight at most, fewer after a 429; auto: as many as pay, up to 32 (local: 2), at the rate that the provider allows. With --executor ray: for each actor.", JOB, "N|auto", "-c", ge=1, le=256)] = "auto"
    delay: Annotated[float, Option("Rate and retries", "Pause after each batch of a worker, in milliseconds.", JOB, "MS", ge=0)] = 0.0
    gentle: Annotated[bool, Option("Rate and retries", "One request at a time, 10 rows each, 1,000 ms apart.", JOB)] = False
    rpm: Annotated[float | None, Option("Rate and retries", "Requests a minute at most.", JOB, "N", gt=0)] = None
    tpm: Annotated[float | None, Option("Rate and retries", "Tokens a minute at most.", JOB, "N", gt=0)] = None
    max_replica_lag: Annotated[float | None, Option("Rate and retries", "Hold back while the slowest replica is further behind.", JOB, "TIME", gt=0)] = None
    max_wal_rate: Annotated[float | None, Option("Rate and retries", "Hold back when the server writes more WAL, in MB a second.", JOB, "MB", gt=0)] = None
    throttle_query: Annotated[str | None, Option("Rate and retries", "Hold back while this SQL gives true or a number above 0.", JOB, "SQL")] = None
    retries: Annotated[int, Option("Rate and retries", "Requests for the same texts before the texts are suspected.", RUN, "N", ge=1)] = 8
    max_wait: Annotated[float, Option("Rate and retries", "How long the provider may stay away.", RUN, "TIME", ge=0)] = 600.0
    request_timeout: Annotated[float, Option("Rate and retries", "Deadline of one request, from first byte to last.", RUN, "TIME", gt=0)] = 60.0
    db_wait: Annotated[float, Option("Rate and retries", "How long the database may stay away.", RUN, "TIME", ge=0)] = 300.0
    grace: Annotated[float, Option("Rate and retries", "How long a stop waits for what is in flight.", JOB, "TIME", ge=0)] = 30.0
    pooler: Annotated[bool, Option("Rate and retries", "There is a transaction pooler in between (detected where possible): no session lock.", RUN)] = False
    # Scale
    executor: Annotated[Literal["local", "ray"], Option("Scale", "Where batches are embedded and written: in this process, or in actors of a Ray cluster.", JOB, "NAME")] = "local"
    ray_address: Annotated[str | None, Option("Scale", "A running cluster: HOST:PORT, or auto for the one on this machine. Default: a cluster is started for the run.", JOB, "ADDRESS")] = None
    actors: Annotated[int, Option("Scale", "Ray actors; --concurrency holds for each of them.", JOB, "N", ge=1, le=1024)] = 2
    cpus_per_actor: Annotated[float, Option("Scale", "CPUs that Ray reserves for each actor.", JOB, "N", ge=0)] = 1.0
    gpus_per_actor: Annotated[float, Option("Scale", "GPUs that Ray reserves for each actor.", JOB, "N", ge=0)] = 0.0
    # Checkpoint
    restart: Annotated[bool, Option("Checkpoint", "Put the state file aside and begin again; vectors stay.", JOB)] = False
    lock_timeout: Annotated[float, Option("Checkpoint", "Wait so long for another run to end.", JOB, "TIME", ge=0)] = 0.0
    lock_database_url: Annotated[Secret | None, Option("Checkpoint", "A direct connection for the lock, past the pooler.", JOB, "URL")] = None
    run_id: Annotated[str | None, Option("Checkpoint", "Name of the run, six hexadecimal digits, for a program that starts it and has to know it beforehand. Default: a random one.", JOB, flag=False)] = None
    job_id: Annotated[str | None, Option("Checkpoint", "As run_id, for the name of the form emb-job-MILLISECONDS.", JOB, flag=False)] = None
    state_dir: Annotated[Path | None, Option("Checkpoint", "Where state files live. Default: the user's state directory.", ALL - {"init", "generate-one", "stats"}, "PATH")] = None
    # Server
    host: Annotated[str, Option("Server", "Address to listen on.", SERVE, "ADDRESS")] = "127.0.0.1"
    port: Annotated[int, Option("Server", "Port to listen on; 0 for any that is free.", SERVE, "N", ge=0, le=65535)] = 5001
    admin_token: Annotated[Secret | None, Option("Server", "Token that may do everything, 32 characters or more; never on the command line.", SERVE, flag=False)] = None
    viewer_token: Annotated[Secret | None, Option("Server", "Token that may only look; never on the command line.", SERVE, flag=False)] = None
    token_file: Annotated[Path | None, Option("Server", "Read tokens from a file of mode 0600: lines of `admin=TOKEN` and `viewer=TOKEN`, any number of each.", SERVE, "PATH")] = None
    allowed_host: Annotated[tuple[str, ...], Option("Server", "Another name, with its port if it has one, under which browsers and programs may reach the server; repeatable.", SERVE, "NAME")] = ()
    cors_origin: Annotated[tuple[str, ...], Option("Server", "Origin of another site whose pages may call the API; repeatable.", SERVE, "ORIGIN")] = ()
    url: Annotated[str | None, Option("Server", "Ask the server at this address instead of the files and the database of this machine.", REMOTE, "URL")] = None
    token: Annotated[Secret | None, Option("Server", "Token for --url; never on the command line.", REMOTE, flag=False)] = None
    # Output
    json: Annotated[bool, Option("Output", "One JSON object a line, on stdout and stderr.", ALL)] = False
    quiet: Annotated[int, Option("Output", "Only warnings, errors and hints; -qq: only errors.", ALL, short="-q", ge=0)] = 0
    verbose: Annotated[int, Option("Output", "Each batch and retry; codes of errors.", ALL, short="-v", ge=0)] = 0
    progress: Annotated[Literal["auto", "bar", "plain", "none"], Option("Output", "How progress is shown; auto: a bar at a terminal, else lines.", JOB, "KIND")] = "auto"
    progress_interval: Annotated[float | None, Option("Output", "Seconds between progress lines. Default: 5, later 30, then 60.", JOB, "TIME", gt=0)] = None
    color: Annotated[Literal["auto", "always", "never"], Option("Output", "Colour; NO_COLOR wins.", ALL, "WHEN")] = "auto"
    log_file: Annotated[Path | None, Option("Output", "Also write every line to this file, with times.", JOB | {"serve"}, "PATH")] = None
    config: Annotated[Path | None, Option("Output", "Configuration file. Default: ./embedmigrate.toml, pyproject.toml, the user's, /etc.", ALL, "PATH")] = None
    env_file: Annotated[Path | None, Option("Output", "File of environment variables. Default: ./.env.", ALL, "PATH")] = None
    # fmt: on


@functools.cache
def table() -> dict[str, Setting]:
    """The settings by key, in the order of the class."""
    hints = get_type_hints(Settings, include_extras=True)
    return {
        field.name: _setting(field, hints[field.name]) for field in dataclasses.fields(Settings)
    }


def _setting(field: dataclasses.Field[Any], hint: Any) -> Setting:
    kind, option = get_args(hint)
    if type(None) in get_args(kind):
        kind = next(k for k in get_args(kind) if k is not type(None))
    return Setting(field.name, kind, field.default, option)


def options() -> dict[str, Option]:
    return {key: setting.option for key, setting in table().items()}
