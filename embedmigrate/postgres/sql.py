"""Every statement over the target table, as pure functions: a target → composed SQL.

Identifiers pass through `psycopg.sql`. Two things are SQL by design and trusted like the rest of
the command line, `--text-sql` and `--where`: they enter in `_trusted` only.
Columns are qualified by the table's own name, so that an expression may use that name as well.
"""

import json
from collections.abc import Iterable
from typing import LiteralString

from psycopg import abc, sql
from psycopg.sql import SQL, Composable, Composed, Literal, Placeholder

from embedmigrate.postgres.target import Target, TextKind
from embedmigrate.postgres.text import BLANK

_PREFIX = 64
"""Characters looked at before a whole text is: most texts are told from blank by their start."""


class Identifier(sql.Identifier):
    """A name in a statement with parameters, in which a bare percent sign would begin one."""

    def as_bytes(self, context: abc.AdaptContext | None = None) -> bytes:
        return super().as_bytes(context).replace(b"%", b"%%")


def _trusted(text: str) -> Composable:
    # On lines of its own, so that a comment at its end cannot swallow what follows.
    return SQL("(\n{}\n)").format(SQL(text.replace("%", "%%")))


def table(t: Target) -> Composable:
    return Identifier(t.schema, t.table)


def _column(t: Target, name: str) -> Composable:
    return Identifier(t.table, name)


def _type(name: str) -> Composable:
    """A type as `format_type` printed it: already quoted by the server."""
    return SQL(name.replace("%", "%%"))


def _join(parts: Iterable[Composable], by: LiteralString = ", ") -> Composed:
    return SQL(by).join(parts)


def text(t: Target) -> Composable:
    """The source text of a row; NULL or blank where there is none."""
    if t.text.expression is not None:
        return SQL("{}::text").format(_trusted(t.text.expression))
    columns = [SQL("{}::text").format(_column(t, name)) for name in t.text.columns]
    if len(columns) == 1:
        return columns[0]
    # nullif: an empty column leaves no empty line behind.
    kept = (SQL("nullif(btrim({}, {}), '')").format(c, Literal(BLANK)) for c in columns)
    return SQL("concat_ws(E'\\n', {})").format(_join(kept))


def has_text(t: Target) -> Composable:
    """True for a row whose text is worth sending; the same verdict as `text.blank` in Python."""
    source = text(t)
    if t.text.kind is TextKind.JSON:
        pattern = json.dumps(f"[^{BLANK}]")
        path = (
            f'$.** ? ((@.type() == "string" && @ like_regex {pattern})'
            ' || @.type() == "number" || @.type() == "boolean")'
        )
        return SQL("coalesce(jsonb_path_exists({}::jsonb, {}), false)").format(
            source, Literal(path)
        )
    return SQL("coalesce(btrim(left({0}, {2}), {1}) <> '' OR btrim({0}, {1}) <> '', false)").format(
        source, Literal(BLANK), Literal(_PREFIX)
    )


def pending(t: Target) -> Composable:
    """No vector, or one older than the row where the job tracks that."""
    missing = SQL("{} IS NULL").format(_column(t, t.vector_column))
    return SQL("({} OR {})").format(missing, stale(t)) if tracks_staleness(t) else missing


def tracks_staleness(t: Target) -> bool:
    return t.row_updated_at_column is not None and t.updated_at_column is not None


def stale(t: Target) -> Composable:
    """A vector without a time is taken as it is: nobody shall pay for adopting old vectors.

    The row's time is brought to the precision and the zone of the vector's: else a row that is
    stamped in the very transaction of the vector would be stale by a rounding.
    """
    if t.row_updated_at_column is None or t.updated_at_column is None:
        return SQL("false")
    changed = _column(t, t.row_updated_at_column)
    if _zoned(t.row_updated_at_type) != _zoned(t.updated_at_type):
        changed = SQL("({} AT TIME ZONE 'UTC')").format(changed)
    return SQL("coalesce({} IS NOT NULL AND {}::{} > {}, false)").format(
        _column(t, t.vector_column),
        changed,
        _type(t.updated_at_type),
        _column(t, t.updated_at_column),
    )


def _zoned(timestamp: str) -> bool:
    return timestamp.endswith("with time zone")


def where(t: Target) -> Composable:
    return _trusted(t.where) if t.where else SQL("true")


def eligible(t: Target) -> Composable:
    return SQL("{} AND {}").format(where(t), has_text(t))


def _keys_as_text(t: Target) -> Composed:
    return _join(SQL("{}::text").format(_column(t, k.name)) for k in t.key)


def _key_aliases(t: Target) -> list[Identifier]:
    return [Identifier(f"_em_k{i}") for i in range(len(t.key))]


def _key_columns(t: Target) -> Composed:
    return _join(_column(t, k.name) for k in t.key)


def page(t: Target, *, after: bool, force: bool) -> Composed:
    """The next rows in key order: key columns as text, then the source text.

    Parameters: the cursor's columns (when `after`), the most rows, the most bytes. The page ends
    behind the row that crosses the bytes, so that one page never outgrows memory by more than
    one text. The comparison and the order use the columns' own collation and so its index.
    """
    conditions = [eligible(t)]
    if not force:
        conditions.append(pending(t))
    if after:
        bounds = _join(SQL("%s::{}").format(_type(k.type)) for k in t.key)
        conditions.append(SQL("({}) > ({})").format(_key_columns(t), bounds))
    aliases = _key_aliases(t)
    named = _join(
        SQL("{}::text AS {}").format(_column(t, k.name), alias)
        for k, alias in zip(t.key, aliases, strict=True)
    )
    return SQL(
        "SELECT {keys}, _em_text FROM ("
        "SELECT *, row_number() OVER rows_so_far AS _em_n,"
        " sum(octet_length(_em_text)) OVER rows_so_far - octet_length(_em_text) AS _em_bytes"
        " FROM (SELECT {named}, {text} AS _em_text FROM {table} WHERE {conditions}"
        " ORDER BY {order} LIMIT %s) AS _em_page"
        " WINDOW rows_so_far AS (ROWS UNBOUNDED PRECEDING)"
        ") AS _em_sized WHERE _em_bytes < %s ORDER BY _em_n"
    ).format(
        keys=_join(aliases),
        named=named,
        text=text(t),
        table=table(t),
        conditions=_join(conditions, " AND "),
        order=_key_columns(t),
    )


def by_keys(t: Target) -> Composed:
    """The rows of given keys: key as text, source text, eligible?, pending?

    Parameters: one text[] for each key column.
    """
    given = _join(Placeholder() + SQL("::text[]") for _ in t.key)
    aliases = _key_aliases(t)
    typed = _join(
        SQL("{}::{}").format(alias, _type(k.type)) for k, alias in zip(t.key, aliases, strict=True)
    )
    return SQL(
        "SELECT {keys}, {text}, {eligible}, {pending} FROM {table} WHERE ({columns}) IN"
        " (SELECT {typed} FROM unnest({given}) AS _em_given({aliases})) ORDER BY {columns}"
    ).format(
        keys=_keys_as_text(t),
        text=text(t),
        eligible=eligible(t),
        pending=pending(t),
        table=table(t),
        columns=_key_columns(t),
        typed=typed,
        given=given,
        aliases=_join(aliases),
    )


def _matches(t: Target) -> Composed:
    return _join(
        (
            SQL("{} = _em_new.{}::{}").format(_column(t, k.name), alias, _type(k.type))
            for k, alias in zip(t.key, _key_aliases(t), strict=True)
        ),
        " AND ",
    )


def update(t: Target, *, force: bool) -> Composed:
    """Store vectors where the text is still the one embedded and the row still pending.

    Parameters, all binary: one text[] for each key column, bytea[] of SHA-256, vector[].
    Returns the keys written, and whether a trigger has made the row pending again.
    """
    assignments = [SQL("{} = _em_new._em_vector").format(Identifier(t.vector_column))]
    if t.updated_at_column:
        now = SQL("now()") if _zoned(t.updated_at_type) else SQL("now() AT TIME ZONE 'UTC'")
        assignments.append(SQL("{} = {}").format(Identifier(t.updated_at_column), now))
    guards: list[Composable] = [
        _matches(t),
        SQL("sha256(convert_to({}, 'UTF8')) = _em_new._em_digest").format(text(t)),
    ]
    if not force:
        guards.append(pending(t))
    given = _join(
        [
            *(SQL("%b::text[]") for _ in t.key),
            SQL("%b::bytea[]"),
            SQL("%b::{}[]").format(_type(t.vector_type_sql)),
        ]
    )
    names = _join([*_key_aliases(t), Identifier("_em_digest"), Identifier("_em_vector")])
    return SQL(
        "UPDATE {table} SET {assignments} FROM unnest({given}) AS _em_new({names})"
        " WHERE {guards} RETURNING {keys}, {pending}"
    ).format(
        table=table(t),
        assignments=_join(assignments),
        given=given,
        names=names,
        guards=_join(guards, " AND "),
        keys=_keys_as_text(t),
        pending=pending(t),
    )


def _of_given(t: Target) -> Composed:
    """The keys of the given rows, open for more conditions; parameters as `by_keys`."""
    given = _join(Placeholder() + SQL("::text[]") for _ in t.key)
    aliases = _key_aliases(t)
    typed = _join(
        SQL("{}::{}").format(alias, _type(k.type)) for k, alias in zip(t.key, aliases, strict=True)
    )
    return SQL(
        "SELECT {keys} FROM {table} WHERE ({columns}) IN"
        " (SELECT {typed} FROM unnest({given}) AS _em_given({aliases}))"
    ).format(
        keys=_keys_as_text(t),
        table=table(t),
        columns=_key_columns(t),
        typed=typed,
        given=given,
        aliases=_join(aliases),
    )


def unlocked(t: Target) -> Composed:
    """Lock those of the given rows that nobody else holds; their keys. Parameters as `by_keys`."""
    return _of_given(t) + SQL(" ORDER BY {} FOR NO KEY UPDATE SKIP LOCKED").format(_key_columns(t))


def still_pending(t: Target) -> Composed:
    """Those of the given rows that are pending; their keys. Parameters as `by_keys`."""
    return _of_given(t) + SQL(" AND {}").format(pending(t))


def counts(t: Target) -> Composed:
    """Rows in total, without text, with a vector, missing one, stale; within `--where`."""
    return SQL(
        "SELECT count(*),"
        " count(*) FILTER (WHERE NOT has_text),"
        " count(*) FILTER (WHERE has_text AND NOT pending),"
        " count(*) FILTER (WHERE has_text AND pending AND NOT stale),"
        " count(*) FILTER (WHERE has_text AND stale)"
        " FROM (SELECT {has_text} AS has_text, {pending} AS pending, {stale} AS stale"
        " FROM {table} WHERE {where}) AS _em_rows"
    ).format(
        has_text=has_text(t),
        pending=pending(t),
        stale=stale(t),
        table=table(t),
        where=where(t),
    )


def count_selected(t: Target, *, after: bool, force: bool) -> Composed:
    """Rows that a run would take: those behind the cursor count when they are pending."""
    taken: Composable = SQL("true") if force else pending(t)
    if force and after:
        bounds = _join(SQL("%s::{}").format(_type(k.type)) for k in t.key)
        taken = SQL("(({}) > ({}) OR {})").format(_key_columns(t), bounds, pending(t))
    return SQL("SELECT count(*) FROM {} WHERE {} AND {}").format(table(t), eligible(t), taken)


def sample(t: Target, *, force: bool, percent: float | None) -> Composed:
    """Source texts of about `percent` of the table's blocks, or of any first rows; parameter: most.

    Blocks and not rows: reading a thousand texts must not cost a scan of the table.
    """
    block = SQL(" TABLESAMPLE SYSTEM ({})").format(Literal(percent)) if percent else SQL("")
    taken: Composable = SQL("true") if force else pending(t)
    return SQL("SELECT {} FROM {}{} WHERE {} AND {} LIMIT %s").format(
        text(t), table(t), block, eligible(t), taken
    )


def transaction(*, statement_ms: int, lock_ms: int, read_only: bool = False) -> Composed:
    """Begin, with limits that end with the transaction: session state breaks behind a pooler."""
    return SQL("BEGIN{}; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}").format(
        SQL(" READ ONLY") if read_only else SQL(""),
        sql.Literal(statement_ms),
        sql.Literal(lock_ms),
    )


ESTIMATES = SQL(
    "WITH parts AS (SELECT c.oid, c.reltuples, c.relname, n.nspname FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND (c.oid = %s::bigint"
    " OR c.oid IN (SELECT relid FROM pg_partition_tree(%s::bigint::oid::regclass))))"
    " SELECT greatest(sum(reltuples), 0)::bigint, coalesce(sum(reltuples *"
    " coalesce(s.null_frac, 1)) / nullif(sum(reltuples), 0), 0)::float8"
    " FROM parts LEFT JOIN pg_stats s ON s.schemaname = nspname AND s.tablename = relname"
    " AND s.attname = %s"
)
"""Planner's rows, and fraction without a vector. Parameters: table oid twice, vector column."""


def cast_key(t: Target) -> Composed:
    return SQL("SELECT {}").format(_join(SQL("%s::{}").format(_type(k.type)) for k in t.key))
