//! DataFusion and DuckDB as PyPI ships them, in a process of their own (`peer.py`), asked line by line so that rounds can be
//! taken in turns.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

const PROGRAM: &str = include_str!("peer.py");

/// The other side.
pub(crate) struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Its versions, for the report.
    pub(crate) versions: String,
}

impl Peer {
    /// Starts it over some files; the Python must have `datafusion`, `duckdb` and `pyarrow`.
    pub(crate) fn start(python: &Path, scalar: &[PathBuf], wave: &[PathBuf], threads: usize) -> Result<Peer> {
        let mut child = Command::new(python)
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let input = child.stdin.take().context("its input")?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        let mut peer = Peer { child, input, output, versions: String::new() };
        let told = peer.say(&json!({ "scalar": scalar, "wave": wave, "threads": threads }))?;
        peer.versions = told["versions"].to_string();
        Ok(peer)
    }

    fn say(&mut self, message: &Value) -> Result<Value> {
        writeln!(self.input, "{message}")?;
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the peer ended; try: python -m pip install datafusion==55.0.0 duckdb pyarrow");
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Seconds and rows of one question.
    pub(crate) fn ask(&mut self, engine: &str, sql: &str) -> Result<(f64, u64)> {
        let answer = self.say(&json!({ "engine": engine, "sql": sql }))?;
        if let Some(error) = answer["error"].as_str() {
            bail!("{engine}: {error}\n{sql}");
        }
        Ok((answer["seconds"].as_f64().context("seconds")?, answer["rows"].as_u64().context("rows")?))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
