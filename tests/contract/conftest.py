"""One database, one provider and one Ray cluster for all executors under test."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from embedmigrate import __version__
from embedmigrate.app.opening import Opening
from embedmigrate.app.planning import counter_of
from embedmigrate.app.workplace import Workshop, intake_of, open_worker
from embedmigrate.config import load
from embedmigrate.config.elsewhere import portable
from embedmigrate.engine.account import Account
from embedmigrate.engine.pacing import Governor
from embedmigrate.executors.cluster import Spec, cluster
from embedmigrate.executors.messages import Introduction
from embedmigrate.executors.team import Plan, Team
from embedmigrate.postgres.source import TableSource
from tests import tables
from tests.e2e.jobs import KEY
from tests.servers import Database
from tests.verifier import Verifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from embedmigrate.engine.model import Event, Row
    from embedmigrate.engine.ports import Submit
    from embedmigrate.executors.member import Remote
    from embedmigrate.executors.messages import Build
    from tests.provider import Provider
    from tests.servers import PostgresServer
    from tests.tables import Session

    Hire = Callable[[Build], Remote]

ACTORS = 2


@dataclass
class Bench:
    """An executor at work, with the governor that it obeys.

    Attributes:
        told: Codes of what an operator would have been told.
    """

    submit: Submit
    governor: Governor
    rows: list[Row]
    events: list[Event]
    told: list[str]
    team: Team | None = None


@dataclass(frozen=True)
class Rig:
    """Opens an executor over `articles`; `hire` is None for the one in this process."""

    hire: Hire | None
    url: str
    provider: Provider
    session: Session

    def table(self, rows: int) -> Verifier:
        """A new table."""
        self.session.execute("DROP TABLE IF EXISTS articles")
        tables.articles(self.session, rows, gaps=False)
        return Verifier(self.session)

    def opening(self, **changes: Any) -> Opening:
        given: dict[str, Any] = {
            "table": "articles",
            "text_column": ("body",),
            "dimensions": 8,
            "base_url": self.provider.url,
            "executor": "ray" if self.hire else "local",
            "actors": ACTORS,
            "concurrency": 2,
        }
        environ = {"DATABASE_URL": self.url, "OPENAI_API_KEY": KEY}
        return Opening(load({**given, **changes}, environ=environ))

    @contextlib.asynccontextmanager
    async def open(self, **changes: Any) -> AsyncIterator[Bench]:
        events, told = list[Any](), list[str]()
        async with self.opening(**changes) as opening, contextlib.AsyncExitStack() as stack:
            await opening.everything()
            # As many at once from one process as from all actors together.
            account = Account(opening.choice.concurrency * ACTORS)
            governor = Governor(account, report=events.append)
            intake = intake_of(opening, counter_of(opening))

            def notice(code: str, _: str) -> None:
                told.append(code)

            source = TableSource(opening.database, opening.target)
            found = [row async for row in source.rows(None, force=False)]
            rows = [admitted for row in found if (admitted := intake.admit(row, None))]
            bench = Bench(_nobody, governor, rows, events, told)  # type: ignore[arg-type]
            if self.hire is None:
                counter = counter_of(opening)
                bench.submit = await stack.enter_async_context(
                    open_worker(opening, governor, counter, intake, notice)
                )
            else:
                bench.team = team = self.team(opening)
                stack.push_async_callback(team.dismiss)
                await team.muster()
                await stack.enter_async_context(team.working(governor, notice))
                bench.submit = team.submit
            yield bench

    def team(self, opening: Opening, **other: str) -> Team:
        """`other` are facts on which the driver and its actors shall differ."""
        assert self.hire is not None
        hire, s = self.hire, opening.settings
        shop = Workshop(portable(s), "contract")
        mine = Introduction("", __version__, opening.fingerprint() | other)
        plan = Plan(ACTORS, opening.choice.concurrency, s.max_wait, mine)
        return Team(plan, lambda: hire(shop))


async def _nobody(_: object) -> None:
    raise AssertionError("nobody has been asked to work yet")


@pytest.fixture(scope="session")
def shared(postgres: PostgresServer, template: str) -> Iterator[Database]:
    """What actors find in their environment does not change, so the database does not either."""
    name = f"embedmigrate_contract_{secrets.token_hex(4)}"
    postgres.create_database(name, template)
    own = Database(name, postgres.dsn(name), postgres)
    yield own
    own.drop()


@pytest.fixture(scope="session")
def hire(shared: Database) -> Iterator[Hire]:
    """What starts actors, on a cluster that all tests of this process share."""
    if find_spec("ray") is None:
        pytest.skip("the extra `ray` is not installed")
    secret = {"EMBEDMIGRATE_DATABASE_URL": shared.url, "EMBEDMIGRATE_API_KEY": KEY}
    with cluster(Spec(None, ACTORS, 1, 0, 4, 100_000, secret)) as found:
        yield found


@pytest.fixture(params=["local", "ray"])
def rig(request: pytest.FixtureRequest, shared: Database, provider: Provider) -> Rig:
    """Each executor in turn."""
    found = request.getfixturevalue("hire") if request.param == "ray" else None
    return Rig(found, shared.url, provider, shared.connect())


@pytest.fixture
def ray_rig(hire: Hire, shared: Database, provider: Provider) -> Rig:
    return Rig(hire, shared.url, provider, shared.connect())
