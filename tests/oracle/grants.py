"""An independent reader of the recordings that counts what grants permit of them. Reads a plan, writes what SQL must answer.

Usage: grants.py PLAN.json
PLAN is {"study": [{"person", "source", "grants": [{"signals", "from", "to", "resolution"}]}]}; a source is
{"e4": folder} or {"csv": file, "person", "time", "format", "columns": [[column, signal, num, den, separator]]}.
Prints {"study": {"readings" | "readings_1m" | "readings_1h": [{signal: [rows, n, min, max]}]}}: one object for each person of
whom anything may be seen. Standard library only; shares no code with vitalog.
"""

import csv
import json
import sys
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

SENSORS = {
    "ACC.csv": ["acceleration_x", "acceleration_y", "acceleration_z"],
    "BVP.csv": ["ppg"],
    "EDA.csv": ["eda"],
    "HR.csv": ["heart_rate"],
    "TEMP.csv": ["skin_temperature"],
}
BUCKETS = {"readings": None, "readings_1m": 60_000_000, "readings_1h": 3_600_000_000}
# Which tables show what is granted at a resolution: its own, and coarser ones.
SHOWN = {"raw": list(BUCKETS), "1m": ["readings_1m", "readings_1h"], "1h": ["readings_1h"]}


def micros(text, form="%Y-%m-%dT%H:%M:%SZ"):
    return round(datetime.strptime(text, form).replace(tzinfo=timezone.utc).timestamp() * 1e6)


def empatica(folder):
    """(signal, us, value) of every sample of a folder."""
    for name, signals in SENSORS.items():
        lines = (Path(folder) / name).read_text().split("\n")
        start, rate = (float(lines[at].split(",")[0]) for at in (0, 1))
        first, period = round(start * 1e6), round(1e6 / rate)
        for at, line in enumerate(line for line in lines[2:] if line):
            for signal, cell in zip(signals, line.split(",")):
                value = float(cell) / 64 if name == "ACC.csv" else float(cell)
                yield signal, first + at * period, value
    lines = (Path(folder) / "IBI.csv").read_text().split("\n")
    first = round(float(lines[0].split(",")[0]) * 1e6)
    for line in (line for line in lines[1:] if line):
        offset, interval = line.split(",")
        yield "rr_interval", first + round(float(offset) * 1e6), float(Decimal(interval.strip()) * 1000)


def rows(source):
    """(signal, us, value) of one person of a table."""
    with open(source["csv"], newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["user_code"] != source["person"]:
                continue
            at = micros(" ".join(row[source["time"]].split()), source["format"])
            for column, signal, num, den, separator in source["columns"]:
                cells = row[column].split(separator) if separator else [row[column]]
                moment = at
                for cell in (cell.strip() for cell in cells):
                    if cell:
                        yield signal, moment, float(Decimal(cell) * num / den)
                        if separator:
                            moment += round(float(cell) * 1000)


def permitted(samples, grants, table):
    """The samples that a table may show, each once."""
    open_grants = [
        (set(grant["signals"]), grant["from"] and micros(grant["from"]), grant["to"] and micros(grant["to"]))
        for grant in grants
        if table in SHOWN[grant["resolution"]]
    ]
    for signal, us, value in samples:
        for signals, start, end in open_grants:
            if signal in signals and (start is None or us >= start) and (end is None or us < end):
                yield signal, us, value
                break


def counts(samples, width):
    """Signal to [rows of the table, samples, lowest, highest]."""
    found = {}
    for signal, us, value in samples:
        row = us // width if width else None
        known = found.setdefault(signal, [set(), 0, value, value])
        if width:
            known[0].add(row)
        known[1] += 1
        known[2], known[3] = min(known[2], value), max(known[3], value)
    return {signal: [len(at) if width else n, n, low, high] for signal, (at, n, low, high) in found.items()}


def main():
    plan = json.loads(Path(sys.argv[1]).read_text())
    read = {}
    answer = {}
    for study, people in plan.items():
        answer[study] = {table: [] for table in BUCKETS}
        for person in people:
            source = person["source"]
            key = json.dumps(source)
            if key not in read:
                read[key] = list(empatica(source["e4"]) if "e4" in source else rows(source))
            assert read[key], f"nothing of {person['person']}"
            for table, width in BUCKETS.items():
                found = counts(permitted(read[key], person["grants"], table), width)
                if found:
                    answer[study][table].append(found)
    print(json.dumps(answer))


main()
