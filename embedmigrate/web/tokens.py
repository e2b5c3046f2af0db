"""Who may do what: two roles, and tokens that are kept only as their hashes."""

import hashlib
import hmac
import os
import stat
from enum import StrEnum
from pathlib import Path

from embedmigrate import secrets
from embedmigrate.config import Settings
from embedmigrate.errors import ConfigError

SHORTEST = 32
_MAKE_ONE = "export EMBEDMIGRATE_ADMIN_TOKEN=$(openssl rand -hex 32)"


class Role(StrEnum):
    VIEWER = "viewer"
    ADMIN = "admin"


class Tokens:
    """Several of each role at once, so that one can be replaced while the other still works."""

    def __init__(self, given: list[tuple[Role, str]]) -> None:
        """Hash them.

        Raises:
            ConfigError: One is too short, or cannot stand in a header.
        """
        for role, token in given:
            if len(token) < SHORTEST or not token.isascii() or not token.isprintable():
                raise ConfigError(
                    f"the {role} token is shorter than {SHORTEST} characters or not plain ASCII",
                    code="token_weak",
                    hint=_MAKE_ONE,
                )
            if any(c.isspace() for c in token):
                raise ConfigError(
                    f"there is white space within the {role} token",
                    code="token_weak",
                    hint=_MAKE_ONE,
                )
        self._digests = [(role, _digest(token)) for role, token in given]
        if len({digest for _, digest in self._digests}) < len(given):
            raise ConfigError(
                "one token is given twice",
                code="token_weak",
                facts=("A token has one role.",),
                hint=_MAKE_ONE,
            )

    def role(self, token: str) -> Role | None:
        """Whose it is; all hashes are compared, in a time that does not depend on the token."""
        mine, found = _digest(token), None
        for role, digest in self._digests:
            if hmac.compare_digest(mine, digest):
                found = role
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def tokens_of(settings: Settings) -> Tokens:
    """From the environment and from the token file.

    Raises:
        ConfigError: There is none, or one is unfit.
    """
    given = [
        (role, secret.reveal().strip())
        for role, secret in (
            (Role.ADMIN, settings.admin_token),
            (Role.VIEWER, settings.viewer_token),
        )
        if secret
    ]
    if settings.token_file:
        given += _from_file(settings.token_file)
    if not given:
        raise ConfigError(
            "no token is configured, and nothing is served without one",
            code="token_missing",
            facts=("Looked at EMBEDMIGRATE_ADMIN_TOKEN, EMBEDMIGRATE_VIEWER_TOKEN, --token-file.",),
            hint=_MAKE_ONE,
        )
    return Tokens(given)


def _from_file(path: Path) -> list[tuple[Role, str]]:
    lines = [line.strip() for line in _private(path).splitlines()]
    found = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        name, _, token = (part.strip() for part in line.partition("="))
        if name not in list(Role) or not token:
            raise ConfigError(
                f"{path}, line {number} is neither admin=TOKEN nor viewer=TOKEN",
                code="token_file_invalid",
                facts=("The line is not shown because it may hold a secret.",),
                hint="one token a line; lines that begin with # are left out",
            )
        secrets.remember(token)
        found.append((Role(name), token))
    return found


def _private(path: Path) -> str:
    """The text of a file that nobody but its owner can read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with open(fd, encoding="utf-8") as file:  # noqa: PTH123  it is open already
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            if mode & 0o077:
                raise ConfigError(
                    f"others can read {path} (mode {mode:04o})",
                    code="token_file_unsafe",
                    hint=f"chmod 600 {path}, and replace the tokens in it",
                )
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(
            f"{path} cannot be read: {reason}",
            code="token_file_invalid",
            hint="check the path that --token-file names",
        ) from None
