"""Flags, environment, .env and configuration files → one Settings, and where each value is from.

The only module that reads the environment.
"""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedmigrate import secrets
from embedmigrate.config.convert import convert
from embedmigrate.config.credentials import remember_password, warnings, with_files
from embedmigrate.config.files import read_config, read_dotenv
from embedmigrate.config.settings import Settings, options, table
from embedmigrate.config.surroundings import truthy
from embedmigrate.errors import ConfigError
from embedmigrate.secrets import Secret

_PREFIX = "EMBEDMIGRATE_"
_GENTLE = {"batch_size": 10, "delay": 1000, "concurrency": 1}
KEYS = {"openai": "OPENAI_API_KEY", "azure": "AZURE_OPENAI_API_KEY"}
_ADDRESSES = {"openai": "OPENAI_BASE_URL", "azure": "AZURE_OPENAI_ENDPOINT"}
_LIBPQ = {"PGHOST": "host", "PGPORT": "port", "PGDATABASE": "dbname", "PGUSER": "user"}
_LIBPQ |= {"PGPASSWORD": "password"}  # libpq finds it in the environment, not in ./.env
_SAME = ({"api_key", "api_key_file", "api_key_command"}, {"database_url", "database_url_file"})
"""Ways to give one thing: a way in a higher layer hides every way in the layers below."""
_LAST = {"resume_from", "retry_failed"}
_OF_ONE_JOB = (
    *("job", "table", "key_column", "text_column", "text_sql", "where", "vector_column"),
    *("side_table", "updated_at_column", "row_updated_at_column", *sorted(_LAST)),
)
"""What decides about one table; `last` means each job's own last run."""
_QUOTED = str.maketrans({"'": r"\'", "\\": r"\\"})
_SETTINGS_HELP = "embedmigrate generate-all --help lists the settings and what each takes"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with the origin of each value, the files that were read, and the jobs they name."""

    settings: Settings
    origins: dict[str, str]
    files: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Layer:
    """`values` by key; `origin` completes the sentence "table comes from …"."""

    origin: str
    values: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)

    def origin_of(self, key: str) -> str:
        return f"{self.origin}{self.names.get(key, '')}"


def load(flags: Mapping[str, Any], *, environ: Mapping[str, str] | None = None) -> Loaded:
    """Merge all layers, the highest first, and validate the result.

    Args:
        flags: What the command line gave, by key.
        environ: For tests; else the process environment.

    Raises:
        ConfigError: Every problem that was found, in one error.
    """
    real = dict(os.environ if environ is None else environ)
    env_file = flags.get("env_file") or real.get(f"{_PREFIX}ENV_FILE")
    dotenv = read_dotenv(Path(env_file) if env_file else None)
    chosen = flags.get("config") or real.get(f"{_PREFIX}CONFIG")
    path, document = read_config(Path(chosen) if chosen else None, real)
    job = flags.get("job") or real.get(f"{_PREFIX}JOB") or document.get("job")
    if flags.get("url") or real.get(f"{_PREFIX}URL"):
        job = None  # it is the server's configuration file that has to know it
    layers = [
        _Layer("--", dict(flags), {key: key.replace("_", "-") for key in flags}),
        _prefixed("environment ", real),
        _prefixed(f"{env_file or '.env'} ", dotenv),
        *_file_layers(path, document, job),
    ]
    provider = str(_first(layers, "provider") or "openai")
    layers[2:2] = [_conventional("environment ", real, provider)]
    layers[4:4] = [_conventional(f"{env_file or '.env'} ", dotenv, provider)]
    if truthy(_first(layers, "gentle")):
        layers.insert(1, _Layer("--gentle", dict(_GENTLE)))
    layers.append(_libpq(real | {k: v for k, v in dotenv.items() if k not in real}))
    merged, origins = _merge(layers)
    settings = with_files(_validated(merged, origins), origins)
    _remember(settings, real)
    return Loaded(
        settings,
        origins,
        tuple(str(p) for p in (path, env_file or (".env" if dotenv else None)) if p),
        tuple(document.get("jobs", {})),
        warnings(settings, origins, path, document),
    )


def load_jobs(
    loaded: Loaded, flags: Mapping[str, Any], *, environ: Mapping[str, str] | None = None
) -> dict[str, Loaded]:
    """The settings of every job of the configuration file, for `--all-jobs`.

    Args:
        loaded: What the same flags gave without a job.
        flags: What the command line gave.
        environ: For tests; else the process environment.

    Raises:
        ConfigError: There is no job, or a setting that only one job can have came from outside
            of the file and would hold for all.
    """
    given = loaded.origins.get("all_jobs", "--all-jobs")
    asked = given if given.startswith("--") else f"all_jobs (from {given})"
    for key in _OF_ONE_JOB:
        origin = loaded.origins.get(key, "")
        outside = origin.startswith("--") or origin.endswith(f"{_PREFIX}{key.upper()}")
        if outside and not (key in _LAST and getattr(loaded.settings, key) == "last"):
            raise ConfigError(
                f"{origin.removeprefix('environment ')} names what one job has, "
                f"and {asked} runs them all",
                code="all_jobs_conflict",
                facts=(f"It would hold for each of: {', '.join(loaded.jobs)}.",)
                if loaded.jobs
                else (),
                hint="leave it out, or run one job: embedmigrate generate-all --job NAME",
            )
    if not loaded.jobs:
        raise ConfigError(
            f"{asked}: no job in {loaded.files[0] if loaded.files else 'any file'}",
            code="jobs_missing",
            hint="add [jobs.NAME] tables, or let embedmigrate init write them",
        )
    common = {key: value for key, value in flags.items() if key != "all_jobs"}
    jobs = {name: load({**common, "job": name}, environ=environ) for name in loaded.jobs}
    _check_executors(jobs, asked)
    return jobs


def _check_executors(jobs: Mapping[str, Loaded], asked: str) -> None:
    """Actors belong to one job, which checks them before it spends anything."""
    elsewhere = [name for name, job in jobs.items() if job.settings.executor != "local"]
    if elsewhere:
        raise ConfigError(
            f"{asked} works in one process, and --executor ray is set for: {', '.join(elsewhere)}",
            code="all_jobs_conflict",
            hint=f"embedmigrate generate-all --job {elsewhere[0]}",
        )


def secrets_here(provider: str, *, environ: Mapping[str, str] | None = None) -> Loaded:
    """Key and database URL as this process's environment gives them; nothing else of it.

    Raises:
        ConfigError: A file or command that it names cannot be used.
    """
    real = dict(os.environ if environ is None else environ)
    layers = [_prefixed("environment ", real), _conventional("environment ", real, provider)]
    layers.append(_libpq(real))
    wanted = {key for ways in _SAME for key in ways}
    for layer in layers:
        layer.values = {key: value for key, value in layer.values.items() if key in wanted}
    merged, origins = _merge(layers)
    settings = with_files(_validated(merged, origins), origins)
    _remember(settings, real)
    return Loaded(settings, origins)


def _remember(settings: Settings, environ: Mapping[str, str]) -> None:
    if settings.api_key:
        secrets.remember(settings.api_key.reveal().strip())
    for url in (settings.database_url, settings.lock_database_url):
        remember_password(url)
    for token in (settings.admin_token, settings.viewer_token, settings.token):
        secrets.remember(token.reveal().strip() if token else None)
    secrets.remember(environ.get("PGPASSWORD"))


def _first(layers: list[_Layer], key: str) -> Any:
    return next((layer.values[key] for layer in layers if key in layer.values), None)


def _prefixed(origin: str, environ: Mapping[str, str]) -> _Layer:
    names = {f"{_PREFIX}{key.upper()}": key for key in options()}
    found = {names[name]: value for name, value in environ.items() if name in names and value}
    return _Layer(origin, found, {names[n]: n for n in environ if n in names})


def _conventional(origin: str, environ: Mapping[str, str], provider: str) -> _Layer:
    names = {"DATABASE_URL": "database_url", "OPENAI_API_VERSION": "api_version"}
    names |= {KEYS[provider]: "api_key"} if provider in KEYS else {}
    names |= {_ADDRESSES[provider]: "base_url"} if provider in _ADDRESSES else {}
    found = {key: environ[name] for name, key in names.items() if environ.get(name)}
    return _Layer(origin, found, {key: name for name, key in names.items()})


def _libpq(environ: Mapping[str, str]) -> _Layer:
    """Libpq's own variables name a database as well; the password it finds by itself."""
    if service := environ.get("PGSERVICE"):
        return _Layer("PGSERVICE", {"database_url": f"service='{service.translate(_QUOTED)}'"})
    if not environ.get("PGDATABASE") and not environ.get("PGHOST"):
        return _Layer("", {})
    words = [
        f"{keyword}='{environ[name].translate(_QUOTED)}'"
        for name, keyword in _LIBPQ.items()
        if environ.get(name)
    ]
    return _Layer("environment PG*", {"database_url": " ".join(words)})


def _file_layers(path: Path | None, document: dict[str, Any], job: str | None) -> list[_Layer]:
    jobs = document.get("jobs", {})
    if not isinstance(jobs, dict) or not all(isinstance(j, dict) for j in jobs.values()):
        raise ConfigError(
            f"{path}: jobs is not made of tables",
            code="config_invalid",
            hint="a job is a [jobs.NAME] table; embedmigrate init writes one",
        )
    general = {key: value for key, value in document.items() if key != "jobs"}
    if job is not None and str(job) not in jobs:
        known = f"It has: {', '.join(jobs)}." if jobs else "It has none."
        raise ConfigError(
            f'no job "{job}" in {path or "any configuration file"}',
            code="job_unknown",
            facts=(known,) if path else (),
            hint="add a [jobs.NAME] table, or let embedmigrate init write one",
        )
    layers = [_Layer(f"{path} [jobs.{job}]", dict(jobs[str(job)]))] if job else []
    return [*layers, _Layer(str(path), general)]


def _merge(layers: list[_Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """The highest value of each key; unknown keys are all named at once."""
    known = options()
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    for layer in layers:
        above = set(merged)
        hidden = {key for ways in _SAME if ways & above for key in ways}
        for key, value in layer.values.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                did = f'; did you mean "{near[0]}"?' if near else ""
                problems.append(f'unknown setting "{key}" in {layer.origin}{did}')
            elif key not in merged and key not in hidden:
                merged[key] = value
                origins[key] = layer.origin_of(key)
    if problems:
        raise _problems(problems, "config_key_unknown")
    return merged, origins


def _validated(merged: dict[str, Any], origins: dict[str, str]) -> Settings:
    """Every value in its type; what is wrong is named by setting and origin, all at once."""
    values, problems = dict[str, Any](), []
    for key, given in merged.items():
        setting = table()[key]
        try:
            values[key] = convert(setting, given)
        except ValueError as fault:
            shown = "" if setting.kind is Secret else f" {given!r}"
            name = f"--{key.replace('_', '-')}"
            problems.append(f"{name}{shown} (from {origins[key]}): {fault}")
    if problems:
        raise _problems(problems, "setting_invalid")
    return Settings(**values)


def _problems(problems: list[str], code: str) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(problems[0], code=code, hint=_SETTINGS_HELP)
    return ConfigError(
        f"{len(problems)} problems",
        code=code,
        facts=tuple(problems),
        hint=_SETTINGS_HELP,
    )
