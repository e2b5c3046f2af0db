"""Flags, environment, .env and configuration files → one Settings, and where each value is from.

The only module that reads the environment.
"""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from embedmigrate import secrets
from embedmigrate.config.convert import convert
from embedmigrate.config.settings import Settings, options, table
from embedmigrate.errors import ConfigError
from embedmigrate.secrets import Secret

_PREFIX = "EMBEDMIGRATE_"
_GENTLE = {"batch_size": 10, "delay": 1000, "concurrency": 1}
_KEYS = {"openai": "OPENAI_API_KEY", "azure": "AZURE_OPENAI_API_KEY"}
_ADDRESSES = {"openai": "OPENAI_BASE_URL", "azure": "AZURE_OPENAI_ENDPOINT"}
_LIBPQ = {"PGHOST": "host", "PGPORT": "port", "PGDATABASE": "dbname", "PGUSER": "user"}
_QUOTED = str.maketrans({"'": r"\'", "\\": r"\\"})
_SYSTEM_FILE = Path("/etc/embedmigrate/config.toml")


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
    dotenv = _dotenv(Path(env_file) if env_file else None)
    chosen = flags.get("config") or real.get(f"{_PREFIX}CONFIG")
    path, document = _file(Path(chosen) if chosen else None, real)
    job = flags.get("job") or real.get(f"{_PREFIX}JOB") or document.get("job")
    layers = [
        _Layer("--", dict(flags), {key: key.replace("_", "-") for key in flags}),
        _prefixed("environment ", real),
        _prefixed(f"{env_file or '.env'} ", dotenv),
        *_file_layers(path, document, job),
    ]
    provider = _first(layers, "provider") or "openai"
    layers[2:2] = [_conventional("environment ", real, provider)]
    layers[4:4] = [_conventional(f"{env_file or '.env'} ", dotenv, provider)]
    if _truthy(_first(layers, "gentle")):
        layers.insert(1, _Layer("--gentle", dict(_GENTLE)))
    layers.append(_libpq(real | {k: v for k, v in dotenv.items() if k not in real}))
    merged, origins = _merge(layers)
    settings = _with_files(_validated(merged, origins), origins)
    if settings.api_key:
        secrets.remember(settings.api_key.reveal().strip())
    for url in (settings.database_url, settings.lock_database_url):
        _remember_password(url)
    secrets.remember(real.get("PGPASSWORD"))
    return Loaded(
        settings,
        origins,
        tuple(str(p) for p in (path, env_file or (".env" if dotenv else None)) if p),
        tuple(document.get("jobs", {})),
        _warnings(settings, origins, path, document),
    )


def in_ci() -> bool:
    """A build server, by the variables that pip looks at."""
    names = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "BUILD_BUILDID", "BUILD_ID")
    return any(os.environ.get(name) for name in names)


def terminal_kind() -> str:
    return os.environ.get("TERM", "")


def no_color() -> bool:
    return bool(os.environ.get("NO_COLOR"))


def json_lines() -> bool:
    """Asked for in the environment; for what goes wrong before the settings are known."""
    return _truthy(os.environ.get(f"{_PREFIX}JSON"))


def force_color() -> bool:
    return bool(os.environ.get("FORCE_COLOR"))


def under_systemd() -> bool:
    """The journal writes times of its own."""
    return bool(os.environ.get("JOURNAL_STREAM"))


def step_summary() -> Path | None:
    """Where GitHub Actions collects Markdown for the job's page."""
    given = os.environ.get("GITHUB_STEP_SUMMARY")
    return Path(given) if given else None


def state_directory(settings: Settings) -> Path:
    """`--state-dir`, systemd's StateDirectory, or the user's state directory."""
    if settings.state_dir:
        return settings.state_dir
    if systemd := os.environ.get("STATE_DIRECTORY"):
        return Path(systemd.split(":")[0])
    import platformdirs  # noqa: PLC0415

    return Path(platformdirs.user_state_dir("embedmigrate"))


def _first(layers: list[_Layer], key: str) -> Any:
    return next((layer.values[key] for layer in layers if key in layer.values), None)


def _truthy(value: Any) -> bool:
    return str(value).lower() in {"1", "true", "yes", "on"}


def _prefixed(origin: str, environ: Mapping[str, str]) -> _Layer:
    names = {f"{_PREFIX}{key.upper()}": key for key in options()}
    found = {names[name]: value for name, value in environ.items() if name in names and value}
    return _Layer(origin, found, {names[n]: n for n in environ if n in names})


def _conventional(origin: str, environ: Mapping[str, str], provider: str) -> _Layer:
    names = {"DATABASE_URL": "database_url", "OPENAI_API_VERSION": "api_version"}
    names |= {_KEYS[provider]: "api_key"} if provider in _KEYS else {}
    names |= {_ADDRESSES[provider]: "base_url"} if provider in _ADDRESSES else {}
    found = {key: environ[name] for name, key in names.items() if environ.get(name)}
    return _Layer(origin, found, {key: name for name, key in names.items()})


def _libpq(environ: Mapping[str, str]) -> _Layer:
    """Libpq's own variables name a database as well; the password it finds by itself."""
    if environ.get("PGSERVICE"):
        return _Layer("PGSERVICE", {"database_url": f"service='{environ['PGSERVICE']}'"})
    if not environ.get("PGDATABASE") and not environ.get("PGHOST"):
        return _Layer("", {})
    words = [
        f"{keyword}='{environ[name].translate(_QUOTED)}'"
        for name, keyword in _LIBPQ.items()
        if environ.get(name)
    ]
    return _Layer("environment PG*", {"database_url": " ".join(words)})


def _dotenv(given: Path | None) -> dict[str, str]:
    path = given or Path(".env")
    if not path.is_file():
        if given:
            raise ConfigError(
                f"--env-file {given} does not exist",
                code="env_file_missing",
                hint="name another with --env-file, or leave it out to read ./.env",
            )
        return {}
    import logging  # noqa: PLC0415

    from dotenv import dotenv_values  # noqa: PLC0415

    # Its warnings about lines that it cannot read would stand between lines of JSON.
    logging.getLogger("dotenv").setLevel(logging.CRITICAL)
    try:
        found = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"{path} cannot be read: {reason}",
            code="env_file_invalid",
            hint="correct it, or name another with --env-file",
        ) from None
    return {k: v for k, v in found.items() if v is not None}


def _file(given: Path | None, environ: Mapping[str, str]) -> tuple[Path | None, dict[str, Any]]:
    """The first configuration file that there is."""
    if given:
        if not given.is_file():
            raise ConfigError(
                f"--config {given} does not exist",
                code="config_missing",
                hint="embedmigrate init writes one; --config names it",
            )
        return given, _toml(given)
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "/")) / ".config")
    project = Path("pyproject.toml")
    if Path("embedmigrate.toml").is_file():
        return Path("embedmigrate.toml"), _toml(Path("embedmigrate.toml"))
    if project.is_file() and (table := _toml(project).get("tool", {}).get("embedmigrate")):
        return project, table
    for path in (Path(home) / "embedmigrate" / "config.toml", _SYSTEM_FILE):
        if path.is_file():
            return path, _toml(path)
    return None, {}


def _toml(path: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        where = re.search(r"line \d+", str(error))
        raise ConfigError(
            f"{path} is not valid TOML" + (f" ({where[0]})" if where else ""),
            code="config_invalid",
            facts=("The line is not shown because it may hold a secret.",),
            hint="correct it, or name another file with --config",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}",
            code="config_missing",
            hint="run as a user who may read it, or name another file with --config",
        ) from None


def _file_layers(path: Path | None, document: dict[str, Any], job: str | None) -> list[_Layer]:
    jobs = document.get("jobs", {})
    if not isinstance(jobs, dict) or not all(isinstance(j, dict) for j in jobs.values()):
        raise ConfigError(
            f"{path}: jobs is not made of tables",
            code="config_invalid",
            hint="a job is a [jobs.NAME] table; embedmigrate init writes one",
        )
    general = {key: value for key, value in document.items() if key != "jobs"}
    if job is not None and job not in jobs:
        known = f"It has: {', '.join(jobs)}." if jobs else "It has none."
        raise ConfigError(
            f'no job "{job}" in {path or "any configuration file"}',
            code="job_unknown",
            facts=(known,) if path else (),
            hint="add a [jobs.NAME] table, or let embedmigrate init write one",
        )
    layers = [_Layer(f"{path} [jobs.{job}]", dict(jobs[job]))] if job else []
    return [*layers, _Layer(str(path), general)]


def _merge(layers: list[_Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """The highest value of each key; unknown keys are all named at once."""
    known = options()
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    for layer in layers:
        for key, value in layer.values.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                did = f'; did you mean "{near[0]}"?' if near else ""
                problems.append(f'unknown setting "{key}" in {layer.origin}{did}')
            elif key not in merged:
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
        return ConfigError(problems[0], code=code, hint="embedmigrate config show")
    return ConfigError(
        f"{len(problems)} problems",
        code=code,
        facts=tuple(problems),
        hint="embedmigrate config show",
    )


def _with_files(settings: Settings, origins: dict[str, str]) -> Settings:
    """Read what is named by a file or a command, unless a higher layer gave the value itself."""
    changes: dict[str, Any] = {}
    if settings.api_key_file and settings.api_key is None:
        changes["api_key"] = _secret_file(settings.api_key_file)
        origins["api_key"] = str(settings.api_key_file)
    elif settings.api_key_command and settings.api_key is None:
        changes["api_key"] = _secret_command(settings.api_key_command)
        origins["api_key"] = "--api-key-command"
    if settings.database_url_file and settings.database_url is None:
        changes["database_url"] = _secret_file(settings.database_url_file)
        origins["database_url"] = str(settings.database_url_file)
    return replace(settings, **changes)


def _secret_file(path: Path) -> Secret:
    try:
        return Secret(path.read_text("utf-8").rstrip("\r\n"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(
            f"{path} cannot be read: {reason}",
            code="secret_unreadable",
            hint="check the path that --api-key-file or --database-url-file names",
        ) from None


def _secret_command(command: str) -> Secret:
    import subprocess  # noqa: PLC0415

    # The operator's own command line, as git and restic take one for the same purpose.
    done = subprocess.run(  # noqa: S602
        command, shell=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ConfigError(
            f"--api-key-command failed with exit code {done.returncode}",
            code="secret_unreadable",
            facts=("What it printed is not shown because it may hold a secret.",),
            hint="run the command by itself, or use --api-key-file",
        )
    return Secret(done.stdout.rstrip("\r\n"))


def _remember_password(url: Secret | None) -> None:
    """The password of a URL, in both of its spellings; the redactor knows keyword strings."""
    value = url.reveal() if url else ""
    password = value.partition("://")[2].rpartition("@")[0].partition(":")[2]
    named = re.findall(r"\bpassword\s*=\s*'?([^'&\s]+)", value)
    for each in (password, *named):
        secrets.remember(each)
        secrets.remember(unquote(each))


def _warnings(
    settings: Settings, origins: dict[str, str], path: Path | None, document: dict[str, Any]
) -> tuple[str, ...]:
    found = []
    url = settings.database_url.reveal() if settings.database_url else ""
    if (
        origins.get("database_url", "").startswith("--")
        and ":" in url.partition("://")[2].rpartition("@")[0]
    ):
        found.append("the password in --database-url is visible in `ps`: prefer DATABASE_URL")
    tables = [document, *document.get("jobs", {}).values()]
    holds = any({"api_key", "database_url"} & set(table) for table in tables)
    if path and holds and path.stat().st_mode & 0o044:
        found.append(f"{path} may hold a secret and others can read it: chmod 600 {path}")
    return tuple(found)
