"""What must never come out, whatever goes wrong: the key, the password, the text of a row.

Every arena is searched before it is taken down: all that was printed, and every file in the
folder of the tool, which has its state, its reports and a log as talkative as a log can be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.e2e.jobs import KEY
from tests.servers import SUPERUSER_PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import CommandLine

WORDS = ("orchard", "violin", "thistle", "quartz", "ziegel", "naïve", "Ωmega", "lantern")
"""One of them is in nearly every text of `tables.text_of`, and none in the tool or its names."""
CANARIES = (KEY, SUPERUSER_PASSWORD, *WORDS)
TALKATIVE = {"EMBEDMIGRATE_VERBOSE": "2", "EMBEDMIGRATE_LOG_FILE": "run.log"}


@dataclass
class Search:
    """What the arenas of one series came to."""

    bytes: int = 0
    leaks: list[str] = field(default_factory=list)

    def look(self, cli: CommandLine) -> None:
        for place, content in _everything(cli):
            self.bytes += len(content)
            self.leaks += [
                f"leak: {canary!r} in {place}: {_around(content, canary)}"
                for canary in CANARIES
                if canary.encode() in content
            ]


def _everything(cli: CommandLine) -> Iterator[tuple[str, bytes]]:
    for said in cli.heard:
        yield "what was printed", said.encode("utf-8", "replace")
    for path in sorted(cli.folder.rglob("*")):
        if path.is_file():
            yield path.name, path.name.encode("utf-8", "replace") + b"\n" + path.read_bytes()


def _around(content: bytes, canary: str) -> str:
    at = content.index(canary.encode())
    return content[max(0, at - 80) : at + 40].decode("utf-8", "replace")


SEARCH = Search()
"""Of the series that is under way; there is one at a time in a process."""
