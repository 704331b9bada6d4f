//! Maps and tables, good and bad, and a real table where it is beside the clone.

use std::path::PathBuf;

use schemas_frame::Frame;
use schemas_identity::{BootId, SecretKey};

use super::*;

const MAP: &str = r#"
person = "who"
time = "when"
time_format = "%Y-%m-%d %H:%M:%S"
utc_offset = "+02:00"
[[column]]
name = "sys"
signal = "blood_pressure_systolic"
[[column]]
name = "ox"
signal = "spo2"
unit = [100, 1]
[[column]]
name = "rr"
signal = "rr_interval"
list = ","
"#;

fn load(table: &str, map: &str) -> Result<Vec<Recording>, FleetError> {
    let directory = tempfile::tempdir().unwrap();
    let (table_path, map_path) = (directory.path().join("t.csv"), directory.path().join("m.toml"));
    fs::write(&table_path, table).unwrap();
    fs::write(&map_path, map).unwrap();
    load_all(&table_path, &Map::load(&map_path)?)
}

// Two spaces in a time, quoted lists, empty cells, people mixed and out of order: every reading once, at its moment.
#[test]
fn tables_are_read_as_the_map_says() {
    let table = "who,when,sys,ox,rr\nb,2020-04-30  01:33:33,150,0.97,\na,1970-01-01 02:00:01,,,\"800,810.5\"\n\
                 a,1970-01-01 02:00:00,120,,\n";
    let people = load(table, MAP).unwrap();
    let names: Vec<&str> = people.iter().map(|person| person.name.as_str()).collect();
    assert_eq!((names, people[0].values(), people[1].values()), (vec!["a", "b"], 3, 2));
    let of = |person: usize, column: usize| people[person].columns()[column].times.clone();
    assert_eq!(of(0, 0), Times::Irregular(vec![0]));
    assert_eq!(of(0, 1), Times::Irregular(vec![1_000_000, 1_800_000]));
    assert_eq!(of(1, 0), Times::Irregular(vec![1_588_203_213_000_000]));
    let frames = people[1].frames(&SecretKey::from_seed(&[1; 32]), BootId([1; 8]), 10).unwrap();
    let frame = Frame::parse(&frames[0]).unwrap();
    let values: Vec<f64> = frame.series().map(|series| series.value(0)).collect();
    assert_eq!(values, [150.0, 97.0]);
}

// Years between two readings are two frames, not a frame for each ten seconds, and cost no time.
#[test]
fn long_gaps_are_stepped_over() {
    let people =
        load("who,when,sys,ox,rr\na,1971-01-01 00:00:00,120,,\na,2024-01-01 00:00:07,121,,\n", MAP).unwrap();
    let frames = people[0].frames(&SecretKey::from_seed(&[1; 32]), BootId([1; 8]), 10).unwrap();
    assert_eq!(frames.len(), 2);
    assert_eq!(Frame::parse(&frames[1]).unwrap().wall_us().unwrap() / 1_000_000, 1_704_060_000);
}

// What the map does not fit is refused, and the message says where.
#[test]
fn mistakes_are_named() {
    let good = "who,when,sys,ox,rr\na,2020-04-30 01:33:33,150,0.97,800\n";
    assert!(load(good, MAP).is_ok());
    let cases = [
        (good.replace("150", "15O"), MAP.to_owned(), "line 2: a cell is no number"),
        (good.replace("01:33:33", "1.33"), MAP.to_owned(), "line 2: the time"),
        (good.replace("\na,", "\n,"), MAP.to_owned(), "line 2: a row of nobody"),
        (good.replace("sys", "dia"), MAP.to_owned(), "a column that the map names"),
        (good.to_owned(), MAP.replace("spo2", "spo3"), "`spo3` is no signal"),
        (good.to_owned(), MAP.replace("unit =", "units ="), "units"),
        (good.to_owned(), MAP.replace("[100, 1]", "[0, 1]"), "unit of `ox`"),
        (good.to_owned(), MAP.replace("+02:00", "CEST"), "utc_offset `CEST`"),
        (good.to_owned(), MAP.replace("person = \"who\"", ""), "give `person`"),
    ];
    for (table, map, part) in cases {
        let error = load(&table, &map).unwrap_err().to_string();
        assert!(error.contains(part), "{error} lacks {part}");
    }
}

// The Welltory recordings: 352,911 intervals between beats of 185 people in 3,245 measurements, none lost.
#[test]
fn a_real_table_is_whole() {
    let root = std::env::var_os("VITALOG_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join("data/welltory_covid19/hrv_measurements.csv");
    if !path.exists() {
        eprintln!("skipped: hrv_measurements.csv is not beside this clone (VITALOG_SHARED)");
        return;
    }
    let map = r#"
person = "user_code"
time = "measurement_datetime"
time_format = "%Y-%m-%d %H:%M:%S"
[[column]]
name = "rr_data"
signal = "rr_interval"
list = ","
"#;
    let map: Map = toml::from_str(map).unwrap();
    let people = load_all(&path, &map).unwrap();
    let intervals: usize = people
        .iter()
        .flat_map(Recording::columns)
        .filter(|column| column.signal == 10)
        .map(|column| column.values.len())
        .sum();
    assert_eq!(intervals, 352_911);
}
