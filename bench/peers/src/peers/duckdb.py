# Consumer of signed frames that writes them to DuckDB: batches of 500, acknowledged after the commit.
# Arguments: consume HOST PORT DATABASE LAYOUT | count DATABASE SAMPLES | version
# LAYOUT is JSON: columns, samples, period_us, where each series begins, counted from the
# frame's end; numpy cuts a whole batch at once, so that Python costs as little as it can.
import json
import signal
import struct
import sys
import time

BATCH_FRAMES = 500
BATCH_WAIT_S = 0.02


def wall_us(frame):
    # Tag, array, protected header of N bytes, empty map, then the payload: keys 1 to 4 are the boot of 8 bytes, the number,
    # a digest of 16 bytes, the clock.
    at = 4 + (frame[2] & 31)
    at += {0x58: 2, 0x59: 3}.get(frame[at], 1) + 3 + 8
    at += 2 + {24: 1, 25: 2, 26: 4, 27: 8}.get(frame[at + 1], 0) + 18
    return struct.unpack_from(">Q", frame, at + 2)[0]


def consume(host, port, database, layout):
    import duckdb
    import numpy
    import paho.mqtt.client as mqtt

    con = duckdb.connect(database)
    columns, samples = layout["columns"], layout["samples"]
    fields = ", ".join(f"{name} SMALLINT" for name in columns)
    con.execute(f"CREATE TABLE IF NOT EXISTS frames (device VARCHAR, ts TIMESTAMP, {fields})")
    offsets = numpy.arange(samples, dtype="int64") * layout["period_us"]
    tail = max(layout["from_end"])
    state = {"batch": [], "total": 0, "since": 0.0}

    def flush(client):
        batch = state["batch"]
        devices = numpy.array([message.topic[5:21] for message in batch])
        starts = numpy.array([wall_us(message.payload) for message in batch], dtype="int64")
        tails = numpy.frombuffer(b"".join(message.payload[-tail:] for message in batch), dtype="uint8")
        tails = tails.reshape(len(batch), tail)
        rows = {"device": numpy.repeat(devices, samples)}
        rows["ts"] = (starts[:, None] + offsets).ravel().astype("datetime64[us]")
        for name, end in zip(columns, layout["from_end"]):
            part = tails[:, tail - end : tail - end + 2 * samples]
            rows[name] = numpy.ascontiguousarray(part).view("<i2").ravel()
        con.execute("INSERT INTO frames SELECT * FROM rows")
        for message in batch:
            client.ack(message.mid, message.qos)
        state["total"] += len(batch)
        state["batch"] = []
        print(state["total"], flush=True)

    def on_message(client, _userdata, message):
        if not state["batch"]:
            state["since"] = time.monotonic()
        state["batch"].append(message)
        if len(state["batch"]) >= BATCH_FRAMES:
            flush(client)

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "duckdb", clean_session=False, manual_ack=True)
    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe("v1/d/+/frames", 1)
    client.on_subscribe = lambda *_: print(0, flush=True)
    client.connect(host, port)
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    while not stopped:
        client.loop(timeout=BATCH_WAIT_S)
        if state["batch"] and time.monotonic() - state["since"] > BATCH_WAIT_S:
            flush(client)
    con.execute("CHECKPOINT")
    con.close()


def count(database, samples):
    import duckdb

    con = duckdb.connect(database, read_only=False)
    distinct, rows = con.execute("SELECT count(DISTINCT (device, ts)), count(*) FROM frames").fetchone()
    print(distinct // samples, (rows - distinct) // samples)


def version():
    import duckdb
    import numpy
    import paho.mqtt

    print(f"DuckDB {duckdb.__version__}, paho-mqtt {paho.mqtt.__version__}, numpy {numpy.__version__}")


if sys.argv[1] == "consume":
    consume(sys.argv[2], int(sys.argv[3]), sys.argv[4], json.loads(sys.argv[5]))
elif sys.argv[1] == "count":
    count(sys.argv[2], int(sys.argv[3]))
else:
    version()
