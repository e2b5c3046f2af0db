"""The database URL, read with care: what is wrong with it is said without quoting it."""

import re
from typing import Any

import psycopg
from psycopg import conninfo

from embedmigrate.errors import ConfigError

_SCHEMES = {"postgresql", "postgres"}
_SCHEME = re.compile(r"[a-z][a-z0-9.-]{0,19}")
_LARGEST_PORT = 65535
_NOT_SHOWN = "The value is not shown because it may hold a password."
_FORM = "postgresql://USER@HOST:5432/DBNAME"


def parameters(url: str) -> dict[str, Any]:
    """A PostgreSQL URL or keyword string as libpq's parameters.

    libpq's own complaint about a malformed string quotes it, password and all: it is never shown.

    Raises:
        ConfigError: It is neither.
    """
    scheme, found, rest = url.strip().partition("://")
    plain = scheme.lower().partition("+")[0]
    if found and plain not in _SCHEMES:
        named = f'Its scheme is "{plain}"; expected' if _SCHEME.fullmatch(plain) else "Expected"
        raise ConfigError(
            "the database URL is not a PostgreSQL URL",
            code="database_url_invalid",
            facts=(f"{named} postgresql:// or postgres://. {_NOT_SHOWN}",),
            hint=f"export DATABASE_URL={_FORM}",
        )
    if found:
        _check_separators(rest)
    try:
        given = conninfo.conninfo_to_dict(f"postgresql://{rest}" if found else url)
    except psycopg.ProgrammingError:
        raise _unreadable() from None
    ports = str(given.get("port") or "5432").split(",")
    if not all(_is_port(port) for port in ports):
        raise _unreadable("Its port is not a number from 1 to 65535.")
    return given


def _check_separators(rest: str) -> None:
    """A bare @ or / in a password ends it early for libpq, and the rest would pass for a host."""
    place = rest.partition("?")[0]
    authority, _, database = place.partition("/")
    if authority.count("@") > 1 or "@" in database:
        raise _unreadable("It has an @ in a place where only %40 can stand.")


def _is_port(port: str) -> bool:
    return not port or (port.isdecimal() and 1 <= int(port) <= _LARGEST_PORT)


def _unreadable(reason: str = "") -> ConfigError:
    return ConfigError(
        "the database URL cannot be read",
        code="database_url_invalid",
        facts=(f"{reason} {_NOT_SHOWN}".strip(),),
        hint=f"{_FORM}; in a password write @ as %40, / as %2F, and a space as %20",
    )
