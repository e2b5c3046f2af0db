"""The files that hold settings: which of them is read, and what it says."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedmigrate.errors import ConfigError

_SYSTEM_FILE = Path("/etc/embedmigrate/config.toml")


def read_dotenv(given: Path | None) -> dict[str, str]:
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


def read_config(
    given: Path | None, environ: Mapping[str, str]
) -> tuple[Path | None, dict[str, Any]]:
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
    if project.is_file():
        tool = _toml(project).get("tool")
        if isinstance(tool, dict) and isinstance(found := tool.get("embedmigrate"), dict) and found:
            return project, found
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
