"""The terms that statements are made of: names, types, and what is true of one row of the table.

Identifiers pass through `psycopg.sql`. Two things are SQL by design and trusted like the rest of
the command line, `--text-sql` and `--where`: they enter in `trusted` only.
Columns are qualified by the table's own name, so that an expression may use that name as well.
"""

import json
from collections.abc import Iterable
from typing import LiteralString

from psycopg import abc, sql
from psycopg.sql import SQL, Composable, Composed, Literal

from embedmigrate.postgres.target import Target, TextKind
from embedmigrate.postgres.text import BLANK

_PREFIX = 64
"""Characters looked at before a whole text is: most texts are told from blank by their start."""


class Identifier(sql.Identifier):
    """A name in a statement with parameters, in which a bare percent sign would begin one."""

    def as_bytes(self, context: abc.AdaptContext | None = None) -> bytes:
        return super().as_bytes(context).replace(b"%", b"%%")


def trusted(text: str) -> Composable:
    # On lines of its own, so that a comment at its end cannot swallow what follows.
    return SQL("(\n{}\n)").format(SQL(text.replace("%", "%%")))


def literal(value: str) -> Composable:
    """A string in a statement with parameters."""
    return SQL(Literal(value).as_string(None).replace("%", "%%"))


def table(t: Target) -> Composable:
    return Identifier(t.schema, t.table)


def column(t: Target, name: str) -> Composable:
    return Identifier(t.table, name)


def type_name(name: str) -> Composable:
    """A type as `format_type` printed it: already quoted by the server."""
    return SQL(name.replace("%", "%%"))


def join(parts: Iterable[Composable], by: LiteralString = ", ") -> Composed:
    return SQL(by).join(parts)


def text(t: Target) -> Composable:
    """The source text of a row; NULL or blank where there is none."""
    if t.text.expression is not None:
        return SQL("{}::text").format(trusted(t.text.expression))
    columns = [SQL("{}::text").format(column(t, name)) for name in t.text.columns]
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


def where(t: Target) -> Composable:
    return trusted(t.where) if t.where else SQL("true")


def eligible(t: Target) -> Composable:
    return SQL("{} AND {}").format(where(t), has_text(t))


def keys_as_text(t: Target) -> Composed:
    return join(SQL("{}::text").format(column(t, k.name)) for k in t.key)


def key_aliases(t: Target) -> list[Identifier]:
    return [Identifier(f"_em_k{i}") for i in range(len(t.key))]


def key_columns(t: Target) -> Composed:
    return join(column(t, k.name) for k in t.key)


def digest(t: Target) -> Composable:
    """The SHA-256 of a row's source text, as `Row.digest` has it."""
    return SQL("sha256(convert_to({}, 'UTF8'))").format(text(t))


def same_keys(t: Target) -> Composed:
    """A condition: the row is the one that `_em_new` names by its key as text."""
    return join(
        (
            SQL("{} = _em_new.{}::{}").format(column(t, k.name), alias, type_name(k.type))
            for k, alias in zip(t.key, key_aliases(t), strict=True)
        ),
        " AND ",
    )


def zoned(timestamp: str) -> bool:
    return timestamp.endswith("with time zone")
