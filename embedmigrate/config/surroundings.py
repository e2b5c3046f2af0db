"""What the process's surroundings say beside the settings: terminal, build server, systemd."""

import os
from collections.abc import Mapping
from pathlib import Path

from embedmigrate.config.settings import Settings


def in_ci() -> bool:
    """A build server, by the variables that pip looks at."""
    names = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "BUILD_BUILDID", "BUILD_ID")
    return any(os.environ.get(name) for name in names)


def terminal_kind() -> str:
    return os.environ.get("TERM", "")


def completing() -> bool:
    """The shell asks for completions: the words of the command line are not in argv."""
    return "_EMBEDMIGRATE_COMPLETE" in os.environ


def no_color() -> bool:
    return bool(os.environ.get("NO_COLOR"))


def json_lines() -> bool:
    """Asked for in the environment; for what goes wrong before the settings are known."""
    return truthy(os.environ.get("EMBEDMIGRATE_JSON"))


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


def environment_of_a_job(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's own for a job that it starts, without what only a server needs."""
    names = {"EMBEDMIGRATE_ADMIN_TOKEN", "EMBEDMIGRATE_VIEWER_TOKEN", "EMBEDMIGRATE_TOKEN"}
    names |= {"EMBEDMIGRATE_URL"}
    return {k: v for k, v in os.environ.items() if k not in names} | dict(changes)


def truthy(value: object) -> bool:
    return str(value).lower() in {"1", "true", "yes", "on"}
