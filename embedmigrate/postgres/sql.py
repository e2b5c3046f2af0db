"""The statements that read a table and fill a column of it: a target → composed SQL."""

import functools

from psycopg import sql
from psycopg.sql import SQL, Composable, Composed, Placeholder

from embedmigrate.postgres.pending import pending, rows
from embedmigrate.postgres.target import Target
from embedmigrate.postgres.terms import (
    Identifier,
    column,
    digest,
    eligible,
    join,
    key_aliases,
    key_columns,
    keys_as_text,
    same_keys,
    table,
    text,
    type_name,
    unchanged,
    zoned,
)

_IDLE_MS = 10_000
"""Between two statements of one transaction; ours follow each other at once."""


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
        bounds = join(SQL("%s::{}").format(type_name(k.type)) for k in t.key)
        conditions.append(SQL("({}) > ({})").format(key_columns(t), bounds))
    aliases = key_aliases(t)
    named = join(
        SQL("{}::text AS {}").format(column(t, k.name), alias)
        for k, alias in zip(t.key, aliases, strict=True)
    )
    return SQL(
        "SELECT {keys}, _em_text FROM ("
        "SELECT *, row_number() OVER rows_so_far AS _em_n,"
        " sum(octet_length(_em_text)) OVER rows_so_far - octet_length(_em_text) AS _em_bytes"
        " FROM (SELECT {named}, {text} AS _em_text FROM {rows} WHERE {conditions}"
        " ORDER BY {order} LIMIT %s) AS _em_page"
        " WINDOW rows_so_far AS (ROWS UNBOUNDED PRECEDING)"
        ") AS _em_sized WHERE _em_bytes < %s ORDER BY _em_n"
    ).format(
        keys=join(aliases),
        named=named,
        text=text(t),
        rows=rows(t),
        conditions=join(conditions, " AND "),
        order=key_columns(t),
    )


def _among_given(t: Target) -> Composed:
    """A condition: the row's key is one of those given. Parameters: one text[] a key column."""
    aliases = key_aliases(t)
    typed = join(
        SQL("{}::{}").format(alias, type_name(k.type))
        for k, alias in zip(t.key, aliases, strict=True)
    )
    return SQL("({}) IN (SELECT {} FROM unnest({}) AS _em_given({}))").format(
        key_columns(t),
        typed,
        join(Placeholder() + SQL("::text[]") for _ in t.key),
        join(aliases),
    )


def by_keys(t: Target) -> Composed:
    """The rows of given keys: key as text, source text, eligible?, pending?

    Parameters: one text[] for each key column.
    """
    return SQL("SELECT {}, {}, {}, {} FROM {} WHERE {} ORDER BY {}").format(
        keys_as_text(t),
        text(t),
        eligible(t),
        pending(t),
        rows(t),
        _among_given(t),
        key_columns(t),
    )


def update(t: Target, *, force: bool) -> Composed:
    """Store vectors where the text is still the one embedded and the row still pending.

    Parameters, all binary: one text[] for each key column, bytea[] of SHA-256, vector[].
    Returns the keys written, whether a trigger has made the row pending again, and whether one
    has given it another text.
    """
    # coalesce: a column that has become text would take a vector, but is not of one type with it.
    vector = SQL("{} = coalesce(_em_new._em_vector, {})")
    assignments: list[Composable] = [
        vector.format(Identifier(t.vector_column), column(t, t.vector_column))
    ]
    if t.updated_at_column:
        now = SQL("now()") if zoned(t.updated_at_type) else SQL("now() AT TIME ZONE 'UTC'")
        assignments.append(SQL("{} = {}").format(Identifier(t.updated_at_column), now))
    guards: list[Composable] = [same_keys(t), unchanged(t)]
    if not force:
        guards.append(pending(t))
    given = join(
        [
            *(SQL("%b::text[]") for _ in t.key),
            SQL("%b::bytea[]"),
            SQL("%b::{}[]").format(type_name(t.vector_type_sql)),
        ]
    )
    names = join([*key_aliases(t), Identifier("_em_digest"), Identifier("_em_vector")])
    return SQL(
        "UPDATE {table} SET {assignments} FROM unnest({given}) AS _em_new({names})"
        " WHERE {guards} RETURNING {keys}, {pending}, {edited}"
    ).format(
        table=table(t),
        assignments=join(assignments),
        given=given,
        names=names,
        guards=join(guards, " AND "),
        keys=keys_as_text(t),
        pending=pending(t),
        edited=_edited(t),
    )


def _edited(t: Target) -> Composed:
    """Whether the update has given the row another text.

    Where the text is stored only a trigger before the update can do that, and the text is made
    and hashed once more only where there is one: that is a quarter of the server's work on a row.
    The catalog is asked in the statement itself, under the lock that keeps new triggers out;
    tableoid is the partition, which may have triggers of its own.
    """
    edited = SQL("{} IS DISTINCT FROM _em_new._em_digest").format(digest(t))
    if not t.text.stored:
        return edited
    return SQL(
        "CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_trigger AS _em_trigger"
        " WHERE _em_trigger.tgrelid = {table}.tableoid AND NOT _em_trigger.tgisinternal"
        " AND _em_trigger.tgtype & 2 = 2) THEN {edited} ELSE false END"
    ).format(table=table(t), edited=edited)


def unlocked(t: Target) -> Composed:
    """Lock those of the given rows that nobody else holds; their keys. Parameters as `by_keys`."""
    return SQL("SELECT {} FROM {} WHERE {} ORDER BY {} FOR NO KEY UPDATE SKIP LOCKED").format(
        keys_as_text(t), table(t), _among_given(t), key_columns(t)
    )


def still_pending(t: Target) -> Composed:
    """Those of the given rows that are pending; their keys. Parameters as `by_keys`."""
    return SQL("SELECT {} FROM {} WHERE {} AND {}").format(
        keys_as_text(t), table(t), _among_given(t), pending(t)
    )


@functools.cache
def transaction(*, statement_ms: int, lock_ms: int, read_only: bool = False) -> bytes:
    """Begin, with limits that end with the transaction: session state breaks behind a pooler.

    One that we lose in the middle must not keep its rows locked until TCP gives up, in two hours.
    """
    return (
        SQL(
            "BEGIN{}; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {};"
            " SET LOCAL idle_in_transaction_session_timeout = {}"
        )
        .format(
            SQL(" READ ONLY") if read_only else SQL(""),
            sql.Literal(statement_ms),
            sql.Literal(lock_ms),
            sql.Literal(_IDLE_MS),
        )
        .as_bytes(None)
    )


def cast_key(t: Target) -> Composed:
    return SQL("SELECT {}").format(join(SQL("%s::{}").format(type_name(k.type)) for k in t.key))
