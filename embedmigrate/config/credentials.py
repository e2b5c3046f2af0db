"""Keys and URLs that a file or a command holds; and what others could read of them."""

import functools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from embedmigrate import secrets
from embedmigrate.config.settings import Settings
from embedmigrate.errors import ConfigError
from embedmigrate.secrets import Secret

_SECRETS = {"api_key", "database_url", "admin_token", "viewer_token", "token"}


def with_files(settings: Settings, origins: dict[str, str]) -> Settings:
    """Read what is named by a file or a command, unless the same layer gave the value itself."""
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


@functools.cache  # each job of --all-jobs has settings of its own; a password manager asks once
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


def remember_password(url: Secret | None) -> None:
    """The password of a URL, in both of its spellings; the redactor knows keyword strings."""
    value = url.reveal() if url else ""
    password = value.partition("://")[2].rpartition("@")[0].partition(":")[2]
    named = re.findall(r"\bpassword\s*=\s*'?([^'&\s]+)", value)
    for each in (password, *named):
        secrets.remember(each)
        secrets.remember(unquote(each))


def warnings(
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
    holds = any(_SECRETS & set(table) for table in tables)
    if path and holds and path.stat().st_mode & 0o044:
        found.append(f"{path} may hold a secret and others can read it: chmod 600 {path}")
    return tuple(found)
