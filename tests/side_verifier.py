"""Looks at a side table after a run, with code of its own: it asks the tool about nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString

import numpy as np
from psycopg import sql

from tests.provider import vector_of
from tests.verifier import FORMATS, visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from psycopg import Connection
    from psycopg.rows import TupleRow

Id = str


@dataclass(frozen=True)
class Kept:
    """One row of the side table."""

    vector: NDArray[np.float32]
    model: str
    dimensions: int
    sha256: bytes


@dataclass
class SideVerifier:
    """Takes a picture of the source when it is made, to the place and the version of each row.

    Attributes:
        key: Its columns, which both tables have.
        kind: The type of the vectors.
    """

    session: Connection[TupleRow]
    key: tuple[str, ...] = ("id",)
    source: str = "articles"
    side: str = "article_vectors"
    kind: LiteralString = "vector"
    pictures: dict[Id, str] = field(init=False)

    def __post_init__(self) -> None:
        self.pictures = self._pictures()

    def check(self, sent: Iterable[str], *, model: str = "text-embedding-3-small") -> None:
        """Every vector right, with its provenance; none missing, stale or left over."""
        assert self.wrong(sent, model) == []
        assert self.missing() == []
        assert self.stale() == []
        assert self.orphaned() == []

    def wrong(self, sent: Iterable[str], model: str = "text-embedding-3-small") -> list[Id]:
        """I1: vectors that are not of the text with their hash, or say something else untrue."""
        texts = {_sha256(text): text for text in sent}
        return [
            key
            for key, kept in self.kept().items()
            if kept.sha256 not in texts
            or not self._same(kept.vector, texts[kept.sha256])
            or (kept.model, kept.dimensions) != (model, kept.vector.size)
        ]

    def missing(self) -> list[Id]:
        """I2: rows with a text worth sending and without a vector."""
        return sorted(self.texts().keys() - self.kept().keys())

    def stale(self) -> list[Id]:
        """I2: rows whose vector is of another text than they have now."""
        texts = self.texts()
        return sorted(
            key
            for key, kept in self.kept().items()
            if key in texts and _sha256(texts[key]) != kept.sha256
        )

    def outdated_when_written(self) -> list[Id]:
        """I1: vectors of a text that was edited before their transaction began.

        Whoever edits has to set `seen` to infinity in the edit, and to the time afterwards: the
        commit is then before `seen`, and a vector that is younger cannot be of the text before.
        """
        columns = sql.SQL(" AND ").join(
            sql.SQL("v.{0} = s.{0}").format(sql.Identifier(name)) for name in self.key
        )
        found = self._fetch(
            "SELECT {key} FROM (SELECT s.* FROM {source} s JOIN {side} v ON {same}"
            " WHERE v.text_sha256 <> sha256(convert_to(s.body, 'UTF8'))"
            " AND v.embedded_at > s.seen) AS late",
            same=columns,
        )
        return [key for (key,) in found]

    def orphaned(self) -> list[Id]:
        """Vectors whose row is gone."""
        return sorted(self.kept().keys() - self._pictures().keys())

    def touched(self) -> list[Id]:
        """I3: rows of the source that came, went, moved, or were written again."""
        now = self._pictures()
        every = self.pictures.keys() | now.keys()
        return sorted(key for key in every if self.pictures.get(key) != now.get(key))

    def texts(self) -> dict[Id, str]:
        """What is worth sending, by key."""
        found = self._fetch("SELECT {key}, body FROM {source}")
        return {key: text for key, text in found if text and visible(text)}

    def kept(self) -> dict[Id, Kept]:
        """What the side table holds."""
        found = self._fetch(
            "SELECT {key}, {send}(embedding), model, dimensions, text_sha256 FROM {side}"
        )
        return {
            key: Kept(
                np.frombuffer(raw, FORMATS[self.kind], offset=4).astype(np.float32),
                model,
                dimensions,
                bytes(digest),
            )
            for key, raw, model, dimensions, digest in found
        }

    def _same(self, vector: NDArray[np.float32], text: str) -> bool:
        wanted = vector_of(text, vector.size)
        if self.kind == "halfvec":
            return bool(np.allclose(vector, wanted, rtol=1e-3, atol=1e-6))
        return bool(np.array_equal(vector, wanted))

    def _pictures(self) -> dict[Id, str]:
        found = self._fetch("SELECT {key}, concat_ws(' ', ctid, xmin, s.*::text) FROM {source} s")
        return dict(found)

    def _fetch(self, query: LiteralString, **more: sql.Composable) -> list[Any]:
        columns = [sql.SQL("{}::text").format(sql.Identifier(name)) for name in self.key]
        whole = sql.SQL(query).format(
            key=sql.SQL("concat_ws(',', {})").format(sql.SQL(", ").join(columns)),
            send=sql.SQL(f"{self.kind}_send"),
            source=sql.Identifier(self.source),
            side=sql.Identifier(self.side),
            **more,
        )
        return self.session.execute(whole, binary=True).fetchall()


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
