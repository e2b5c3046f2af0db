"""A surveyed table → the settings of a job, with what a person should know about each choice."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from embedmigrate.app.values import Proposal
from embedmigrate.embedders.models import MODELS, PROFILES
from embedmigrate.postgres.survey import Column, Table

_USUAL = PROFILES["openai"].model or ""
_LARGE = "text-embedding-3-large"
_SHARED = "embedding_updated_at"
"""Stamped by any job that names no column of its own."""


def propose(tables: Iterable[Table], *, choose_model: bool) -> tuple[Proposal, ...]:
    """One job for each vector column; with a model of OpenAI's unless the operator has one."""
    pairs = [(table, column) for table in tables for column in table.vectors]
    names = _names(pairs)
    return tuple(
        _job(name, table, column, choose_model=choose_model)
        for name, (table, column) in zip(names, pairs, strict=True)
    )


def _job(name: str, table: Table, vector: Column, *, choose_model: bool) -> Proposal:
    settings: dict[str, Any] = {"table": table.setting}
    found: dict[str, str] = {}
    notes: list[str] = []
    problems: list[str] = []
    _key(table, settings, found, problems)
    _text(table, settings, found, notes, problems)
    settings["vector_column"] = vector.name
    indexes = f", {' and '.join(vector.indexes)} index" if vector.indexes else ""
    found["vector"] = f"{vector.name} {vector.type}{indexes}"
    _times(table, vector, settings, found, notes)
    if vector.dimensions < 1:
        why = "has no width: embedmigrate init --sql shows how to set one"
        problems.append(f"{vector.name} {why}")
    elif choose_model:
        _model(vector, settings, notes, problems)
    else:
        notes.append(f"the model in your settings has to give {vector.dimensions} dimensions")
    return Proposal(name, settings, found, tuple(notes), tuple(problems))


def _key(
    table: Table, settings: dict[str, Any], found: dict[str, str], problems: list[str]
) -> None:
    if not table.key:
        found["key"] = "none"
        problems.append("it has neither a primary key nor a unique index without NULLs")
        return
    found["key"] = ", ".join(table.key) + ("" if table.primary else " (a unique index)")
    if not table.primary:
        settings["key_column"] = list(table.key)


def _text(
    table: Table,
    settings: dict[str, Any],
    found: dict[str, str],
    notes: list[str],
    problems: list[str],
) -> None:
    if not table.texts:
        found["text"] = "none"
        problems.append("no column looks like text: set text_column or text_sql")
        return
    best, *others = table.texts
    settings["text_column"] = [best.name]
    found["text"] = f"{best.name} {best.type}"
    if others:
        listed = ", ".join(c.name for c in others[:5])
        found["text"] += f" (or {listed})"
        notes.append(f"text could also be: {listed}; several are joined, documents stand alone")


def _times(
    table: Table,
    vector: Column,
    settings: dict[str, Any],
    found: dict[str, str],
    notes: list[str],
) -> None:
    """Staleness is only proposed where two columns can be compared and no other job interferes."""
    stamp, changed = table.stamp(vector.name), table.changed
    if stamp is None:
        found["stamped"] = "no timestamp column"
        notes.append("no timestamp of its own for the vector; embedmigrate init --sql adds one")
        if table.column(_SHARED):
            notes.append(f"until then a run would stamp {_SHARED}, which is another vector's")
        return
    settings["updated_at_column"] = stamp.name
    found["stamped"] = stamp.name
    if changed is None:
        return
    line = f'row_updated_at_column = "{changed.name}"'
    if stamp.base != changed.base:
        notes.append(f"{line} would find stale vectors; but it is {changed.type}, not {stamp.type}")
    elif stamp.name == _SHARED and any(table.stamp(v.name) is None for v in table.vectors):
        notes.append(f"{line} would find stale vectors; but another job stamps {stamp.name} too")
    else:
        settings["row_updated_at_column"] = changed.name
        found["stale"] = f"where {changed.name} is later"
        if changed.base == "timestamp":
            notes.append(
                f"{changed.name} has no time zone: whoever writes it has to use the database's own"
            )


def _model(
    vector: Column,
    settings: dict[str, Any],
    notes: list[str],
    problems: list[str],
) -> None:
    """The model that fits the width; vectors that are there already may be of another."""
    width, usual = vector.dimensions, MODELS[_USUAL].dimensions
    if width == usual:
        return
    largest = MODELS[_LARGE].dimensions
    if width > largest:
        problems.append(f"no known model gives {width} dimensions: set model, and base_url")
        return
    if width > usual:
        settings["model"] = _LARGE
    if width not in {usual, largest}:
        settings["dimensions"] = width
    model = settings.get("model", _USUAL)
    asked = f"{model} shortened to {width} dimensions" if width < largest else model
    notes.append(f"{asked}: if the column holds vectors of another model, name that one")


def _names(pairs: list[tuple[Table, Column]]) -> list[str]:
    """Short and unique: the table, with its schema or the column where that is not enough."""
    tables = Counter(_plain(t.table) for t in {t.setting: t for t, _ in pairs}.values())
    found: list[str] = []
    for table, column in pairs:
        name = _plain(table.table)
        if tables[name] > 1:
            name = _plain(f"{table.schema}_{table.table}")
        if len(table.vectors) > 1 and column.name != "embedding":
            name = f"{name}_{_plain(column.name)}"
        numbered = (f"{name}_{n}" for n in range(2, len(pairs) + 2))
        found.append(next(n for n in (name, *numbered) if n not in found))
    return found


def _plain(name: str) -> str:
    """Good as an argument of a shell: no space, no quote, no dash in front."""
    return re.sub(r"[^\w-]+", "_", name).strip("-_") or "job"
