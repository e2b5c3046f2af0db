"""The statements over a side table: which rows may be copied into it, the copy, and the merge."""

from psycopg import sql
from psycopg.sql import SQL, Composable, Composed

from embedmigrate.postgres.pending import pending, rows, side_table
from embedmigrate.postgres.target import SideTable, Target
from embedmigrate.postgres.terms import (
    Identifier,
    column,
    digest,
    join,
    key_aliases,
    key_columns,
    literal,
    same_keys,
    table,
    type_name,
)

KEPT = ("model", "dimensions", "text_sha256", "embedded_at")
"""The columns beside the key and the vector, in the order of every statement."""


def new_among(t: Target) -> Composed:
    """How many of the given rows still have the text that was embedded, and no vector yet.

    And the server's time, in microseconds since the year 2000, as a timestamptz has it.
    Parameters, all binary: one text[] for each key column, bytea[] of SHA-256.
    """
    return SQL(
        "SELECT count(*), (extract(epoch FROM now()) * 1000000)::bigint - 946684800000000"
        " FROM unnest({given}) AS _em_new({names}) JOIN ({rows}) ON {same}"
        " WHERE {digest} = _em_new._em_digest AND _em_side._em_model IS NULL"
    ).format(
        given=join([*(SQL("%b::text[]") for _ in t.key), SQL("%b::bytea[]")]),
        names=join([*key_aliases(t), Identifier("_em_digest")]),
        rows=rows(t),
        same=same_keys(t),
        digest=digest(t),
    )


def copy(t: Target, side: SideTable) -> Composed:
    """Take binary rows; without parameters, so that a percent sign in a name stands for itself."""
    names = [*(k.name for k in t.key), t.vector_column, *KEPT]
    return SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(side.schema, side.table), join(map(sql.Identifier, names))
    )


def merge(t: Target, side: SideTable, *, force: bool) -> Composed:
    """Store vectors where the text is still the one embedded, over those that are stale.

    Parameters, all binary: one text[] for each key column, bytea[] of SHA-256, vector[].
    Returns the keys written.
    """
    guards: list[Composable] = [SQL("{} = _em_new._em_digest").format(digest(t))]
    replaced: Composable = SQL("true")
    if not force:
        guards.append(pending(t))
        # Against what is there by now: somebody may have stored it while this statement waited.
        replaced = SQL(
            "(_em_old.{0} IS NULL OR _em_old.text_sha256 IS DISTINCT FROM excluded.text_sha256"
            " OR _em_old.model IS DISTINCT FROM excluded.model)"
        ).format(Identifier(t.vector_column))
    written = [t.vector_column, *KEPT]
    return SQL(
        "INSERT INTO {side} AS _em_old ({columns})"
        " SELECT {keys}, _em_new._em_vector, {model}, {dimensions}, _em_new._em_digest, now()"
        " FROM unnest({given}) AS _em_new({names}) JOIN ({rows}) ON {same}"
        " WHERE {guards} ORDER BY {keys}"
        " ON CONFLICT ({conflict}) DO UPDATE SET {assignments} WHERE {replaced}"
        " RETURNING {returned}"
    ).format(
        side=side_table(side),
        columns=join(map(Identifier, [*(k.name for k in t.key), *written])),
        keys=key_columns(t),
        model=literal(side.model),
        dimensions=SQL(str(t.dimensions)),
        given=join(
            [
                *(SQL("%b::text[]") for _ in t.key),
                SQL("%b::bytea[]"),
                SQL("%b::{}[]").format(type_name(t.vector_type_sql)),
            ]
        ),
        names=join([*key_aliases(t), Identifier("_em_digest"), Identifier("_em_vector")]),
        rows=rows(t),
        same=same_keys(t),
        guards=join(guards, " AND "),
        conflict=join(Identifier(k.name) for k in t.key),
        assignments=join(SQL("{0} = excluded.{0}").format(Identifier(n)) for n in written),
        replaced=replaced,
        returned=join(SQL("_em_old.{}::text").format(Identifier(k.name)) for k in t.key),
    )


def orphans(t: Target, side: SideTable) -> Composed:
    """Rows of the side table whose row is gone: there are some where no foreign key takes them."""
    same = join(
        (SQL("{} = _em_side.{}").format(column(t, k.name), Identifier(k.name)) for k in t.key),
        " AND ",
    )
    return SQL(
        "SELECT count(*) FROM {} AS _em_side WHERE NOT EXISTS (SELECT FROM {} WHERE {})"
    ).format(side_table(side), table(t), same)
