"""Every setting once: its type, default, help and the commands that take it.

The command line, the environment variables, the keys of the configuration file and the reference
in docs/ are all made from this class: `--foo-bar`, `EMBEDMIGRATE_FOO_BAR` and `foo_bar` are one.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

ALL = frozenset({"generate-all", "generate-one", "stats", "status", "stop", "init", "config show"})
TABLE = ALL - {"init"}
RUN = frozenset({"generate-all", "generate-one", "config show"})
JOB = frozenset({"generate-all", "config show"})
COST = RUN | {"stats"}

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Option:
    """How a setting appears on the command line; `flag` is false for what argv must not show."""

    panel: str
    help: str
    commands: frozenset[str] = JOB
    metavar: str | None = None
    short: str | None = None
    off: str | None = None
    flag: bool = True


def _seconds(value: Any) -> Any:
    """`30`, `1.5s`, `500ms`, `10m`, `2h` or `1h30m` as seconds."""
    if not isinstance(value, str):
        return value
    parts = re.findall(r"([\d.]+)(ms|s|m|h|d)", value)
    if not parts or "".join(n + u for n, u in parts) != value:
        return value  # a bare number is seconds; the type's own complaint is clear enough
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _names(value: Any) -> Any:
    """A single string of the environment as a list, comma-separated."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


Seconds: TypeAlias = Annotated[float, BeforeValidator(_seconds)]
Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_names)]


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    # Target
    database_url: Annotated[
        SecretStr | None,
        Option(
            "Target",
            "PostgreSQL URL, or embedded:PATH. A password here is visible in `ps`: prefer DATABASE_URL or ~/.pgpass.",
            ALL,
            "URL",
        ),
    ] = None
    database_url_file: Annotated[
        Path | None, Option("Target", "Read the URL from a file.", ALL, "PATH")
    ] = None
    job: Annotated[
        str | None,
        Option("Target", "A [jobs.NAME] table of the configuration file.", TABLE, "NAME", "-j"),
    ] = None
    table: Annotated[
        str,
        Option("Target", "Table, as SCHEMA.TABLE or found by the search path.", ALL, "TABLE", "-t"),
    ] = "base_resumes"
    key_column: Annotated[
        Names,
        Option(
            "Target",
            "Key column; repeat for a composite key. Default: the primary key.",
            TABLE,
            "NAME",
        ),
    ] = ()
    text_column: Annotated[
        Names,
        Option(
            "Target",
            "Column to embed; repeat to join several by a newline. json and jsonb are rendered as readable lines.",
            TABLE,
            "NAME",
        ),
    ] = ("data",)
    text_sql: Annotated[
        str | None,
        Option(
            "Target",
            "SQL expression over the row to embed instead of columns.",
            TABLE,
            "EXPRESSION",
        ),
    ] = None
    where: Annotated[
        str | None, Option("Target", "SQL condition: only rows that meet it.", TABLE, "CONDITION")
    ] = None
    vector_column: Annotated[
        str, Option("Target", "The vector(n) or halfvec(n) column to fill.", TABLE, "NAME")
    ] = "embedding"
    updated_at_column: Annotated[
        str | None,
        Option(
            "Target",
            "Timestamp column set together with the vector. Default: embedding_updated_at, where there is one.",
            TABLE,
            "NAME",
        ),
    ] = None
    row_updated_at_column: Annotated[
        str | None,
        Option(
            "Target",
            "Timestamp of the row's last change: a vector older than it is stale.",
            TABLE,
            "NAME",
        ),
    ] = None
    # Model
    provider: Annotated[
        Literal["openai", "azure", "local", "hash"],
        Option(
            "Model",
            "Who embeds; an OpenAI-compatible server is openai with --base-url.",
            COST,
            "NAME",
        ),
    ] = "openai"
    model: Annotated[
        str | None,
        Option(
            "Model",
            "Model name; for azure the deployment, for local a folder or wordllama.",
            COST,
            "NAME",
            "-m",
        ),
    ] = None
    dimensions: Annotated[
        int | None,
        Field(ge=1, le=16000),
        Option("Model", "Ask the model for a shortened width.", COST, "N"),
    ] = None
    base_url: Annotated[
        str | None,
        Option("Model", "Address of an OpenAI-compatible server, up to /v1.", RUN, "URL"),
    ] = None
    api_key: Annotated[
        SecretStr | None, Option("Model", "API key; never on the command line.", RUN, flag=False)
    ] = None
    api_key_file: Annotated[
        Path | None, Option("Model", "Read the API key from a file.", RUN, "PATH")
    ] = None
    api_key_command: Annotated[
        str | None, Option("Model", "Read the API key from a command's output.", RUN, "COMMAND")
    ] = None
    api_version: Annotated[str, Option("Model", "Azure's API version.", RUN, "VERSION")] = (
        "2024-10-21"
    )
    encoding_format: Annotated[
        Literal["auto", "base64", "float"],
        Option(
            "Model",
            "How vectors travel; auto: base64 from OpenAI and Azure, float from other servers.",
            RUN,
            "FORMAT",
        ),
    ] = "auto"
    price: Annotated[
        float | None,
        Field(ge=0),
        Option(
            "Model", "USD per million tokens, for a model whose price is not known.", COST, "USD"
        ),
    ] = None
    allow_http: Annotated[
        bool, Option("Model", "Send texts unencrypted to a host that is not this one.", RUN)
    ] = False
    # Selection
    force: Annotated[
        bool,
        Option(
            "Selection",
            "Embed every eligible row again, not only those without a current embedding.",
            RUN,
            off="--skip-existing",
        ),
    ] = False
    resume_from: Annotated[
        str | None,
        Option(
            "Selection",
            "Start after this key (composite: a JSON list), or `last`: after the saved cursor. A final sweep still looks at every row.",
            JOB,
            "ID|last",
        ),
    ] = None
    limit: Annotated[
        int | None, Field(ge=1), Option("Selection", "Take at most N rows.", JOB, "N")
    ] = None
    max_duration: Annotated[
        Seconds | None,
        Field(gt=0),
        Option("Selection", "Stop after so long, such as 2h.", JOB, "TIME"),
    ] = None
    retry_failed: Annotated[
        str | None,
        Option(
            "Selection", "Only the rows that failed in this run, or `last`.", JOB, "RUN_ID|last"
        ),
    ] = None
    on_too_long: Annotated[
        Literal["fail", "truncate", "skip"],
        Option("Selection", "What to do with a text above the model's limit.", RUN, "POLICY"),
    ] = "fail"
    max_sweeps: Annotated[
        int,
        Field(ge=1),
        Option("Selection", "Look so many times for rows that appeared meanwhile.", JOB, "N"),
    ] = 3
    # Safety
    dry_run: Annotated[
        bool,
        Option(
            "Safety",
            "Check everything, print the plan, change nothing, call no API.",
            JOB,
            short="-n",
        ),
    ] = False
    probe: Annotated[
        bool,
        Option("Safety", "With --dry-run: send one short text to test key, model and width.", JOB),
    ] = False
    detailed_exitcode: Annotated[
        bool, Option("Safety", "With --dry-run: exit 4 when rows are pending.", JOB)
    ] = False
    max_cost: Annotated[
        float | None,
        Field(gt=0),
        Option("Safety", "Never spend more than so many USD in this run.", JOB, "USD"),
    ] = None
    yes: Annotated[bool, Option("Safety", "Answer every question with yes.", JOB, short="-y")] = (
        False
    )
    no_input: Annotated[bool, Option("Safety", "Never ask.", JOB)] = False
    # Rate and retries
    batch_size: Annotated[
        int | None,
        Field(ge=1, le=4096),
        Option(
            "Rate and retries", "Rows in one request. Default: 128 (local: 256).", JOB, "N", "-b"
        ),
    ] = None
    batch_bytes: Annotated[
        int | None,
        Field(ge=1),
        Option(
            "Rate and retries", "UTF-8 bytes in one request at most. Default: 1000000.", JOB, "N"
        ),
    ] = None
    concurrency: Annotated[
        int | None,
        Field(ge=1, le=256),
        Option(
            "Rate and retries",
            "Requests in flight at most; fewer after a 429. Default: 8 (local: 1).",
            JOB,
            "N",
            "-c",
        ),
    ] = None
    delay: Annotated[
        float,
        Field(ge=0),
        Option(
            "Rate and retries", "Pause after each batch of a worker, in milliseconds.", JOB, "MS"
        ),
    ] = 0.0
    gentle: Annotated[
        bool,
        Option("Rate and retries", "One request at a time, 10 rows each, 1,000 ms apart.", JOB),
    ] = False
    rpm: Annotated[
        float | None,
        Field(gt=0),
        Option("Rate and retries", "Requests a minute at most.", JOB, "N"),
    ] = None
    tpm: Annotated[
        float | None, Field(gt=0), Option("Rate and retries", "Tokens a minute at most.", JOB, "N")
    ] = None
    retries: Annotated[
        int,
        Field(ge=1),
        Option(
            "Rate and retries",
            "Requests for the same texts before the texts are suspected.",
            RUN,
            "N",
        ),
    ] = 8
    max_wait: Annotated[
        Seconds,
        Field(ge=0),
        Option("Rate and retries", "How long the provider may stay away.", RUN, "TIME"),
    ] = 600.0
    request_timeout: Annotated[
        Seconds,
        Field(gt=0),
        Option(
            "Rate and retries", "Deadline of one request, from first byte to last.", RUN, "TIME"
        ),
    ] = 60.0
    db_wait: Annotated[
        Seconds,
        Field(ge=0),
        Option("Rate and retries", "How long the database may stay away.", RUN, "TIME"),
    ] = 300.0
    grace: Annotated[
        Seconds,
        Field(ge=0),
        Option("Rate and retries", "How long a stop waits for what is in flight.", JOB, "TIME"),
    ] = 30.0
    pooler: Annotated[
        bool,
        Option(
            "Rate and retries",
            "There is a transaction pooler in between (detected where possible): no session lock.",
            RUN,
        ),
    ] = False
    # Checkpoint
    restart: Annotated[
        bool, Option("Checkpoint", "Put the state file aside and begin again; vectors stay.", JOB)
    ] = False
    lock_timeout: Annotated[
        Seconds,
        Field(ge=0),
        Option("Checkpoint", "Wait so long for another run to end.", JOB, "TIME"),
    ] = 0.0
    lock_database_url: Annotated[
        SecretStr | None,
        Option("Checkpoint", "A direct connection for the lock, past the pooler.", JOB, "URL"),
    ] = None
    state_dir: Annotated[
        Path | None,
        Option(
            "Checkpoint",
            "Where state files live. Default: the user's state directory.",
            ALL - {"init", "generate-one", "stats"},
            "PATH",
        ),
    ] = None
    # Output
    json_lines: Annotated[
        bool,
        Field(alias="json"),
        Option("Output", "One JSON object a line, on stdout and stderr.", ALL),
    ] = False
    quiet: Annotated[
        int,
        Field(ge=0),
        Option("Output", "Only warnings, errors and hints; -qq: only errors.", ALL, short="-q"),
    ] = 0
    verbose: Annotated[
        int,
        Field(ge=0),
        Option("Output", "Each batch and retry; codes of errors.", ALL, short="-v"),
    ] = 0
    progress: Annotated[
        Literal["auto", "bar", "plain", "none"],
        Option(
            "Output", "How progress is shown; auto: a bar at a terminal, else lines.", JOB, "KIND"
        ),
    ] = "auto"
    progress_interval: Annotated[
        Seconds | None,
        Field(gt=0),
        Option(
            "Output", "Seconds between progress lines. Default: 5, later 30, then 60.", JOB, "TIME"
        ),
    ] = None
    color: Annotated[
        Literal["auto", "always", "never"], Option("Output", "Colour; NO_COLOR wins.", ALL, "WHEN")
    ] = "auto"
    log_file: Annotated[
        Path | None,
        Option("Output", "Also write every line to this file, with times.", JOB, "PATH"),
    ] = None
    config: Annotated[
        Path | None,
        Option(
            "Output",
            "Configuration file. Default: ./embedmigrate.toml, pyproject.toml, the user's, /etc.",
            ALL,
            "PATH",
        ),
    ] = None
    env_file: Annotated[
        Path | None,
        Option("Output", "File of environment variables. Default: ./.env.", ALL, "PATH"),
    ] = None


def options() -> dict[str, Option]:
    """The settings by the name of their key, in the order of the class."""
    return {
        field.alias or name: next(m for m in field.metadata if isinstance(m, Option))
        for name, field in Settings.model_fields.items()
    }
