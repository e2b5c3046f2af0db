"""The statements that count and sample: for plans, for coverage, for what is left."""

from psycopg.sql import SQL, Composable, Composed, Literal

from embedmigrate.postgres.pending import missing, pending, rows
from embedmigrate.postgres.target import Target
from embedmigrate.postgres.terms import (
    digest,
    eligible,
    has_text,
    join,
    key_columns,
    text,
    type_name,
    where,
)


def counts(t: Target) -> Composed:
    """Rows in total, without text, with a vector, missing one, stale; within `--where`.

    OFFSET keeps the planner from evaluating a row's text and its hash once for each count.
    """
    return SQL(
        "SELECT count(*),"
        " count(*) FILTER (WHERE NOT has_text),"
        " count(*) FILTER (WHERE has_text AND NOT pending),"
        " count(*) FILTER (WHERE has_text AND missing),"
        " count(*) FILTER (WHERE has_text AND pending AND NOT missing)"
        " FROM (SELECT {has_text} AS has_text, {pending} AS pending, {missing} AS missing"
        " FROM {rows} WHERE {where} OFFSET 0) AS _em_rows"
    ).format(
        has_text=has_text(t),
        pending=pending(t),
        missing=missing(t),
        rows=rows(t),
        where=where(t),
    )


def count_selected(t: Target, *, after: bool, force: bool) -> Composed:
    """Rows that a run would take: those behind the cursor count when they are pending."""
    taken: Composable = SQL("true") if force else pending(t)
    if force and after:
        bounds = join(SQL("%s::{}").format(type_name(k.type)) for k in t.key)
        taken = SQL("(({}) > ({}) OR {})").format(key_columns(t), bounds, pending(t))
    return SQL("SELECT count(*) FROM {} WHERE {} AND {}").format(rows(t), eligible(t), taken)


def repeated(t: Target, *, force: bool) -> Composed:
    """Rows that a run would take and whose text another of them has: all but the first."""
    taken: Composable = SQL("true") if force else pending(t)
    return SQL("SELECT count(*) - count(DISTINCT {}) FROM {} WHERE {} AND {}").format(
        digest(t), rows(t), eligible(t), taken
    )


def sample(t: Target, *, force: bool, percent: float | None) -> Composed:
    """Source texts of about `percent` of the table's blocks, or of any first rows; parameter: most.

    Blocks and not rows: reading a thousand texts must not cost a scan of the table.
    """
    block = SQL(" TABLESAMPLE SYSTEM ({})").format(Literal(percent)) if percent else SQL("")
    taken: Composable = SQL("true") if force else pending(t)
    return SQL("SELECT {} FROM {} WHERE {} AND {} LIMIT %s").format(
        text(t), rows(t, block), eligible(t), taken
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
"""Planner's rows, and fraction without a vector. Parameters: table oid twice, vector column.

Of a side table both are its own: its rows, and those without a vector."""
