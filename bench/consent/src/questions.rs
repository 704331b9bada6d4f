//! What is asked: each question in our SQL, and over the stored columns for engines that know no consent.

/// A sample's value from the stored columns of a scalar row.
const VALUE: &str = "CASE WHEN raw IS NOT NULL THEN CAST(raw AS DOUBLE) * num / den ELSE real END";
/// Samples of wave rows, one by one: DuckDB's words.
const SAMPLES_DUCK: &str = "(SELECT device, ts + to_microseconds(i * period_us) AS ts, CAST(v AS DOUBLE) * num / den AS value \
     FROM (SELECT device, ts, period_us, num, den, unnest(raw) AS v, unnest(range(len(raw))) AS i FROM wave))";

/// One question in three languages.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// Its name in the report.
    pub(crate) name: &'static str,
    /// Over `readings`.
    pub(crate) ours: String,
    /// Over the files, for DataFusion; `None` where it has no words for it.
    pub(crate) datafusion: Option<String>,
    /// Over the files, for DuckDB.
    pub(crate) duckdb: String,
}

/// Aggregates over everybody.
pub(crate) fn population() -> Vec<Question> {
    let by_signal = format!("SELECT signal, count(*), avg({VALUE}) FROM scalar GROUP BY signal");
    let by_hour = |bin: &str| {
        format!(
            "SELECT {bin}(INTERVAL '1 hour', ts) AS hour, avg({VALUE}) FROM scalar WHERE signal = 1 GROUP BY 1"
        )
    };
    vec![
        Question {
            name: "all, by signal",
            ours: "SELECT signal, count(*), avg(value) FROM readings GROUP BY signal".into(),
            datafusion: Some(by_signal.clone()),
            duckdb: by_signal,
        },
        Question {
            name: "heart rate, by hour",
            ours: "SELECT date_bin(INTERVAL '1 hour', ts) AS hour, avg(value) FROM readings \
                   WHERE signal = 'heart_rate' GROUP BY 1"
                .into(),
            datafusion: Some(by_hour("date_bin")),
            duckdb: by_hour("time_bucket"),
        },
    ]
}

/// One person's day.
pub(crate) fn day(number: u32, device: &str) -> Question {
    let stored = format!(
        "SELECT ts, signal, {VALUE} AS value FROM scalar WHERE device = {number} \
         AND ts >= TIMESTAMPTZ '2026-01-01 00:00:00+00' AND ts < TIMESTAMPTZ '2026-01-02 00:00:00+00' ORDER BY 1, 2"
    );
    Question {
        name: "one person's day",
        ours: format!(
            "SELECT ts, signal, value FROM readings WHERE device = '{device}' \
             AND ts >= '2026-01-01T00:00:00Z' AND ts < '2026-01-02T00:00:00Z' ORDER BY 1, 2"
        ),
        datafusion: Some(stored.replace("TIMESTAMPTZ ", "")),
        duckdb: stored,
    }
}

/// The questions that peers were compared with before anything was built.
pub(crate) fn dense(number: u32, device: &str) -> Vec<Question> {
    let half_hour = |bin: &str| {
        format!(
            "SELECT {bin}(INTERVAL '1 minute', ts) AS minute, avg({VALUE}) FROM scalar WHERE device = {number} \
             AND signal = 1 AND ts >= '2026-01-01T10:00:00Z' AND ts < '2026-01-01T10:30:00Z' GROUP BY 1 ORDER BY 1"
        )
    };
    let by_hour = |bin: &str| {
        format!(
            "SELECT {bin}(INTERVAL '1 hour', ts) AS hour, avg({VALUE}) FROM scalar WHERE signal = 1 GROUP BY 1"
        )
    };
    let fast = format!(
        "SELECT device, count(*) FROM scalar WHERE signal = 1 AND {VALUE} > 98 GROUP BY 1 ORDER BY 2 DESC LIMIT 10"
    );
    vec![
        Question {
            name: "Q1 half an hour of one, by minute",
            ours: format!(
                "SELECT date_bin(INTERVAL '1 minute', ts) AS minute, avg(value) FROM readings \
                 WHERE device = '{device}' AND signal = 'heart_rate' AND ts >= '2026-01-01T10:00:00Z' \
                 AND ts < '2026-01-01T10:30:00Z' GROUP BY 1 ORDER BY 1"
            ),
            datafusion: Some(half_hour("date_bin")),
            duckdb: half_hour("time_bucket"),
        },
        Question {
            name: "Q2 everybody's heart rate, by hour",
            ours: "SELECT date_bin(INTERVAL '1 hour', ts) AS hour, avg(value) FROM readings \
                   WHERE signal = 'heart_rate' GROUP BY 1"
                .into(),
            datafusion: Some(by_hour("date_bin")),
            duckdb: by_hour("time_bucket"),
        },
        Question {
            name: "Q3 ten with the most fast beats",
            ours: "SELECT device, count(*) FROM readings WHERE signal = 'heart_rate' AND value > 98 \
                   GROUP BY 1 ORDER BY 2 DESC LIMIT 10"
                .into(),
            datafusion: Some(fast.clone()),
            duckdb: fast,
        },
        Question {
            name: "Q4 movement, by person and minute",
            ours:
                "SELECT device, date_bin(INTERVAL '1 minute', ts) AS minute, avg(abs(value)) FROM readings \
                   WHERE signal IN ('acceleration_x', 'acceleration_y', 'acceleration_z') GROUP BY 1, 2"
                    .into(),
            datafusion: None,
            duckdb: format!(
                "SELECT device, time_bucket(INTERVAL '1 minute', ts) AS minute, avg(abs(value)) \
                 FROM {SAMPLES_DUCK} GROUP BY 1, 2"
            ),
        },
    ]
}
