"""What `serve` wants to have before it opens an address."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.web.sites import ADMIN, VIEWER

if TYPE_CHECKING:
    from tests.conftest import CommandLine

URL = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nowhere"}
TOKEN = {"EMBEDMIGRATE_ADMIN_TOKEN": ADMIN}


def refuses(cli: CommandLine, code: str, *words: str, **env: str | None) -> str:
    """With exit code 2 and the next command; stderr."""
    done = cli("serve", "-v", *words, env=URL | env, timeout=30)
    assert done.returncode == 2, done.stderr
    assert f"[{code}]" in done.stderr
    assert "hint:" in done.stderr
    for secret in (ADMIN, VIEWER):
        assert secret not in done.stderr
    return done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_without_a_token_nothing_is_served(cli: CommandLine, host: str) -> None:
    said = refuses(cli, "token_missing", "--host", host)
    assert "openssl rand -hex 32" in said


@pytest.mark.parametrize("token", ["short", "x" * 31, "ü" * 40, f"{'x' * 20} {'y' * 20}"])
def test_a_weak_token_is_refused(cli: CommandLine, token: str) -> None:
    said = refuses(cli, "token_weak", EMBEDMIGRATE_ADMIN_TOKEN=token)
    assert token not in said


def test_one_token_has_one_role(cli: CommandLine) -> None:
    refuses(cli, "token_weak", EMBEDMIGRATE_ADMIN_TOKEN=ADMIN, EMBEDMIGRATE_VIEWER_TOKEN=ADMIN)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o644, 0o601])
def test_a_token_file_that_others_can_open_is_refused(cli: CommandLine, mode: int) -> None:
    path = cli.folder / "tokens"
    path.write_text(f"admin={ADMIN}\n", "utf-8")
    path.chmod(mode)
    assert "chmod 600" in refuses(cli, "token_file_unsafe", "--token-file", str(path))


@pytest.mark.parametrize("content", ["{ADMIN}", "root={ADMIN}", "admin="])
def test_a_token_file_of_another_form_is_refused(cli: CommandLine, content: str) -> None:
    path = cli.folder / "tokens"
    path.write_text(content.format(ADMIN=ADMIN), "utf-8")
    path.chmod(0o600)
    refuses(cli, "token_file_invalid", "--token-file", str(path))


def test_a_token_file_that_is_not_there_is_named(cli: CommandLine) -> None:
    refuses(cli, "token_file_invalid", "--token-file", "/nowhere/tokens")


def test_an_address_that_is_taken_is_named(cli: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refuses(cli, "address_unavailable", "--port", str(port), **TOKEN)
    assert str(port) in said


def test_a_database_is_needed(cli: CommandLine) -> None:
    refuses(cli, "database_url_missing", DATABASE_URL=None, **TOKEN)


def test_a_run_that_is_named_from_outside_has_a_harmless_name(cli: CommandLine) -> None:
    """It becomes part of a file's name."""
    done = cli("generate-all", env=URL | {"EMBEDMIGRATE_RUN_ID": "../../x"}, timeout=30)
    assert done.returncode == 2
    assert "run_id" in done.stderr
