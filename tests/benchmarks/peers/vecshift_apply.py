"""`vecshift apply` into a column of its own. vecshift_apply.py DATABASE PROVIDER BATCH CONCURRENCY.

Its concurrency is fixed at four.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

DSN, PROVIDER, BATCH = sys.argv[1:4]

job = {
    "version": 1,
    "source": {"table": "public.resumes", "vector_column": "embedding", "text_column": "body"},
    "target": {"column": "embedding_v2", "index": "none"},
    "model": f"compat/text-embedding-3-small,url={PROVIDER}/v1,dims=1536,price=0,batch={BATCH}",
}
file = Path(tempfile.mkdtemp(dir=os.environ["XDG_STATE_HOME"])) / "vecshift.yaml"
file.write_text(json.dumps(job), "utf-8")  # which is YAML as well
command = str(Path(sys.executable).parent / "vecshift")
os.environ["VECSHIFT_DSN"] = DSN
os.execv(command, [command, "apply", "--yes", "--no-index", str(file)])  # noqa: S606
