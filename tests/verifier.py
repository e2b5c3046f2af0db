"""Looks at a table after a run, with code of its own: it asks the tool about nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString

import numpy as np
from psycopg import sql

from tests.provider import vector_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from numpy.typing import NDArray
    from psycopg import Connection
    from psycopg.rows import TupleRow

INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
FORMATS = {"vector": ">f4", "halfvec": ">f2"}
Id = Any


@dataclass(frozen=True)
class Rows:
    """How to read the table under test.

    Attributes:
        key: Its columns.
        text: SQL for the text of a row.
        document: Whether that is JSON, which is embedded as readable lines.
        ours: The columns that a run may change.
        where: SQL for the rows that a run shall take.
        sent: What is embedded instead of the whole text.
    """

    table: tuple[str, ...] = ("articles",)
    key: tuple[str, ...] = ("id",)
    text: LiteralString = "body"
    column: str = "embedding"
    kind: LiteralString = "vector"
    document: bool = False
    ours: tuple[str, ...] = ("embedding",)
    where: LiteralString = "true"
    sent: Callable[[str], str] = field(default=lambda text: text)


@dataclass
class Verifier:
    """Takes a picture of everything else in the table when it is made."""

    session: Connection[TupleRow]
    rows: Rows = field(default_factory=Rows)
    others: dict[Id, str] = field(init=False)

    def __post_init__(self) -> None:
        self.others = self._others()

    def check(self, *, without: Collection[Id] = ()) -> None:
        """All three: right vectors, none missing but those named, nothing else touched."""
        assert self.wrong() == []
        assert sorted(self.missing()) == sorted(without)
        assert self.touched() == []

    def wrong(self) -> list[Id]:
        """I1: rows whose vector is not the one of the text that is in the row now."""
        return [
            key
            for key, text, vector in self._read()
            if vector is not None and not (text and self._same(vector, text))
        ]

    def missing(self) -> list[Id]:
        """I2: rows with a text worth sending and without a vector."""
        return [key for key, text, vector in self._read() if text and vector is None]

    def embedded(self) -> list[Id]:
        """Rows with a vector, right or wrong."""
        return [key for key, _, vector in self._read() if vector is not None]

    def texts(self) -> Mapping[Id, str]:
        """What should have been sent for each row that has something to send."""
        return {key: text for key, text, _ in self._read() if text}

    def touched(self) -> list[Id]:
        """I3: rows that came, went, or changed in a column that is not the run's to change."""
        now = self._others()
        every = self.others.keys() | now.keys()
        return [key for key in every if self.others.get(key) != now.get(key)]

    def _same(self, vector: NDArray[np.float32], text: str) -> bool:
        wanted = vector_of(text, vector.size)
        if self.rows.kind == "halfvec":
            return bool(np.allclose(vector, wanted, rtol=1e-3, atol=1e-6))
        return bool(np.array_equal(vector, wanted))

    def _read(self) -> list[tuple[Id, str, NDArray[np.float32] | None]]:
        r = self.rows
        found = self._fetch(
            sql.SQL(
                "SELECT {key}, ({where}), ({text})::text, {send}({column}) FROM {table}"
            ).format(
                key=self._key(),
                where=sql.SQL(r.where),
                text=sql.SQL(r.text),
                send=sql.SQL(f"{r.kind}_send"),  # the type's binary form, dimensions first
                column=sql.Identifier(r.column),
                table=sql.Identifier(*r.table),
            )
        )
        return [
            (key, self._text(text) if taken else "", _vector(raw, r.kind))
            for key, taken, text, raw in found
        ]

    def _text(self, source: str | None) -> str:
        if source is None:
            return ""
        text = rendered(source) if self.rows.document else source
        return self.rows.sent(text) if visible(text) else ""

    def _others(self) -> dict[Id, str]:
        r = self.rows
        table = sql.Identifier(*r.table)
        cursor = self.session.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(table))
        names = [column.name for column in cursor.description or () if column.name not in r.ours]
        found = self._fetch(
            sql.SQL("SELECT {key}, md5(row({others})::text) FROM {table}").format(
                key=self._key(), others=sql.SQL(", ").join(map(sql.Identifier, names)), table=table
            )
        )
        return dict(found)

    def _key(self) -> sql.Composable:
        columns = [sql.SQL("{}::text").format(sql.Identifier(name)) for name in self.rows.key]
        if len(columns) == 1:
            return columns[0]
        return sql.SQL("concat_ws(',', {})").format(sql.SQL(", ").join(columns))

    def _fetch(self, query: sql.Composed) -> list[Any]:
        return self.session.execute(query, binary=True).fetchall()


def visible(text: str) -> bool:
    """Whether anything of it could be seen on paper."""
    return any(not (c.isspace() or c in INVISIBLE) for c in text)


def rendered(document: str) -> str:
    """A JSON document as lines `where: what`, as docs/ promise it."""
    lines: list[str] = []
    _render(json.loads(document, parse_float=str, parse_int=str), [], lines)
    return "\n".join(lines)


def _render(value: Any, path: list[str], lines: list[str]) -> None:
    head = " ".join(part for part in path if part)
    if isinstance(value, dict):
        for name in value:
            _render(value[name], [*path, name], lines)
        return
    if isinstance(value, list):
        flat = [_word(v) for v in value if not isinstance(v, (dict, list))]
        if any(flat):
            lines.append((f"{head}: " if head else "") + ", ".join(filter(None, flat)))
        for inner in value:
            if isinstance(inner, (dict, list)):
                _render(inner, path, lines)
        return
    if word := _word(value):
        lines.append((f"{head}: " if head else "") + word)


def _word(value: Any) -> str:
    if value is None:
        return ""
    if value is True or value is False:
        return "true" if value else "false"
    text = str(value)
    while text and not visible(text[0]):
        text = text[1:]
    while text and not visible(text[-1]):
        text = text[:-1]
    return text


def _vector(raw: bytes | None, kind: str) -> NDArray[np.float32] | None:
    if raw is None:
        return None
    return np.frombuffer(raw, FORMATS[kind], offset=4).astype(np.float32)
