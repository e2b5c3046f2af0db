"""The mark: the fastest pipeline known, with no safety at all. bare.py DATABASE PROVIDER B C."""

import asyncio
import base64
import sys
from typing import Any, LiteralString, cast

import httpx2
import numpy as np
import orjson
import psycopg
from psycopg import adapt, pq

DSN, PROVIDER, BATCH, CONCURRENCY = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
PAGE: LiteralString = (
    "SELECT key, body FROM resumes WHERE embedding IS NULL AND key > %s ORDER BY key LIMIT %s"
)
TYPE: LiteralString = (
    "SELECT format_type(atttypid, NULL), atttypid::int FROM pg_attribute"
    " WHERE attrelid = 'resumes'::regclass AND attname = 'embedding'"
)
UPDATE: LiteralString = (
    "UPDATE resumes SET embedding = n.v FROM unnest(%b::text[], %b::{}[]) AS n(k, v) WHERE key = k"
)
Session = psycopg.AsyncConnection[Any]
Queue = asyncio.Queue[Any]


class Raw(bytes):
    """A binary parameter that is ready to send."""


class RawDumper(adapt.Dumper):
    format, oid = pq.Format.BINARY, 0

    def dump(self, obj: Raw) -> bytes:
        return bytes(obj)


def vectors_of(reply: bytes, kind: str, oid: int) -> Raw:
    found = orjson.loads(reply)["data"]
    rows = [np.frombuffer(base64.b64decode(d["embedding"]), "<f4") for d in found]
    width, component = rows[0].size, ">f4" if kind == "vector" else ">f2"
    layout = [("size", ">i4"), ("width", ">i2"), ("zero", ">i2"), ("v", component, (width,))]
    array = np.zeros(len(rows), np.dtype(layout))
    array["size"], array["width"], array["v"] = array.itemsize - 4, width, rows
    return Raw(np.array([1, 0, oid, len(rows), 1], ">u4").tobytes() + array.tobytes())


async def connect() -> Session:
    connection = await psycopg.AsyncConnection.connect(DSN, autocommit=True)
    connection.adapters.register_dumper(Raw, RawDumper)
    return connection


async def read(connection: Session, pages: Queue) -> None:
    last = ""
    while page := await (await connection.execute(PAGE, (last, BATCH))).fetchall():
        await pages.put(page)
        last = page[-1][0]
    for _ in range(CONCURRENCY):
        await pages.put(None)


async def ask(
    client: httpx2.AsyncClient, pages: Queue, answers: Queue, kind: str, oid: int
) -> None:
    while page := await pages.get():
        body = {"model": "m", "input": [text for _, text in page], "encoding_format": "base64"}
        reply = await client.post("/v1/embeddings", content=orjson.dumps(body))
        reply.raise_for_status()
        await answers.put(([key for key, _ in page], vectors_of(reply.content, kind, oid)))


async def write(connection: Session, answers: Queue, statement: LiteralString) -> None:
    while answer := await answers.get():
        await connection.execute(statement, answer)


async def main() -> None:
    reader, *writers = [await connect() for _ in range(3)]
    kind, oid = cast("tuple[LiteralString, int]", await (await reader.execute(TYPE)).fetchone())
    pages, answers = Queue(CONCURRENCY), Queue(4)
    async with httpx2.AsyncClient(base_url=PROVIDER, timeout=60) as client:
        writing = [asyncio.create_task(write(w, answers, UPDATE.format(kind))) for w in writers]
        asking = (ask(client, pages, answers, kind, oid) for _ in range(CONCURRENCY))
        await asyncio.gather(read(reader, pages), *asking)
        for _ in writers:
            await answers.put(None)
        await asyncio.gather(*writing)


asyncio.run(main())
