"""The name of a job's files, from its settings alone: `status` must not ask the database."""

import hashlib
import re
from urllib.parse import parse_qsl, quote, unquote

_LONGEST = 180
_WORD = re.compile(r"(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s']\S*)")


def job_name(url: str, table: str, column: str) -> str:
    """`database-xxxxxx.schema.table.column`: readable, and apart for two servers' same names.

    Args:
        url: As the settings hold it: a URL, keyword words, or embedded:PATH.
        table: As the operator names it; without a schema, `public` is meant.
        column: The vector column.
    """
    database, server = _place(url.strip())
    tag = hashlib.sha256(server.encode()).hexdigest()[:6]
    name = quote(f"{database}-{tag}.{qualified(table)}.{column}", safe=" $-_.").replace("%", "_")
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return name


def vector_place(table: str, column: str, side_table: str | None) -> str:
    """What `job_name` takes for the column; a side table's, in the same schema, looks like none."""
    if not side_table:
        return column
    plain = side_table.replace('"', "")
    schema = qualified(table).partition(".")[0]
    return f"{plain if '.' in plain else f'{schema}.{plain}'}~{column}"


def qualified(table: str) -> str:
    """With its schema, and without the quotes that a name may be given in."""
    plain = table.replace('"', "")
    return plain if "." in plain else f"public.{plain}"


def _place(url: str) -> tuple[str, str]:
    """The database's name, and what tells its server from others."""
    if url.startswith("embedded:"):
        return "embedded", url
    words = _of_url(url) if "://" in url else _of_words(url)
    database = words.get("dbname") or words.get("service") or words.get("user") or "default"
    return database, "|".join(words.get(k, "") for k in ("host", "hostaddr", "port", "service"))


def _of_url(url: str) -> dict[str, str]:
    # Not by urlsplit: it refuses the lists of hosts and ports that libpq takes.
    rest, _, query = url.partition("://")[2].partition("?")
    user, _, place = rest.rpartition("@")
    places, _, database = place.partition("/")
    pairs = [re.fullmatch(r"(\[.*\]|[^:]*):?(.*)", one, re.DOTALL) for one in places.split(",")]
    found = {
        "host": unquote(",".join(pair[1].strip("[]") for pair in pairs if pair)),
        "port": ",".join(pair[2] for pair in pairs if pair).strip(","),
        "user": unquote(user.partition(":")[0]),
        "dbname": unquote(database),
    }
    found |= dict(parse_qsl(query))
    return {key: value for key, value in found.items() if value}


def _of_words(words: str) -> dict[str, str]:
    return {
        key: re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith("'") else value
        for key, value in _WORD.findall(words)
    }
