//! A researcher's session with curl, pandas and DuckDB, and consent that ends in the middle of it.
//! Skipped aloud where the tools are missing; without the recordings it runs on made-up frames.

use std::path::{Path, PathBuf};
use std::process::Command;

use schemas_frame::{FrameBuilder, OutSeries, OutValues, Scale};
use schemas_identity::BootId;

use crate::process::{Server, binary, shared};
use crate::story::{T0, text, wearer};
use crate::studies::{grant, member};
use crate::workspace_root;

/// Values in a made-up frame, and frames of each made-up person: enough that an export takes a while.
const FRAME_VALUES: i64 = 10_000;
const FRAMES: i64 = 60;

/// People in the store: their names, and where their keys are.
fn people(server: &Server, directory: &Path) -> (PathBuf, Vec<String>) {
    let keys = directory.join("keys");
    if let Some(recordings) = shared("data/e4_stress_predict") {
        server.ok(&["replay", "e4", &text(&recordings), "--keys", &text(&keys)]);
        return (keys, (1..=10).map(|n| format!("S{n:02}")).collect());
    }
    std::fs::create_dir_all(&keys).expect("keys");
    let names = ["P1", "P2"].map(str::to_owned);
    for name in &names {
        let key = wearer(server, &keys, name);
        for seq in 0..FRAMES {
            let values: Vec<i64> = (0..FRAME_VALUES).map(|n| 60 + (n + seq) % 100).collect();
            let series = OutSeries {
                signal: 1,
                offset_us: 0,
                period_us: 1_000,
                scale: Scale { num: 1, den: 3 },
                values: OutValues::narrowest(&values).expect("fits"),
                deltas: None,
                quality: None,
            };
            let (at, number) = (seq * FRAME_VALUES * 1_000, u64::try_from(seq).expect("number"));
            let builder =
                FrameBuilder::new(BootId([3; 8]), number, [0; 16], Some(T0 + at), number * 10_000_000);
            assert_eq!(server.post(&builder.series(series).sign(&key).expect("frame")).len(), 1);
        }
    }
    (keys, names.into())
}

/// Guarantee (G6, G7): curl, pandas and DuckDB read the same rows from CSV, NDJSON, Arrow and Parquet; DuckDB counts over an
/// export what the server counts; when a person takes consent back, running exports end with an error in every client, never
/// as a short file that looks whole, and once all have, the next answers are empty.
#[test]
fn a_session_with_curl_pandas_and_duckdb() {
    let python = std::env::var("VITALOG_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    if !has(&python, &["-c", "import pandas, pyarrow, duckdb"]) {
        eprintln!("skipped: {python} lacks pandas, pyarrow or duckdb (tests/requirements.txt)");
        return;
    }
    if !has("curl", &["--version"]) {
        eprintln!("skipped: curl is not installed");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let server = Server::start(directory.path());
    let (keys, names) = people(&server, directory.path());
    let study = member(&server, directory.path(), "stress");
    for name in &names {
        grant(&server, &keys, name, &study, &["--signals", "*"]);
    }
    // One shell line takes the consent of all back: the first of them ends what is running.
    let mut revoke = String::from("set -e\n");
    for name in &names {
        let key = keys.join(format!("{name}.subject.pem"));
        revoke += &format!(
            "'{}' consent revoke --url '{}' --key '{}' '*'\n",
            text(&binary("vitalog")),
            server.url,
            text(&key)
        );
    }
    let script = workspace_root().join("tests/clients/session.py");
    let output = Command::new(&python)
        .arg(script)
        .args([&server.url, &study.token, &text(directory.path())])
        .args(["sh", "-c", &revoke])
        .output()
        .expect("python runs");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("session holds"), "{said}");
    eprintln!("{said}");
}
