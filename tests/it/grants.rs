//! Real recordings under real grants: by signal class, by period, by resolution, by study; every count by SQL against a reader
//! of the original files that shares no code with us. Skipped aloud where recordings or Python are missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{Server, shared};
use crate::story::text;
use crate::studies::{Member, grant, member};
use crate::workspace_root;

/// Tables of the Welltory study: name, time column, its form, and columns as `[column, signal, num, den, separator]`.
fn tables() -> Value {
    json!({
        "blood_pressure": ["measurement_datetime", "%Y-%m-%d %H:%M:%S", [
            ["systolic", "blood_pressure_systolic", 1, 1, null], ["diastolic", "blood_pressure_diastolic", 1, 1, null]]],
        "wearables": ["day", "%Y-%m-%d", [
            ["steps_count", "steps", 1, 1, null], ["average_spo2_value", "spo2", 100, 1, null],
            ["resting_pulse", "heart_rate", 1, 1, null]]],
        "hrv_measurements": ["measurement_datetime", "%Y-%m-%d %H:%M:%S", [
            ["sdnn", "hrv_sdnn", 1, 1, null], ["rr_data", "rr_interval", 1, 1, ","]]],
    })
}

const VITALS: [&str; 8] = [
    "heart_rate",
    "skin_temperature",
    "rr_interval",
    "spo2",
    "hrv_sdnn",
    "blood_pressure_systolic",
    "blood_pressure_diastolic",
    "body_temperature",
];
const WAVEFORM: [&str; 5] = ["acceleration_x", "acceleration_y", "acceleration_z", "eda", "ppg"];

/// What a word of a grant stands for in these recordings, said here a second time on purpose.
fn signals(word: &str) -> Vec<&str> {
    match word {
        "vitals" => VITALS.into(),
        "waveform" => WAVEFORM.into(),
        "activity" => vec!["steps"],
        "*" => [&VITALS[..], &WAVEFORM[..], &["steps"]].concat(),
        other => vec![other],
    }
}

/// Study, person, where it is recorded, word for the signals, period, resolution.
type Granted =
    (&'static str, &'static str, &'static str, &'static str, [Option<&'static str>; 2], &'static str);

const WHOLE: [Option<&str>; 2] = [None, None];
const GRANTS: [Granted; 12] = [
    // By class, and another class to the other study.
    ("alpha", "S01", "e4", "vitals", WHOLE, "raw"),
    ("beta", "S01", "e4", "waveform", WHOLE, "raw"),
    // By period: a quarter of an hour that begins and ends within batches, frames and series.
    ("alpha", "S02", "e4", "*", [Some("2022-02-07T10:02:03Z"), Some("2022-02-07T10:17:07Z")], "raw"),
    // By resolution, and two grants that overlap.
    ("alpha", "S03", "e4", "*", WHOLE, "1m"),
    ("beta", "S03", "e4", "*", WHOLE, "1h"),
    ("beta", "S03", "e4", "heart_rate", WHOLE, "raw"),
    // Another person's whole recording to one study alone; S05 grants nobody anything.
    ("beta", "S04", "e4", "eda", WHOLE, "1m"),
    ("alpha", "6be5033971", "blood_pressure", "vitals", [Some("2020-05-01T00:00:00Z"), None], "raw"),
    ("beta", "6be5033971", "blood_pressure", "blood_pressure_systolic", WHOLE, "1h"),
    ("alpha", "6be5033971", "wearables", "activity", WHOLE, "raw"),
    ("beta", "0d297d2410", "wearables", "*", [None, Some("2020-04-01T00:00:00Z")], "1m"),
    ("beta", "6be5033971", "hrv_measurements", "rr_interval", WHOLE, "raw"),
];

struct Sources {
    e4: PathBuf,
    welltory: PathBuf,
}

/// Brings in five E4 recordings and three tables; each has its own keys below `directory`.
fn bring_in(server: &Server, directory: &Path, sources: &Sources) {
    for person in ["S01", "S02", "S03", "S04", "S05"] {
        let keys = directory.join("keys-e4");
        server.ok(&["replay", "e4", &text(&sources.e4.join(person)), "--keys", &text(&keys)]);
    }
    for (table, form) in tables().as_object().expect("tables") {
        let mut map = format!("person = \"user_code\"\ntime = {}\ntime_format = {}\n", form[0], form[1]);
        for column in form[2].as_array().expect("columns") {
            map += &format!("[[column]]\nname = {}\nsignal = {}\n", column[0], column[1]);
            map += &format!("unit = [{}, {}]\n", column[2], column[3]);
            if column[4].is_string() {
                map += &format!("list = {}\n", column[4]);
            }
        }
        let path = directory.join(format!("{table}.toml"));
        std::fs::write(&path, map).expect("written");
        let (file, keys) =
            (sources.welltory.join(format!("{table}.csv")), directory.join(format!("keys-{table}")));
        server.ok(&["replay", "csv", &text(&file), "--map", &text(&path), "--keys", &text(&keys)]);
    }
}

/// Signs the grants, and writes them down for the other reader.
fn give(server: &Server, directory: &Path, sources: &Sources, studies: [&Member; 2]) -> PathBuf {
    let mut people: BTreeMap<&str, BTreeMap<String, Value>> = BTreeMap::new();
    for (study, person, recorded, word, [from, to], resolution) in GRANTS {
        let member = studies.into_iter().find(|member| member.study == study).expect("study");
        let mut arguments = vec!["--signals", word, "--resolution", resolution];
        arguments.extend(from.map(|from| ["--data-from", from]).into_iter().flatten());
        arguments.extend(to.map(|to| ["--data-to", to]).into_iter().flatten());
        grant(server, &directory.join(format!("keys-{recorded}")), person, member, &arguments);
        let source = match recorded {
            "e4" => json!({"e4": sources.e4.join(person)}),
            table => {
                let form = &tables()[table];
                let file = sources.welltory.join(format!("{table}.csv"));
                json!({"csv": file, "person": person, "time": form[0], "format": form[1], "columns": form[2]})
            }
        };
        let entry = people.entry(study).or_default().entry(format!("{recorded} {person}"));
        let entry = entry.or_insert(json!({"person": person, "source": source, "grants": []}));
        let granted = json!({"signals": signals(word), "from": from, "to": to, "resolution": resolution});
        entry["grants"].as_array_mut().expect("list").push(granted);
    }
    let plan: BTreeMap<&str, Vec<&Value>> =
        people.iter().map(|(study, people)| (*study, people.values().collect())).collect();
    let path = directory.join("plan.json");
    std::fs::write(&path, json!(plan).to_string()).expect("written");
    path
}

/// What a study sees in a table: one object for each pseudonym, signal to rows, samples, lowest and highest; sorted.
fn seen(server: &Server, member: &Member, table: &str) -> Vec<String> {
    let sums = match table {
        "readings" => "count(*) AS rows, count(*) AS n, min(value), max(value)",
        _ => "count(*), sum(n), min(min), max(max)",
    };
    let sql = format!("SELECT subject, signal, {sums} FROM {table} GROUP BY subject, signal");
    let mut people: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    for line in server.sql(&member.token, &sql) {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |at: usize| -> u64 { cells[at].parse().expect("count") };
        let value = |at: usize| -> f64 { cells[at].parse().expect("value") };
        let found = json!([number(2), number(3), value(4), value(5)]);
        people.entry(cells[0].to_owned()).or_default().insert(cells[1].to_owned(), found);
    }
    sorted(people.into_values().map(|person| json!(person)))
}

fn sorted(people: impl Iterator<Item = Value>) -> Vec<String> {
    // By name of signal, whichever order they were found in.
    let ordered = |person: Value| {
        let signals: BTreeMap<String, Value> = serde_json::from_value(person).expect("signals");
        json!(signals).to_string()
    };
    let mut people: Vec<String> = people.map(ordered).collect();
    people.sort();
    people
}

/// Guarantee (G6): of E4 and Welltory recordings, granted by class, period, resolution and study, SQL counts exactly what an
/// independent reader of the original files counts over the permitted part, in each of the three tables; and two studies
/// that see the same person have no name in common: not of the person, of a device or of a boot, in SQL or in exports.
#[test]
fn grants_over_real_recordings() {
    let (Some(e4), Some(welltory)) = (shared("data/e4_stress_predict"), shared("data/welltory_covid19"))
    else {
        return;
    };
    let python = std::env::var("VITALOG_PYTHON").unwrap_or_else(|_| "python3".into());
    if !Command::new(&python).arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} does not run, grants are not compared with the original files");
        return;
    }
    let (directory, sources) = (tempfile::tempdir().expect("directory"), Sources { e4, welltory });
    let directory = directory.path();
    let server = Server::start(directory);
    let (alpha, beta) = (member(&server, directory, "alpha"), member(&server, directory, "beta"));
    bring_in(&server, directory, &sources);
    let plan = give(&server, directory, &sources, [&alpha, &beta]);
    let script = workspace_root().join("tests/oracle/grants.py");
    let output = Command::new(&python).arg(script).arg(plan).output().expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for study in [&alpha, &beta] {
        for table in ["readings", "readings_1m", "readings_1h"] {
            let people = expected[&study.study][table].as_array().expect("people").clone();
            assert!(!people.is_empty());
            let (wanted, found) = (sorted(people.into_iter()), seen(&server, study, table));
            assert_eq!(found, wanted, "{} {table}", study.study);
            eprintln!("{} {table}: {} people as the other reader counts them", study.study, found.len());
        }
    }
    nothing_joins(&server, &alpha, &beta);
}

/// Of two studies that share people, no name of the one is one of the other: in SQL asked with the other's names, and in
/// what both exported.
fn nothing_joins(server: &Server, alpha: &Member, beta: &Member) {
    // Every person, device and boot has some of these; the fast waveforms would only take time.
    let some = "signal IN ('heart_rate', 'eda', 'steps', 'rr_interval', 'blood_pressure_systolic')";
    for column in ["subject", "device", "boot"] {
        let names = |member: &Member| {
            let sql = format!("SELECT DISTINCT {column} FROM readings WHERE {some}");
            let mut names = server.sql(&member.token, &sql);
            names.sort();
            names
        };
        let (ours, theirs) = (names(alpha), names(beta));
        assert!(ours.len() >= 4 && theirs.len() >= 3, "{column}: {ours:?} {theirs:?}");
        assert_eq!(ours, names(alpha), "{column}: a name stays within a study");
        assert!(!ours.iter().any(|name| theirs.contains(name)), "{column}: {ours:?} {theirs:?}");
        assert!(!ours.iter().chain(&theirs).any(|name| name.contains("did:")), "{ours:?}");
        let foreign = theirs.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(",");
        let own = format!("SELECT count(DISTINCT {column}) FROM readings WHERE {some} AND {column} IN ");
        assert_eq!(server.sql(&alpha.token, &format!("{own} ({foreign})")), ["0"], "{column}");
        let known = ours.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(",");
        assert_eq!(
            server.sql(&alpha.token, &format!("{own} ({known})")),
            [ours.len().to_string()],
            "{column}"
        );
    }
}
