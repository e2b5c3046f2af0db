"""The jobs that a server knows: the default one, and those of the configuration file by name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from embedmigrate.app.continuing import job_files
from embedmigrate.config import Loaded, Settings, load
from embedmigrate.errors import ConfigError
from embedmigrate.state import JobFiles

_DB_SECONDS = 10.0
_PROVIDER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Job:
    """One of them.

    Attributes:
        name: In the configuration file; None for the default.
        flags: What the command line of the server gave, as keys of the configuration file.
    """

    name: str | None
    flags: Mapping[str, Any]
    loaded: Loaded
    files: JobFiles

    @property
    def settings(self) -> Settings:
        return self.loaded.settings

    @property
    def label(self) -> str:
        return self.name or "default"

    @property
    def quick(self) -> Loaded:
        return quick(self.loaded)

    def with_options(self, options: Mapping[str, Any]) -> Loaded:
        """The settings with what one request asks for.

        Raises:
            ConfigError: A value is out of its bounds.
        """
        return load({**self.flags, **({"job": self.name} if self.name else {}), **options})


def quick(loaded: Loaded) -> Loaded:
    """With less patience: somebody waits for the answer."""
    s = loaded.settings
    hurried = replace(
        s, db_wait=min(s.db_wait, _DB_SECONDS), max_wait=min(s.max_wait, _PROVIDER_SECONDS)
    )
    return replace(loaded, settings=hurried)


class Jobs:
    """Read once: a server that is running does not change its mind when a file changes."""

    def __init__(self, flags: Mapping[str, Any]) -> None:
        """Read all of them.

        Raises:
            ConfigError: A setting of one of them is wrong, or no database is configured.
        """
        self._flags = dict(flags)
        first = self._open(None)
        self._all: dict[str | None, Job] = {None: first}
        for name in first.loaded.jobs:
            self._all[name] = self._open(name)

    def _open(self, name: str | None) -> Job:
        flags = {**self._flags, **({"job": name} if name else {})}
        loaded = load(flags)
        return Job(name, self._flags, loaded, job_files(loaded))

    def get(self, name: str | None) -> Job:
        """One by its name.

        Raises:
            ConfigError: There is none of that name.
        """
        found = self._all.get(name or None)
        if found is None:
            raise ConfigError(
                "there is no job of that name",
                code="job_unknown",
                hint="GET /api/admin/whoami lists the jobs",
            )
        return found

    def all(self) -> list[Job]:
        return list(self._all.values())

    def distinct(self) -> list[Job]:
        """Without the default where it is one of those that have a name."""
        found = {job.files.name: job for job in self._all.values()}
        return list(found.values())
