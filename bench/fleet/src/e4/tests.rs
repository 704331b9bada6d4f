//! Real recordings where they are beside the clone, a small made-up folder everywhere.

use std::collections::BTreeMap;

use schemas_frame::Frame;

use schemas_identity::{BootId, SecretKey};

use super::*;

fn folder() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write(
        "ACC.csv",
        &format!("1644226061.00, 1644226061.00, 1644226061.00\n32, 32, 32\n{}", "-2,43,127\n".repeat(700)),
    );
    write("HR.csv", "1644226071.000000\n1.000000\n83.00\n82.72\n");
    write("IBI.csv", "1644226061.000000, IBI\n9.5,0.890625\n10.390625,0.859375\n");
    directory
}

/// Guarantee: what is in the files is what is in the frames, at its time, whatever the spelling of the start.
#[test]
fn a_folder_becomes_frames() {
    let directory = folder();
    let recording = Recording::load(directory.path()).unwrap();
    assert_eq!(recording.values(), 700 * 3 + 2 + 2);
    let key = SecretKey::from_seed(&[1; 32]);
    let frames = recording.frames(&key, BootId([2; 8]), 10).unwrap();
    assert_eq!(frames, recording.frames(&key, BootId([2; 8]), 10).unwrap());
    let mut seen = Vec::new();
    for (bytes, seq) in frames.iter().zip(0..) {
        let frame = Frame::parse(bytes).unwrap();
        assert_eq!(frame.seq(), seq);
        for series in frame.series() {
            let samples = series.samples(frame.wall_us().unwrap());
            seen.extend(samples.map(|(ts_us, value, _)| (series.signal, ts_us, value)));
        }
    }
    assert_eq!(seen.len(), 700 * 3 + 4);
    let second = 1_000_000;
    let start = 1_644_226_061 * second;
    assert!(seen.contains(&(1, start + 11 * second, 82.72)));
    assert!(seen.contains(&(10, start + 9_500_000, 890.625)));
    assert!(seen.contains(&(10, start + 10_390_625, 859.375)));
    assert!(seen.contains(&(16, start + 31_250 * 699, 127.0 / 64.0)));
    assert!(seen.contains(&(14, start, -2.0 / 64.0)));
}

/// Guarantee: damaged files are named with their line.
#[test]
fn damaged_files_are_named() {
    let directory = folder();
    fs::write(directory.path().join("HR.csv"), "1644226071.000000\n1.000000\n83.00\nabc\n").unwrap();
    let text = Recording::load(directory.path()).unwrap_err().to_string();
    assert!(text.contains("HR.csv line 4"), "{text}");
    assert!(matches!(load_all(&directory.path().join("none")), Err(FleetError::Io { .. })));
}

/// Every number of a file's column, and `unit` times it, as an independent reader has them.
fn expected(directory: &Path, file: &str, column: usize, header: usize, unit: fn(f64) -> f64) -> Vec<u64> {
    let text = fs::read_to_string(directory.join(file)).unwrap();
    let number = |line: &str| line.split(',').nth(column).unwrap().trim().parse::<f64>().unwrap();
    text.lines().skip(header).map(|line| unit(number(line)).to_bits()).collect()
}

/// Guarantee: every value of a real recording comes out as the very double of its text, to the last bit, the sign of
/// zero included.
#[test]
fn real_values_survive() {
    let root = std::env::var_os("VITALOG_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let directory = root.join("data/e4_stress_predict/S05");
    if !directory.is_dir() {
        eprintln!("skipped: the recordings are not beside this clone (VITALOG_SHARED)");
        return;
    }
    let recording = Recording::load(&directory).unwrap();
    let key = SecretKey::from_seed(&[1; 32]);
    let mut found: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for seconds in [10, 60] {
        found.clear();
        for bytes in recording.frames(&key, BootId([1; 8]), seconds).unwrap() {
            let frame = Frame::parse(&bytes).unwrap();
            for series in frame.series() {
                let values = series.samples(0).map(|(_, value, _)| value.to_bits());
                found.entry(series.signal).or_default().extend(values);
            }
        }
    }
    let same = |value: f64| value;
    assert!(expected(&directory, "BVP.csv", 0, 2, same).contains(&(-0.0f64).to_bits()));
    for (signal, file, column, header, unit) in [
        (14, "ACC.csv", 0, 2, (|value| value / 64.0) as fn(f64) -> f64),
        (15, "ACC.csv", 1, 2, |value| value / 64.0),
        (16, "ACC.csv", 2, 2, |value| value / 64.0),
        (18, "BVP.csv", 0, 2, same),
        (17, "EDA.csv", 0, 2, same),
        (1, "HR.csv", 0, 2, same),
        (5, "TEMP.csv", 0, 2, same),
        // Whole microseconds, then thousands of them: exact, where a product of seconds may not be.
        (10, "IBI.csv", 1, 1, |value| (value * 1e6).round() / 1e3),
    ] {
        let values = found.remove(&signal).unwrap();
        assert!(values == expected(&directory, file, column, header, unit), "{file} column {column}");
    }
    assert!(found.is_empty());
}
