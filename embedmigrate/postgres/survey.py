"""Which tables of a database could be embedded: their vector columns, keys, texts and times."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

from embedmigrate.postgres.catalog import find_table
from embedmigrate.postgres.session import Connection, transaction
from embedmigrate.postgres.texts import rank

_VECTORS = {"vector", "halfvec"}
_TIMES = {"timestamp", "timestamptz"}
_STAMPS = ("embedding_updated_at", "embeddingUpdatedAt", "embedded_at", "embeddedAt")
_CHANGES = ("updated_at", "updatedAt", "modified_at", "modifiedAt", "last_modified", "changed_at")
_NAME_BYTES = 63


@dataclass(frozen=True, slots=True)
class Column:
    """`type` is the catalog's spelling; `width` the average in bytes, 0 where never analysed."""

    name: str
    type: str
    base: str
    dimensions: int
    generated: bool
    width: int
    indexes: Sequence[str]
    """Methods of the vector indexes over it."""
    collation: str | None = None
    """As SQL, where it is not that of the type."""

    @property
    def is_vector(self) -> bool:
        return self.base in _VECTORS and not self.generated


@dataclass(frozen=True, slots=True)
class Table:
    """A table or partitioned table; `rows` by the planner's statistics, None where there are none.

    Attributes:
        key: The primary key, or else the columns of a unique index without NULLs.
        primary: Whether `key` is the primary key.
        leaves: Schema and name of each partition that holds rows.
    """

    schema: str
    table: str
    partitioned: bool
    rows: int | None
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    primary: bool
    leaves: tuple[tuple[str, str], ...]

    @property
    def setting(self) -> str:
        """As `--table` takes it."""
        return ".".join(
            '"' + part.replace('"', '""') + '"' if {".", '"'} & set(part) else part
            for part in (self.schema, self.table)
        )

    @property
    def vectors(self) -> tuple[Column, ...]:
        return tuple(c for c in self.columns if c.is_vector)

    @property
    def texts(self) -> tuple[Column, ...]:
        """Columns that look like text worth embedding, the likeliest first."""
        return tuple(rank(c for c in self.columns if c.name not in self.key))

    def column(self, name: str) -> Column | None:
        return next((c for c in self.columns if c.name == name), None)

    def stamp(self, vector: str) -> Column | None:
        """The timestamp that belongs to this vector column and to no other."""
        names = [f"{vector}_updated_at", f"{vector}UpdatedAt"]
        if len(self.vectors) <= 1 or vector == "embedding":
            names += _STAMPS
        return self._time(names)

    def new_stamp(self, vector: str) -> str:
        """A name for the timestamp that is missing, which `stamp` will know again."""
        name = f"{vector}_updated_at"
        return name if len(name.encode()) <= _NAME_BYTES else _STAMPS[0]

    @property
    def changed(self) -> Column | None:
        """The timestamp of a row's last change."""
        return self._time(_CHANGES)

    def free_name(self, wanted: str) -> str:
        """`wanted`, or something like it where a column that is no vector has that name."""
        names = [wanted, f"{wanted}_vector", *(f"{wanted}_{n}" for n in range(2, 1700))]
        return next(name for name in names if self.column(name) is None)

    def _time(self, names: list[str] | tuple[str, ...]) -> Column | None:
        found = (self.column(name) for name in names)
        return next((c for c in found if c and c.base in _TIMES and not c.generated), None)


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is to work with.

    Attributes:
        pgvector: Its version in this database; None where it is not installed.
        offered: The version that CREATE EXTENSION would install; None where the server has none.
        prefix: The schema of its types, where the search path does not find them.
    """

    pgvector: str | None
    offered: str | None
    prefix: str | None
    tables: tuple[Table, ...] = field(default=())


_EXTENSION: LiteralString = """
SELECT (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector'),
       (SELECT n.nspname FROM pg_extension e
          JOIN pg_namespace n ON n.oid = e.extnamespace
          JOIN pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector'
         WHERE e.extname = 'vector' AND NOT pg_type_is_visible(t.oid))
"""

_TABLES: LiteralString = """
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind = 'p',
       CASE c.relkind
         WHEN 'p' THEN (SELECT sum(l.reltuples) FILTER (WHERE l.reltuples >= 0)::bigint
                          FROM pg_partition_tree(c.oid) p JOIN pg_class l ON l.oid = p.relid
                         WHERE p.isleaf)
         ELSE nullif(c.reltuples, -1)::bigint END
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p')
   AND CASE WHEN %(only)s::bigint IS NULL
            THEN NOT c.relispartition AND c.relpersistence <> 't'
             AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
             AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                                AND d.objid = c.oid AND d.deptype = 'e')
            ELSE c.oid = %(only)s::bigint::oid END
 ORDER BY 2, 3
"""

# An index over an expression, such as a cast to halfvec, is known by what it depends on.
_COLUMNS: LiteralString = """
SELECT a.attrelid::bigint, a.attname, format_type(a.atttypid, a.atttypmod), t.typname,
       greatest(a.atttypmod, 0), a.attgenerated <> '', coalesce(s.width, 0),
       ARRAY(SELECT m.amname::text FROM pg_depend d
               JOIN pg_index i ON i.indexrelid = d.objid AND i.indisvalid
               JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
              WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
                AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
                AND t.typname IN ('vector', 'halfvec')
                AND m.amname NOT IN ('btree', 'hash', 'gin', 'gist', 'spgist', 'brin')
              ORDER BY 1),
       (SELECT quote_ident(cn.nspname) || '.' || quote_ident(o.collname)
          FROM pg_collation o JOIN pg_namespace cn ON cn.oid = o.collnamespace
         WHERE o.oid = a.attcollation AND a.attcollation <> t.typcollation)
  FROM pg_attribute a
  JOIN pg_type t ON t.oid = a.atttypid
  JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN (SELECT schemaname, tablename, attname, max(avg_width) AS width
               FROM pg_stats GROUP BY 1, 2, 3) s
    ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
 WHERE a.attrelid = ANY (%(oids)s::bigint[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attrelid, a.attnum
"""

_KEYS: LiteralString = """
SELECT * FROM (
  SELECT DISTINCT ON (i.indrelid) i.indrelid::bigint, i.indisprimary,
         array_agg(a.attname::text ORDER BY k.n) AS names
    FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, n)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
   WHERE i.indrelid = ANY (%(oids)s::bigint[]::oid[]) AND i.indisunique AND i.indisvalid
     AND i.indpred IS NULL AND i.indexprs IS NULL AND k.n <= i.indnkeyatts
   GROUP BY i.indexrelid, i.indrelid, i.indisprimary
  HAVING bool_and(a.attnotnull)
   ORDER BY i.indrelid, i.indisprimary DESC, count(*), i.indexrelid) AS best
"""

_LEAVES: LiteralString = """
SELECT root::bigint, n.nspname, l.relname
  FROM unnest(%(oids)s::bigint[]::oid[]) AS root
 CROSS JOIN LATERAL pg_partition_tree(root::regclass) AS p
  JOIN pg_class l ON l.oid = p.relid JOIN pg_namespace n ON n.oid = l.relnamespace
 WHERE p.isleaf AND l.relkind = 'r' AND l.oid <> root
 ORDER BY 1, 2, 3
"""


async def take(connection: Connection, wanted: str | None) -> Survey:
    """All tables that are the application's own, or the one that is wanted; writes nothing.

    Raises:
        TargetError: There is no such table, or it is not one.
    """
    only = (await find_table(connection, wanted))[2] if wanted else None
    async with transaction(connection, statement_seconds=120, read_only=True):

        async def rows(query: LiteralString, **values: Any) -> list[tuple[Any, ...]]:
            return await (await connection.execute(query, values)).fetchall()

        pgvector, offered, prefix = (await rows(_EXTENSION))[0]
        tables = await rows(_TABLES, only=only)
        oids = [oid for oid, *_ in tables]
        columns: dict[int, list[Column]] = {}
        for oid, *facts in await rows(_COLUMNS, oids=oids):
            columns.setdefault(oid, []).append(Column(*facts))
        keys = {oid: (names, primary) for oid, primary, names in await rows(_KEYS, oids=oids)}
        leaves: dict[int, list[tuple[str, str]]] = {}
        for oid, schema, name in await rows(_LEAVES, oids=oids):
            leaves.setdefault(oid, []).append((schema, name))
    found = []
    for oid, schema, name, partitioned, count in tables:
        key, primary = keys.get(oid, ((), False))
        rest = tuple(columns.get(oid, ())), tuple(key), primary, tuple(leaves.get(oid, ()))
        found.append(Table(schema, name, partitioned, count, *rest))
    return Survey(pgvector, offered, prefix, tuple(found))
