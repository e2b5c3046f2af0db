"""The search that runs over every series finds what it is there to find."""

from pathlib import Path

import pytest

from tests import tables
from tests.conftest import CommandLine
from tests.e2e.jobs import KEY
from tests.faults.canary import Search
from tests.servers import SUPERUSER_PASSWORD

SECRETS = (f"Bearer {KEY}", f"://u:{SUPERUSER_PASSWORD}@h", tables.text_of(7))


@pytest.mark.parametrize("secret", SECRETS)
def test_a_leak_is_found_wherever_it_is(tmp_path: Path, secret: str) -> None:
    cli, printed, written, named = CommandLine(tmp_path), Search(), Search(), Search()
    cli.heard.append(f"failed: {secret}")
    printed.look(cli)
    cli.heard.clear()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "job.json").write_text(f"[{secret!r}]", "utf-8")
    written.look(cli)
    (tmp_path / "state" / "job.json").write_text("[]", "utf-8")
    named.look(cli)
    assert printed.leaks
    assert written.leaks
    assert not named.leaks
    assert named.bytes > 0
