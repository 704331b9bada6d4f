"""An independent reader of Empatica E4 folders: compares what SQL answered with the original CSV files, through Polars.

Usage: e4.py RECORDINGS MAP.json ALL.csv MINUTES.csv
Counts and extremes must be equal, averages within 1e-9 relative. Shares no code with vitalog.
"""

import json
import sys
from pathlib import Path

import polars as pl

SENSORS = {
    "ACC.csv": [("acceleration_x", 64.0), ("acceleration_y", 64.0), ("acceleration_z", 64.0)],
    "BVP.csv": [("ppg", 1.0)],
    "EDA.csv": [("eda", 1.0)],
    "HR.csv": [("heart_rate", 1.0)],
    "TEMP.csv": [("skin_temperature", 1.0)],
}


def load(folder):
    """One frame of (signal, us, value) for a folder."""
    parts = []
    for name, columns in SENSORS.items():
        lines = (folder / name).read_text().split("\n")
        start, rate = (float(lines[i].split(",")[0]) for i in (0, 1))
        table = pl.read_csv(folder / name, has_header=False, skip_rows=2, schema_overrides=[pl.Float64] * len(columns))
        period = round(1e6 / rate)
        us = pl.int_range(table.height, eager=True).cast(pl.Int64) * period + round(start * 1e6)
        for index, (signal, divisor) in enumerate(columns):
            value = table.to_series(index) / divisor
            parts.append(pl.DataFrame({"us": us, "value": value}).with_columns(signal=pl.lit(signal)))
    ibi = folder / "IBI.csv"
    start = float(ibi.read_text().split(",")[0])
    table = pl.read_csv(ibi, has_header=False, skip_rows=1, schema_overrides=[pl.Float64] * 2)
    us = (table.to_series(0) * 1e6).round().cast(pl.Int64) + round(start * 1e6)
    value = table.to_series(1) * 1000.0
    parts.append(pl.DataFrame({"us": us, "value": value}).with_columns(signal=pl.lit("rr_interval")))
    return pl.concat(parts)


def close(a, b):
    return abs(a - b) <= 1e-9 * max(abs(a), abs(b), 1e-300) or abs(a - b) < 1e-12


def main():
    recordings, people, answers, minutes = sys.argv[1:]
    people = json.loads(Path(people).read_text())
    answers = pl.read_csv(answers)
    minutes = pl.read_csv(minutes).with_columns(pl.col("minute").str.slice(0, 16))
    compared = 0
    for name, ids in people.items():
        expected = load(Path(recordings) / name)
        mine = answers.filter(pl.col("subject") == ids["subject"])
        whole = expected.group_by("signal").agg(
            n=pl.len(), min=pl.col("value").min(), max=pl.col("value").max(), mean=pl.col("value").mean()
        )
        both = whole.join(mine, on="signal", how="left", suffix="_sql")
        assert both.height == whole.height == mine.height, (name, whole.height, mine.height)
        for row in both.iter_rows(named=True):
            exact = all(row[key] == row[key + "_sql"] for key in ("n", "min", "max"))
            assert exact and close(row["mean"], row["mean_sql"]), (name, row)
            compared += 1
        by_minute = (
            expected.with_columns(minute=pl.from_epoch("us", time_unit="us").dt.strftime("%Y-%m-%dT%H:%M"))
            .group_by("signal", "minute")
            .agg(n=pl.len(), mean=pl.col("value").mean())
        )
        mine = minutes.filter(pl.col("subject") == ids["subject"])
        both = by_minute.join(mine, on=["signal", "minute"], how="left", suffix="_sql")
        assert both.height == mine.height, (name, both.height, mine.height)
        for row in both.iter_rows(named=True):
            assert row["n"] == row["n_sql"] and close(row["mean"], row["mean_sql"]), (name, row)
            compared += 1
    print(f"agree: {compared} groups of {len(people)} people")


main()
