"""pgai's vectorizer worker, once, into a table. pgai_worker.py DATABASE PROVIDER BATCH CONCURRENCY.

Its schema, its triggers and its queue are set up first; the schema stays for the next round.
"""

import os
import sys
from pathlib import Path

import pgai
import psycopg

DSN, PROVIDER, BATCH, CONCURRENCY = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

pgai.install(DSN)
with psycopg.connect(DSN) as connection:
    connection.execute("SELECT ai.drop_vectorizer(id) FROM ai.vectorizer")  # of the round before
    # Its view has the columns of both tables, and would have two of this name.
    connection.execute("ALTER TABLE resumes DROP COLUMN embedding")
    row = connection.execute(
        "SELECT ai.create_vectorizer('resumes'::regclass, if_not_exists => false,"
        " loading => ai.loading_column('body'), chunking => ai.chunking_none(),"
        " formatting => ai.formatting_python_template('$chunk'),"
        " embedding => ai.embedding_openai('text-embedding-3-small', 1536, base_url => %s),"
        " processing => ai.processing_default(%s, %s), scheduling => ai.scheduling_none(),"
        " indexing => ai.indexing_none(), destination => ai.destination_table("
        " target_schema => 'public', target_table => 'pgai_vectors',"
        " view_schema => 'public', view_name => 'pgai_view'))",
        (f"{PROVIDER}/v1", BATCH, CONCURRENCY),
    ).fetchone()
command = [str(Path(sys.executable).parent / "pgai"), "vectorizer", "worker", "-d", DSN, "--once"]
number = str(row[0]) if row else ""
# It brings the vocabulary along, and its image sets this.
os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(pgai.__file__).parent / "vectorizer" / "tiktoken_cache")
words = [*command, "-i", number, "-c", str(CONCURRENCY), "--log-level", "WARN"]
os.execv(words[0], words)  # noqa: S606
