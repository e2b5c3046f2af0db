"""`init`: look at a database, propose a job for each vector column, or the DDL for what is missing.

Nothing is written to the database.
"""

from functools import partial

from embedmigrate.app.opening import Opening
from embedmigrate.app.proposing import propose
from embedmigrate.app.values import Setup
from embedmigrate.config import Loaded
from embedmigrate.errors import ConfigError, TargetError
from embedmigrate.postgres import ddl, side_ddl, survey
from embedmigrate.postgres.side_resolution import in_schema_of
from embedmigrate.postgres.survey import Survey, Table
from embedmigrate.postgres.texts import likely

_MOST_DIMENSIONS = 16_000
_SHOWN = 5


async def inspect(loaded: Loaded) -> Setup:
    """The jobs of all tables with a vector column, or of `--table`.

    Raises:
        ConfigError: A side table is asked for.
        TargetError: There is no vector column to fill.
    """
    if loaded.settings.side_table:
        raise ConfigError(
            "init proposes no jobs for a side table",
            code="setting_invalid",
            hint="init --sql prints its DDL; in the file it is the setting side_table of a job",
        )
    async with Opening(loaded, connections=1) as opening:
        where = await opening.connect(needs_pgvector=False)
        found = await _survey(opening)
        s = loaded.settings
        free = s.provider == "openai" and not s.model and not s.base_url
        jobs = propose(found.tables, choose_model=free)
        if not jobs:
            raise _nothing(opening, found)
        return Setup(where, found.pgvector or "", jobs, tuple(_likely(found)))


async def statements(loaded: Loaded, dimensions: int) -> str:
    """The DDL for what is missing, as text that psql takes.

    Raises:
        ConfigError: No column can be so wide.
    """
    if dimensions > _MOST_DIMENSIONS:
        raise ConfigError(
            f"--dimensions {dimensions}: a vector column takes {_MOST_DIMENSIONS:,} at most",
            code="setting_invalid",
            hint="the width of the model that will fill it, such as 1536",
        )
    async with Opening(loaded, connections=1) as opening:
        await opening.connect(needs_pgvector=False)
        found = await _survey(opening)
        parts = [
            ddl.comment("Printed by embedmigrate init --sql; nothing was executed."),
            ddl.extension(found),
        ]
        if opening.settings.side_table:
            parts += _of_side_table(opening, found, dimensions)
            return "\n\n".join(parts)
        chosen = [t for t in found.tables if t.vectors or _named(opening)]
        if chosen:
            why = "Rather fail than make everybody wait behind ALTER TABLE:"
            parts.append(f"{ddl.comment(why)}\nSET lock_timeout = '5s';")
        for table in chosen:
            wanted = [v.name for v in table.vectors]
            wanted = wanted or [table.free_name(opening.settings.vector_column)]
            parts += [_of_column(found, table, name, dimensions) for name in wanted]
        if not chosen:
            commands = [_command(name) for name in _likely(found) or ["TABLE"]]
            lines = ["No table has a vector column. For the DDL of one:", *commands]
            parts.append(ddl.comment("\n".join(lines)))
        return "\n\n".join(parts)


def _of_column(found: Survey, table: Table, vector: str, dimensions: int) -> str:
    column = table.column(vector)
    parts = [
        ddl.comment(f"{table.setting}, {vector}"),
        ddl.additions(found, table, vector, dimensions),
    ]
    if column and not column.dimensions:
        parts.append(ddl.width(found, table, column, dimensions))
    parts += [
        ddl.queue_index(table, vector),
        ddl.vector_index(found, table, vector, dimensions),
    ]
    return "\n\n".join(parts)


def _of_side_table(opening: Opening, found: Survey, dimensions: int) -> list[str]:
    s, source = opening.settings, found.tables[0]
    schema, name = in_schema_of(source.schema, s.side_table or "")
    side = side_ddl.side_table(source, schema, name)
    return [
        ddl.comment(f"{side.setting} for {source.setting}, {s.vector_column}"),
        side_ddl.creation(found, source, side, s.vector_column, dimensions),
        ddl.vector_index(found, side, s.vector_column, dimensions),
    ]


async def _survey(opening: Opening) -> Survey:
    wanted = opening.settings.table if opening.settings.side_table else _named(opening)
    return await opening.database.run(partial(survey.take, wanted=wanted))


def _named(opening: Opening) -> str | None:
    """The table of this very call; one in a configuration file is no wish to leave others out."""
    given = opening.origins.get("table", "").endswith(("--table", "EMBEDMIGRATE_TABLE"))
    return opening.settings.table if given else None


def _likely(found: Survey) -> list[str]:
    """Tables with a key and text and without a vector; telling names first, then many rows."""
    tables = [t for t in found.tables if t.key and t.texts and not t.vectors]
    tables.sort(key=lambda t: (not likely(t.texts[0]), -(t.rows or 0)))
    return [t.setting for t in tables[:_SHOWN]]


def _command(table: str) -> str:
    import shlex  # noqa: PLC0415

    return shlex.join(["embedmigrate", "init", "--sql", "--table", table])


def _nothing(opening: Opening, found: Survey) -> TargetError:
    database, named = opening.server.database, _named(opening)
    missing = () if found.pgvector else ("The extension pgvector is not installed in it.",)
    if named:
        table = found.tables[0].setting
        return TargetError(
            f'table "{table}" has no vector column',
            code="no_vector_column",
            facts=missing,
            hint=f"{_command(table)}   prints what to add",
        )
    tables = _likely(found)
    facts = (f"Likely tables: {', '.join(tables)}.",) if tables else ("No table with text either.",)
    return TargetError(
        f'no table in database "{database}" has a vector column',
        code="no_vector_column",
        facts=(*missing, *facts),
        hint=f"{_command(tables[0] if tables else 'TABLE')}   prints what to add",
    )
