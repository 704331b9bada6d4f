"""A researcher's session with the tools researchers have: curl, pandas (Arrow and CSV) and DuckDB over the answers.

Usage: session.py URL TOKEN SCRATCH REVOKE...
REVOKE... is the command with which a person takes consent back in the middle. Prints `session holds` if everything does.
Shares no code with vitalog.
"""

import http.client
import io
import json
import math
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.ipc

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
CSV = "text/csv"
NDJSON = "application/x-ndjson"

# Columns of time are compared as microseconds; every query has a total order.
QUERIES = {
    "whole": (
        "SELECT subject, signal, count(*) AS n, min(value) AS low, max(value) AS high, min(ts) AS first, max(ts) AS last "
        "FROM readings GROUP BY subject, signal ORDER BY subject, signal"
    ),
    "rows": (
        "SELECT subject, device, signal, ts, value, unit, flags, boot, seq FROM readings WHERE signal = 'heart_rate' "
        "ORDER BY subject, ts, value, seq LIMIT 4000"
    ),
    "minutes": (
        "SELECT subject, signal, bucket, n, min, max, mean FROM readings_1m WHERE signal = 'heart_rate' "
        "ORDER BY subject, bucket LIMIT 3000"
    ),
    "odd": (
        "SELECT * FROM (VALUES (1, 'a,\"b\"', 0.1), (2, CAST(NULL AS TEXT), 1e-300), (3, 'x', CAST(NULL AS DOUBLE))) "
        "AS t(k, words, number) ORDER BY k"
    ),
    "nobody": "SELECT subject, ts, value FROM readings WHERE value < -1000 ORDER BY subject, ts",
}
BIG = "SELECT subject, device, signal, ts, value, unit, flags, received_at, boot, seq FROM readings"
TIMES = {"ts", "first", "last", "bucket", "received_at"}
TEXTS = {"subject", "device", "signal", "unit", "boot", "words"}
FLOATS = {"value", "low", "high", "min", "max", "mean", "number"}


def micros(value):
    moment = pd.Timestamp(value)
    moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    return int(moment.value) // 1000


def plain(name, value):
    """One spelling for a value, whichever tool brought it."""
    if value is None or value == "" or value is pd.NaT or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return None
    if name in TIMES:
        return micros(value)
    if name in TEXTS:
        return str(value)
    return float(value) if name in FLOATS else int(value)


def table(names, rows):
    return list(names), [tuple(plain(name, value) for name, value in zip(names, row)) for row in rows]


def of_pandas(frame):
    return table(frame.columns, frame.astype(object).itertuples(index=False, name=None))


class Session:
    def __init__(self, url, token, scratch):
        self.url, self.token, self.scratch = url, token, Path(scratch)

    def headers(self, media):
        return {"Authorization": f"Bearer {self.token}", "Accept": media, "Content-Type": "application/json"}

    def curl(self, sql, media, name, *more):
        """The answer through curl, as a file; the exit code is curl's."""
        out = self.scratch / name
        words = ["curl", "--silent", "--show-error", "--fail", "--no-buffer", "-o", str(out), *more]
        for key, value in self.headers(media).items():
            words += ["-H", f"{key}: {value}"]
        words += ["--data-binary", json.dumps({"sql": sql}), f"{self.url}/v1/sql"]
        return out, subprocess.Popen(words, stderr=subprocess.PIPE)

    def whole(self, sql, media, name):
        out, process = self.curl(sql, media, name)
        error = process.communicate()[1].decode()
        assert process.returncode == 0, error
        return out

    def open(self, sql, media):
        body = json.dumps({"sql": sql}).encode()
        return urllib.request.urlopen(urllib.request.Request(f"{self.url}/v1/sql", body, self.headers(media)))

    def readers(self, sql):
        """The same question through every tool: name of the tool, and its table."""
        csv = self.whole(sql, CSV, "a.csv")
        names = csv.read_text().split("\n", 1)[0].split(",")
        lines = [json.loads(line) for line in self.whole(sql, NDJSON, "a.ndjson").read_text().splitlines()]
        yield "curl, NDJSON", table(names, [[line.get(name) for name in names] for line in lines])
        # A CSV file without quotes cannot tell no text from empty text; there is no empty text here.
        words = {name: str for name in TEXTS & set(names)}
        yield "pandas, CSV", of_pandas(pd.read_csv(csv, dtype=words))
        with self.open(sql, ARROW) as answer:
            arrow = pyarrow.ipc.open_stream(answer).read_all()
        yield "pandas, Arrow", of_pandas(arrow.to_pandas())
        parquet = self.whole(sql, PARQUET, "a.parquet")
        yield "pandas, Parquet", of_pandas(pd.read_parquet(parquet))
        base = duckdb.connect()
        base.execute("SET TimeZone = 'UTC'")
        yield "DuckDB, Parquet", self.duck(base, "read_parquet(?)", [str(parquet)])
        yield "DuckDB, CSV", self.duck(base, "read_csv(?, header = true, all_varchar = true)", [str(csv)])
        base.register("answer", arrow)
        yield "DuckDB, Arrow", self.duck(base, "answer", [])

    def duck(self, base, source, values):
        """DuckDB's rows; its times leave it as microseconds, so that no other library has a say in them."""
        names = [column[0] for column in base.execute(f"DESCRIBE SELECT * FROM {source}", values).fetchall()]
        shown = [f'epoch_us("{n}"::TIMESTAMPTZ) AS "{n}"' if n in TIMES else f'"{n}"' for n in names]
        rows = base.execute(f"SELECT {', '.join(shown)} FROM {source}", values).fetchall()
        texts = [[pd.Timestamp(v, unit="us") if n in TIMES and v is not None else v for n, v in zip(names, row)] for row in rows]
        return table(names, texts)

    def compare(self, wanted):
        """Every query through every tool; `wanted` says whether there must be rows. How many rows were compared."""
        compared = 0
        for label, sql in QUERIES.items():
            first = None
            for tool, (names, rows) in self.readers(sql):
                if first is None:
                    first = (tool, names, rows)
                assert names == first[1], (label, tool, names, first[1])
                assert len(rows) == len(first[2]), (label, tool, len(rows), first[0], len(first[2]))
                for ours, theirs in zip(rows, first[2]):
                    assert ours == theirs, (label, tool, ours, first[0], theirs)
                compared += len(rows)
            if label in ("whole", "rows", "minutes"):
                assert bool(first[2]) == wanted, (label, len(first[2]))
            assert label != "odd" or len(first[2]) == 3
        return compared

    def recount(self):
        """DuckDB counts over the exported rows what the server counted itself."""
        export = self.whole(BIG, PARQUET, "all.parquet")
        base = duckdb.connect()
        sql = QUERIES["whole"].replace("FROM readings", f"FROM '{export}'")
        base.execute("SET TimeZone = 'UTC'")
        ours = self.duck(base, f"({sql})", [])
        with self.open(QUERIES["whole"], ARROW) as answer:
            theirs = of_pandas(pyarrow.ipc.open_stream(answer).read_pandas())
        assert ours == theirs, "DuckDB over the export counts otherwise than the server"
        return sum(row[2] for row in ours[1])

    def revoked_in_the_middle(self, revoke):
        """Two exports are under way, through curl and in Python, when consent ends: both end with an error."""
        out, slow = self.curl(BIG, NDJSON, "cut.ndjson", "--limit-rate", "1M")
        parts = urllib.parse.urlsplit(self.url)
        reading = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        reading.request("POST", "/v1/sql", json.dumps({"sql": BIG}), self.headers(ARROW))
        answer = reading.getresponse()
        assert answer.status == 200
        begun = answer.read(100_000)
        deadline = time.monotonic() + 60
        while not out.exists() or out.stat().st_size < 100_000:
            assert slow.poll() is None and time.monotonic() < deadline, slow.stderr.read()
            time.sleep(0.01)
        subprocess.run(revoke, check=True, stdout=subprocess.DEVNULL)
        try:
            rest = answer.read()
            raise AssertionError(f"a cut answer of {len(begun) + len(rest)} bytes looked whole to Python")
        except (http.client.IncompleteRead, ConnectionError) as error:
            rest = getattr(error, "partial", b"")
        try:
            # What came is a stream without an end. pyarrow calls that its end: the transport's error is the one that counts.
            cut = pyarrow.ipc.open_stream(io.BytesIO(begun + rest)).read_all().num_rows
        except pyarrow.ArrowInvalid:
            cut = 0
        told = slow.communicate(timeout=120)[1].decode()
        assert slow.returncode != 0, "a cut answer looked whole to curl"
        return cut, slow.returncode, told.strip()


def main():
    url, token, scratch, *revoke = sys.argv[1:]
    session = Session(url, token, scratch)
    compared = session.compare(wanted=True)
    exported = session.recount()
    cut, code, told = session.revoked_in_the_middle(revoke)
    assert cut < exported, (cut, exported)
    session.compare(wanted=False)
    print(f"{compared} rows alike in 7 readers; {exported} readings recounted; cut after {cut} rows; curl {code}: {told}")
    print("session holds")


main()
