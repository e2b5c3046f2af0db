"""Settings for a process elsewhere: they travel without secrets, which it finds for itself."""

import socket
from dataclasses import dataclass, replace
from typing import Any

from embedmigrate.config.layers import KEYS, Loaded, secrets_here
from embedmigrate.config.settings import Settings, table
from embedmigrate.errors import ConfigError
from embedmigrate.secrets import Secret

_WAYS = ("database_url_file", "api_key_file", "api_key_command")


@dataclass(frozen=True, slots=True)
class Portable:
    """Settings that may be pickled; `needs_key` where the driver has a key."""

    settings: Settings
    needs_key: bool

    def completed(self) -> Loaded:
        """With the secrets of this process's environment.

        Raises:
            ConfigError: It lacks one; naming the variable and this host.
        """
        s = self.settings
        here = secrets_here(s.provider)
        missing = []
        if here.settings.database_url is None:
            missing.append("DATABASE_URL")
        if self.needs_key and here.settings.api_key is None:
            missing.append(KEYS.get(s.provider, "EMBEDMIGRATE_API_KEY"))
        if missing:
            host, names = socket.gethostname(), " and ".join(missing)
            raise ConfigError(
                f"{names} is not set for the actors on {host}",
                code="actor_lacks_secret",
                facts=("Secrets never travel through Ray: each node has them in its environment.",),
                hint=f"on {host}, export {names} before ray start",
            )
        own = here.settings
        return Loaded(replace(s, database_url=own.database_url, api_key=own.api_key), here.origins)


def portable(settings: Settings) -> Portable:
    """Without secrets, and without what would find some in a file of this machine."""
    held = (key for key, setting in table().items() if setting.kind is Secret)
    emptied: dict[str, Any] = dict.fromkeys([*held, *_WAYS])
    bare = replace(settings, **emptied)
    return Portable(bare, needs_key=settings.api_key is not None)


def variables(settings: Settings, database_url: str) -> dict[str, str]:
    """The secrets as `completed` finds them first, for processes that inherit an environment."""
    found = {"EMBEDMIGRATE_DATABASE_URL": database_url}
    if settings.api_key:
        found["EMBEDMIGRATE_API_KEY"] = settings.api_key.reveal()
    return found
