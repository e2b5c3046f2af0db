"""Which rows are still to be done: those without a vector, and those whose vector is stale.

The one place that knows what a vector in the row itself and one in a side table have apart.
"""

from psycopg.sql import SQL, Composable

from embedmigrate.postgres.target import KeyColumn, SideTable, Target
from embedmigrate.postgres.terms import (
    Identifier,
    column,
    digest,
    join,
    literal,
    table,
    type_name,
    zoned,
)


def rows(t: Target, sampled: Composable | None = None) -> Composable:
    """What to select from: the table, and beside each row what its side table knows of it.

    The side table's columns go by names that no expression of the operator's can mean.
    """
    read = SQL("{}{}").format(table(t), sampled or SQL(""))
    if t.side is None:
        return read
    kept = [SQL("{} AS {}").format(Identifier(k.name), a) for k, a in _kept_keys(t)]
    same = [SQL("{} = _em_side.{}").format(column(t, k.name), alias) for k, alias in _kept_keys(t)]
    return SQL(
        "{read} LEFT JOIN (SELECT {kept}, text_sha256 AS _em_sha256, model AS _em_model"
        " FROM {side} WHERE {vector} IS NOT NULL) AS _em_side ON {same}"
    ).format(
        read=read,
        kept=join(kept),
        side=side_table(t.side),
        vector=Identifier(t.vector_column),
        same=join(same, " AND "),
    )


def side_table(side: SideTable) -> Composable:
    return Identifier(side.schema, side.table)


def pending(t: Target) -> Composable:
    """No vector, or a stale one where the job tracks that.

    One in a side table is stale by its own record: it is of another text, or of another model.
    """
    if t.side is not None:
        # The model first: it is NULL for a missing row, whose text then need not be hashed.
        return SQL(
            "(_em_side._em_model IS DISTINCT FROM {} OR _em_side._em_sha256 IS DISTINCT FROM {})"
        ).format(literal(t.side.model), digest(t))
    return SQL("({} OR {})").format(missing(t), _stale(t)) if t.tracks_staleness else missing(t)


def missing(t: Target) -> Composable:
    if t.side is not None:
        return SQL("_em_side.{} IS NULL").format(_kept_keys(t)[0][1])
    return SQL("{} IS NULL").format(column(t, t.vector_column))


def _stale(t: Target) -> Composable:
    """Older than the row, by their timestamps.

    A vector without a time is taken as it is: nobody shall pay for adopting old vectors.
    The row's time is brought to the precision and the zone of the vector's: else a row that is
    stamped in the very transaction of the vector would be stale by a rounding.
    """
    if t.row_updated_at_column is None or t.updated_at_column is None:
        return SQL("false")
    changed: Composable = column(t, t.row_updated_at_column)
    if zoned(t.row_updated_at_type) != zoned(t.updated_at_type):
        changed = SQL("({} AT TIME ZONE 'UTC')").format(changed)
    return SQL("coalesce({} IS NOT NULL AND {}::{} > {}, false)").format(
        column(t, t.vector_column),
        changed,
        type_name(t.updated_at_type),
        column(t, t.updated_at_column),
    )


def _kept_keys(t: Target) -> list[tuple[KeyColumn, Identifier]]:
    return [(k, Identifier(f"_em_s{i}")) for i, k in enumerate(t.key)]
