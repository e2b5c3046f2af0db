"""Opens the database and the model, checking at each step, before anything is spent."""

import shlex
from contextlib import AsyncExitStack
from functools import partial
from typing import Self

from embedmigrate.app.values import Place
from embedmigrate.config import Loaded
from embedmigrate.embedders import Access, check_access
from embedmigrate.embedders.models import Choice, choose, known
from embedmigrate.errors import ConfigError, TargetError
from embedmigrate.postgres import catalog, embedded, privileges, resolution
from embedmigrate.postgres.address import parameters
from embedmigrate.postgres.catalog import Server
from embedmigrate.postgres.load import Limits, Load
from embedmigrate.postgres.privileges import Burden
from embedmigrate.postgres.resolution import Wish
from embedmigrate.postgres.session import Connection, Database
from embedmigrate.postgres.side_resolution import SideWish
from embedmigrate.postgres.target import Target
from embedmigrate.secrets import Secret


class Opening:
    """The steps from settings to a database and a target that fit the model.

    Each step returns what it found, for the dry run to show, and raises what a run ends with.
    """

    def __init__(self, loaded: Loaded, *, run_id: str = "", connections: int = 4) -> None:
        self.settings = loaded.settings
        self.origins = loaded.origins
        self.run_id = run_id
        self._connections = connections
        self._stack = AsyncExitStack()
        s = self.settings
        self.choice: Choice = choose(
            s.provider,
            s.model,
            dimensions=s.dimensions,
            price=s.price,
            batch_size=s.batch_size,
            batch_bytes=s.batch_bytes,
            concurrency=s.concurrency,
        )
        self.access = Access(
            base_url=s.base_url,
            key=s.api_key.reveal() if s.api_key else None,
            key_origin=self.origins.get("api_key", "").removeprefix("environment "),
            api_version=s.api_version,
            encoding_format=s.encoding_format,
            timeout=s.request_timeout,
            allow_http=s.allow_http,
        )
        self.url = ""
        """Of the server that was connected to: an embedded one has an address of its own."""
        self.database: Database
        self.server: Server
        self.target: Target
        self.burden: Burden

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def everything(self) -> None:
        """All steps that need no state, in the order in which a fault is cheapest to find."""
        self.configuration()
        await self.connect()
        await self.resolve()
        self.fit()
        await self.privileges()

    def configuration(self) -> None:
        """What the settings lack, all of it at once.

        Raises:
            ConfigError: The one problem, or one error that lists them.
        """
        problems = list[ConfigError]()
        for check in (self._address, self.credentials):
            try:
                check()
            except ConfigError as error:
                problems.append(error)
        if len(problems) == 1:
            raise problems[0]
        if problems:
            raise ConfigError(
                f"{len(problems)} problems",
                code="configuration_incomplete",
                facts=tuple(line for p in problems for line in (f"{p.message}:", *p.facts)),
                hint="   and   ".join(p.hint for p in problems if p.hint),
                details={"codes": [p.code for p in problems]},
            )

    def _address(self) -> str:
        url = database_url(self.settings.database_url)
        if not embedded.is_embedded(url):
            parameters(url)
        return url

    def credentials(self) -> str:
        return check_access(self.settings.provider, self.access)

    async def connect(self, *, needs_pgvector: bool = True) -> str:
        """Reach the server; an embedded one is started first and stopped at the end."""
        url = database_url(self.settings.database_url)
        if embedded.is_embedded(url):
            server = embedded.start(url)
            self._stack.callback(server.stop)
            url = server.url
        self.url = url
        self.database = Database(
            url, run_id=self.run_id, size=self._connections, wait=self.settings.db_wait
        )
        await self.database.open()
        self._stack.push_async_callback(self.database.close)
        identify = partial(catalog.read_server, needs_pgvector=needs_pgvector)
        self.server = await self.database.run(identify)
        vectors = f"pgvector {self.server.pgvector}" if self.server.pgvector else "no pgvector"
        pooled = ", behind a pooler" if self.server.pooled else ""
        return f"{self.database.place}, PostgreSQL {self.server.version}, {vectors}{pooled}"

    async def resolve(self) -> str:
        """Find the table and its columns.

        Raises:
            ConfigError: Settings that contradict a side table.
            TargetError: Something is missing or does not fit.
        """
        s = self.settings
        stamped = s.updated_at_column or "embedding_updated_at"
        wish = Wish(
            table=s.table,
            key_columns=s.key_column,
            text_columns=s.text_column,
            text_sql=s.text_sql,
            vector_column=s.vector_column,
            updated_at_column=None if s.updated_at_column == "none" else stamped,
            row_updated_at_column=s.row_updated_at_column,
            where=s.where,
            optional_updated_at=s.updated_at_column is None,
            side=self._side(),
        )

        async def look(connection: Connection) -> tuple[Target, Burden]:
            target = await resolution.read_target(connection, wish)
            return target, await privileges.read_burden(connection, target)

        self.target, self.burden = await self.database.run(look)
        t = self.target
        key = ", ".join(f"{k.name} {k.type}" for k in t.key)
        beside = f" for {t.name}" if t.side else ""
        return f"{t.place} {t.vector_type}({t.dimensions}){beside}, key {key}"

    def _side(self) -> SideWish | None:
        s = self.settings
        if s.side_table is None:
            return None
        if s.row_updated_at_column or s.updated_at_column not in {None, "none"}:
            raise ConfigError(
                "--side-table does without --updated-at-column and --row-updated-at-column",
                code="setting_invalid",
                facts=("The hash of each text tells exactly which vectors are stale.",),
                hint="leave both out; --updated-at-column none overrides a file",
            )
        ddl = side_table_ddl(s.table, s.side_table, self.choice.dimensions)
        return SideWish(s.side_table, s.vector_column, self.choice.name, ddl)

    def fit(self) -> str:
        """Does the model give what the column takes?"""
        t, choice = self.target, self.choice
        if choice.dimensions is not None and choice.dimensions != t.dimensions:
            facts = known(choice.name)
            shorter = facts and facts.shortens and t.dimensions < facts.dimensions
            raise TargetError(
                "vector dimensions do not match",
                code="dimension_mismatch",
                facts=(
                    f"{t.place} is {t.vector_type}({t.dimensions}); "
                    f"{choice.name} gives {choice.dimensions}. Nothing was sent or written.",
                ),
                hint=(
                    f"--dimensions {t.dimensions} (this model can shorten), or " if shorter else ""
                )
                + self.wider(choice.dimensions),
            )
        known_width = "gives" if choice.dimensions else "is expected to give"
        return f"{choice.name} {known_width} {t.dimensions} dimensions"

    async def privileges(self) -> str:
        async def look(connection: Connection) -> None:
            await privileges.check_privileges(connection, self.target)
            await privileges.check_expressions(connection, self.target)

        await self.database.run(look)
        await self.load.check()
        doing = "SELECT, UPDATE" if self.target.side is None else "SELECT, INSERT, UPDATE"
        return f"{doing} ({', '.join(privileges.written(self.target))})"

    def wider(self, dimensions: int) -> str:
        """What to do for vectors of another width."""
        s = self.settings
        if s.side_table is None:
            return f"add a vector({dimensions}) column and pass --vector-column"
        ddl = side_table_ddl(s.table, f"{s.side_table}_{dimensions}", dimensions)
        return f"another side table: {ddl}"

    @property
    def actors(self) -> int:
        """Processes that share the work beside this one."""
        return self.settings.actors if self.settings.executor == "ray" else 0

    @property
    def concurrency(self) -> int:
        """Requests in flight at most, of all actors together."""
        return self.choice.concurrency * max(1, self.actors)

    @property
    def load(self) -> Load:
        """What the operator wants the run to leave room for."""
        s = self.settings
        limits = Limits(s.max_replica_lag, s.max_wal_rate, s.throttle_query)
        return Load(self.database, limits)

    @property
    def place(self) -> Place:
        t, p = self.target, self.database.parameters
        return Place(
            database=self.server.database,
            host=p.get("host"),
            port=int(p["port"]) if str(p.get("port", "")).isdigit() else None,
            where=self.database.place,
            server=self.server.version,
            pgvector=self.server.pgvector,
            table=t.name,
            primary_key=tuple(k.name for k in t.key),
            key_types=tuple(k.type for k in t.key),
            text=str(t.text),
            text_columns=t.text.columns,
            vector_column=t.vector_column,
            side_table=t.side.name if t.side else None,
            vector_type=t.vector_type,
            dimensions=t.dimensions,
            provider=self.choice.provider,
            model=self.choice.name,
        )

    def fingerprint(self) -> dict[str, str]:
        """What may not change while vectors of one model fill one column."""
        t = self.target
        beside = {"side table": f"{t.side.name} ({t.side.oid})"} if t.side else {}
        host = "" if self.choice.provider in {"local", "hash"} else self.access.host
        return {
            "database": self.server.identity,
            "table": f"{t.name} ({t.table_oid})",
            "primary key": ", ".join(k.name for k in t.key),
            "text": str(t.text),
            "vector column": f"{t.vector_column} {t.vector_type}",
            "model": f"{self.choice.provider}/{self.choice.name}",
            "dimensions": str(t.dimensions),
            "provider host": host,
        } | beside


def side_table_ddl(table: str, side_table: str, dimensions: int | None) -> str:
    """The command that prints what creates such a side table."""
    words = ["embedmigrate", "init", "--sql", "--table", table, "--side-table", side_table]
    return shlex.join([*words, "--dimensions", str(dimensions)] if dimensions else words)


def database_url(given: Secret | None) -> str:
    """The URL as text.

    Raises:
        ConfigError: There is none.
    """
    url = given.reveal().strip() if given else ""
    if not url:
        raise ConfigError(
            "no database configured",
            code="database_url_missing",
            facts=(
                "Looked at --database-url, EMBEDMIGRATE_DATABASE_URL, DATABASE_URL, PGHOST, "
                "PGSERVICE, ./.env and the configuration files.",
            ),
            hint="export DATABASE_URL=postgresql://USER@HOST:5432/DBNAME   "
            "(password in ~/.pgpass or PGPASSWORD)",
        )
    return url
