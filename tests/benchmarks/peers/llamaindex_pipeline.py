"""LlamaIndex: IngestionPipeline, PGVectorStore. llamaindex_pipeline.py DATABASE PROVIDER B C."""

import sys

import psycopg2
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.vector_stores.postgres import PGVectorStore

DSN, PROVIDER, BATCH, CONCURRENCY = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

with psycopg2.connect(DSN) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT key, body FROM resumes ORDER BY key")
    nodes = [TextNode(id_=key, text=text) for key, text in cursor.fetchall()]
store = PGVectorStore.from_params(
    connection_string=DSN.replace("postgresql://", "postgresql+psycopg2://"),
    async_connection_string=DSN.replace("postgresql://", "postgresql+asyncpg://"),
    table_name="resumes",
    embed_dim=1536,
)
embedding = OpenAIEmbedding(
    api_base=f"{PROVIDER}/v1", embed_batch_size=BATCH, num_workers=CONCURRENCY
)
IngestionPipeline(transformations=[embedding], vector_store=store).run(nodes=nodes)
