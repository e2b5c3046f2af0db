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
_IDLE_MS = 10_000
"""Between two statements of one transaction; ours follow each other at once."""


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


def type_name(name: str) -> Composable:
    """A type as `format_type` printed it: already quoted by the server."""
    return SQL(name.replace("%", "%%"))


def join(parts: Iterable[Composable], by: LiteralString = ", ") -> Composed:
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
    return SQL("concat_ws(E'\\n', {})").format(join(kept))


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
        type_name(t.updated_at_type),
        _column(t, t.updated_at_column),
    )


def _zoned(timestamp: str) -> bool:
    return timestamp.endswith("with time zone")


def where(t: Target) -> Composable:
    return _trusted(t.where) if t.where else SQL("true")


def eligible(t: Target) -> Composable:
    return SQL("{} AND {}").format(where(t), has_text(t))


def _keys_as_text(t: Target) -> Composed:
    return join(SQL("{}::text").format(_column(t, k.name)) for k in t.key)


def _key_aliases(t: Target) -> list[Identifier]:
    return [Identifier(f"_em_k{i}") for i in range(len(t.key))]


def key_columns(t: Target) -> Composed:
    return join(_column(t, k.name) for k in t.key)


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
    aliases = _key_aliases(t)
    named = join(
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
        keys=join(aliases),
        named=named,
        text=text(t),
        table=table(t),
        conditions=join(conditions, " AND "),
        order=key_columns(t),
    )


def _among_given(t: Target) -> Composed:
    """A condition: the row's key is one of those given. Parameters: one text[] a key column."""
    aliases = _key_aliases(t)
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
        _keys_as_text(t),
        text(t),
        eligible(t),
        pending(t),
        table(t),
        _among_given(t),
        key_columns(t),
    )


def _matches(t: Target) -> Composed:
    return join(
        (
            SQL("{} = _em_new.{}::{}").format(_column(t, k.name), alias, type_name(k.type))
            for k, alias in zip(t.key, _key_aliases(t), strict=True)
        ),
        " AND ",
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
        vector.format(Identifier(t.vector_column), _column(t, t.vector_column))
    ]
    if t.updated_at_column:
        now = SQL("now()") if _zoned(t.updated_at_type) else SQL("now() AT TIME ZONE 'UTC'")
        assignments.append(SQL("{} = {}").format(Identifier(t.updated_at_column), now))
    digest = SQL("sha256(convert_to({}, 'UTF8'))").format(text(t))
    guards: list[Composable] = [_matches(t), SQL("{} = _em_new._em_digest").format(digest)]
    if not force:
        guards.append(pending(t))
    given = join(
        [
            *(SQL("%b::text[]") for _ in t.key),
            SQL("%b::bytea[]"),
            SQL("%b::{}[]").format(type_name(t.vector_type_sql)),
        ]
    )
    names = join([*_key_aliases(t), Identifier("_em_digest"), Identifier("_em_vector")])
    return SQL(
        "UPDATE {table} SET {assignments} FROM unnest({given}) AS _em_new({names})"
        " WHERE {guards} RETURNING {keys}, {pending}, {digest} IS DISTINCT FROM _em_new._em_digest"
    ).format(
        table=table(t),
        assignments=join(assignments),
        given=given,
        names=names,
        guards=join(guards, " AND "),
        keys=_keys_as_text(t),
        pending=pending(t),
        digest=digest,
    )


def unlocked(t: Target) -> Composed:
    """Lock those of the given rows that nobody else holds; their keys. Parameters as `by_keys`."""
    return SQL("SELECT {} FROM {} WHERE {} ORDER BY {} FOR NO KEY UPDATE SKIP LOCKED").format(
        _keys_as_text(t), table(t), _among_given(t), key_columns(t)
    )


def still_pending(t: Target) -> Composed:
    """Those of the given rows that are pending; their keys. Parameters as `by_keys`."""
    return SQL("SELECT {} FROM {} WHERE {} AND {}").format(
        _keys_as_text(t), table(t), _among_given(t), pending(t)
    )


def transaction(*, statement_ms: int, lock_ms: int, read_only: bool = False) -> Composed:
    """Begin, with limits that end with the transaction: session state breaks behind a pooler.

    One that we lose in the middle must not keep its rows locked until TCP gives up, in two hours.
    """
    return SQL(
        "BEGIN{}; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {};"
        " SET LOCAL idle_in_transaction_session_timeout = {}"
    ).format(
        SQL(" READ ONLY") if read_only else SQL(""),
        sql.Literal(statement_ms),
        sql.Literal(lock_ms),
        sql.Literal(_IDLE_MS),
    )


def cast_key(t: Target) -> Composed:
    return SQL("SELECT {}").format(join(SQL("%s::{}").format(type_name(k.type)) for k in t.key))
