"""LangChain's PGVector, `add_texts`. langchain_pgvector.py DATABASE PROVIDER BATCH CONCURRENCY.

One request at a time: it has no setting for more.
"""

import sys

import psycopg
from langchain_openai import OpenAIEmbeddings
from langchain_postgres import PGVector

DSN, PROVIDER, BATCH = sys.argv[1], sys.argv[2], int(sys.argv[3])

with psycopg.connect(DSN) as connection:
    rows = connection.execute("SELECT key, body FROM resumes ORDER BY key").fetchall()
embeddings = OpenAIEmbeddings(
    model="text-embedding-3-small",
    base_url=f"{PROVIDER}/v1",
    chunk_size=BATCH,
    # Or it would send tokens instead of texts, and fetch a vocabulary for that.
    check_embedding_ctx_length=False,
)
url = DSN.replace("postgresql://", "postgresql+psycopg://")
store = PGVector(embeddings, connection=url, collection_name="resumes", embedding_length=1536)
store.add_texts([text for _, text in rows], ids=[key for key, _ in rows])
