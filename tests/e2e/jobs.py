"""A database, a provider and the command line, put together."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    import os
    import subprocess
    from collections.abc import Callable, Mapping

    from tests.conftest import CommandLine, Completed
    from tests.provider import Body, Provider
    from tests.servers import Database


def shuffling(seed: int = 0) -> Callable[[Body], object]:
    """For `Provider.mangle`: the right `index` on every vector, and the vectors in any order."""
    chance = random.Random(seed)

    def mangle(answer: Body) -> object:
        chance.shuffle(answer["data"])
        return orjson.dumps(answer)

    return mangle


KEY = "sk-test-0123456789"


@dataclass(frozen=True)
class Job:
    """Embeds `articles`, whose `body` gets eight dimensions, unless `options` say otherwise."""

    cli: CommandLine
    database: Database
    provider: Provider
    options: tuple[str, ...] = ("--table", "articles", "--text-column", "body")
    dimensions: int | None = 8

    @property
    def beside(self) -> bool:
        """Whether the vectors go into a side table."""
        return "--side-table" in self.options

    @property
    def env(self) -> dict[str, str | None]:
        """What every command needs."""
        width = {} if self.dimensions is None else {"EMBEDMIGRATE_DIMENSIONS": str(self.dimensions)}
        return {
            "DATABASE_URL": self.database.url,
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": self.provider.url,
            **width,
        }

    def run(
        self,
        *args: str | os.PathLike[str],
        command: str = "generate-all",
        env: Mapping[str, str | None] | None = None,
        timeout: float = 60,
    ) -> Completed:
        """To its end."""
        changed = self.env | dict(env or {})
        return self.cli(command, *self.options, *args, env=changed, timeout=timeout)

    def start(
        self, *args: str | os.PathLike[str], env: Mapping[str, str | None] | None = None
    ) -> subprocess.Popen[str]:
        """And lets it run."""
        changed = self.env | dict(env or {})
        return self.cli.start("generate-all", *self.options, *args, env=changed)

    def sent(self) -> int:
        """Texts that the provider has answered, each as often as it was sent."""
        return self.provider.texts_sent.total()

    def sent_twice(self) -> list[str]:
        """Texts that were paid for more than once."""
        return [text for text, times in self.provider.texts_sent.items() if times > 1]


def ok(done: Completed, code: int = 0) -> Completed:
    """The same, if it ended with this exit code and no traceback."""
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def summary_of(done: Completed) -> dict[str, str]:
    """The words of the log's summary line."""
    found = re.search(r"^.* summary (.*)$", done.stderr, re.MULTILINE)
    assert found, done.stderr
    return dict(re.findall(r"(\w+)=(\S+)", found[1]))
