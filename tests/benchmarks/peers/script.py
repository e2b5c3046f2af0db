"""What a competent developer writes in an hour. script.py DATABASE PROVIDER BATCH CONCURRENCY."""

import asyncio
import sys
from typing import Any

import numpy as np
import psycopg
from openai import AsyncOpenAI
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector_async

DSN, PROVIDER, BATCH, CONCURRENCY = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
HALF = (
    "SELECT atttypid = 'halfvec'::regtype FROM pg_attribute"
    " WHERE attrelid = 'resumes'::regclass AND attname = 'embedding'"
)


async def main() -> None:
    client = AsyncOpenAI(base_url=f"{PROVIDER}/v1", api_key="sk-test")
    limit, turn = asyncio.Semaphore(CONCURRENCY), asyncio.Lock()
    async with await psycopg.AsyncConnection.connect(DSN) as connection:
        await register_vector_async(connection)
        wrap = HalfVector if (await (await connection.execute(HALF)).fetchall())[0][0] else Vector
        query = "SELECT key, body FROM resumes WHERE embedding IS NULL ORDER BY key"
        rows = await (await connection.execute(query)).fetchall()

        async def embed(batch: list[Any]) -> None:
            async with limit:
                reply = await client.embeddings.create(
                    model="text-embedding-3-small", input=[text for _, text in batch]
                )
                values = [
                    (wrap(np.array(item.embedding, dtype=np.float32)), key)
                    for (key, _), item in zip(batch, reply.data, strict=True)
                ]
                async with turn, connection.cursor() as cursor:
                    await cursor.executemany(
                        "UPDATE resumes SET embedding = %b WHERE key = %s", values
                    )
                    await connection.commit()

        await asyncio.gather(*(embed(rows[at : at + BATCH]) for at in range(0, len(rows), BATCH)))


asyncio.run(main())
