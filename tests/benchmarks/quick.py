import sys,tempfile,json
from pathlib import Path
from tests.servers import PostgresServer
from tests.benchmarks.table import Table
from tests.benchmarks.measuring import *
from tests.benchmarks.contestants import *
server=PostgresServer.start(durable=True)
server.create_database("bench")
t=Table(server.dsn("bench"),"vector"); t.fill(10000,words=430,seed=1); 
print(t.version(), t.settings())
print(t._one("select avg(length(body))::text from template"), t._one("select pg_size_pretty(pg_total_relation_size('template'))"))
try:
  for lat in sys.argv[2].split(","):
    with provider("--latency",lat) as p:
      for r in range(int(sys.argv[1])):
        for n in sys.argv[3].split(","):
            t.restore()
            with tempfile.TemporaryDirectory() as d:
                w=Work(t.url,p.url,Path(d),128,8,"base64")
                try:
                    m=measure(CONTESTANTS[n].command(sys.executable,w),environment(Path(d)),t,p)
                    print(lat,n,m,flush=True)
                except Failed as e: print(n,e)
finally:
  t.close(); server.stop()
