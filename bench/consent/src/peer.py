"""The same questions to DataFusion and DuckDB over the same Parquet files, without consent. One line of JSON per request on
standard input: {"engine", "sql"}; one per answer: {"seconds", "rows"}. Both use two threads, as the other side does."""
import json
import sys
import time

import datafusion
import duckdb

files = json.loads(sys.stdin.readline())
threads = files["threads"]

config = datafusion.SessionConfig().with_target_partitions(threads)
config = config.set("datafusion.execution.parquet.pushdown_filters", "true")
fusion = datafusion.SessionContext(config)
duck = duckdb.connect(config={"threads": threads})
for name in ("scalar", "wave"):
    if files[name]:
        fusion.register_parquet(name, files[name][0])
        paths = ", ".join("'" + path + "'" for path in files[name])
        duck.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{paths}])")
duck.execute("SET TimeZone = 'UTC'")


def ask(engine, sql):
    start = time.perf_counter()
    if engine == "duckdb":
        rows = duck.execute(sql).to_arrow_table().num_rows
    else:
        rows = sum(batch.num_rows for batch in fusion.sql(sql).collect())
    return {"seconds": time.perf_counter() - start, "rows": rows}


print(json.dumps({"versions": {"datafusion": datafusion.__version__, "duckdb": duckdb.__version__}}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = ask(request["engine"], request["sql"])
    except Exception as error:  # told to the other side, which stops
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
