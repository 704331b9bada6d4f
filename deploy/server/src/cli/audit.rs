//! `vitalog audit`: reads every file again, recomputes every root, checks the log and the statements' and accesses'
//! commitments, and names what is wrong. Offline: it takes the data directory's lock.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget};
use query_audit::Finding;
use schemas_evidence::Ledger;
use schemas_evidence::note::NoteKey;
use serde_json::{Value, json};

use super::{say, say_json};
use crate::Exit;
use crate::config::Config;
use crate::datadir::DataDir;

#[derive(Debug, Args)]
pub(crate) struct AuditArguments {
    /// Data directory of a server that is not running.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Configuration file of that server.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Machine-readable output.
    #[arg(long)]
    json: bool,
}

/// What an audit found; empty means that everything fits.
pub(crate) fn findings(config: &Config, progress: &ProgressBar) -> anyhow::Result<Vec<Value>> {
    let data = DataDir::open_existing(&config.data)?;
    let key = data.key("log")?;
    let mut found = Vec::new();
    let mut add = |part: &str, batch: &str, file: &str, problem: String| {
        found.push(json!({"part": part, "batch": batch, "file": file, "problem": problem}));
    };
    let note_key = NoteKey::log(&config.origin, key.public()).context("the origin is no log name")?;
    match ingest_tlog::audit_log(&data.folder("log"), &note_key) {
        Ok(audit) => {
            for finding in &audit.findings {
                add("log", "", "", format!("{finding:?}"));
            }
        }
        Err(error) => add("log", "", "", error.to_string()),
    }
    let opened =
        ingest_tlog::FileLog::open(&data.folder("log"), &config.origin, key, ingest_tlog::Options::default());
    let log = match opened {
        Ok(log) => log,
        Err(error) => {
            add("log", "", "", error.to_string());
            return Ok(found);
        }
    };
    let ledger: Arc<dyn Ledger> = Arc::new(log);
    let lake = ingest_lake::audit(&data.folder("lake"), ledger.as_ref(), &mut |done, total| {
        progress.set_length(total);
        progress.set_position(done);
    })?;
    for finding in lake {
        add("lake", &finding.batch, &finding.file, finding.problem);
    }
    for problem in ingest_statements::audit(&data.folder("statements"), ledger.as_ref(), &config.origin)? {
        add("statements", "", "", problem);
    }
    for problem in access_findings(&data.folder("audit"), ledger)? {
        add("accesses", "", "", problem);
    }
    Ok(found)
}

/// Access records against the log: changed, unlogged and lost ones.
fn access_findings(folder: &Path, ledger: Arc<dyn Ledger>) -> anyhow::Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let audit = match query_audit::Audit::open(folder.to_owned(), ledger) {
        Ok(audit) => audit,
        Err(error) => return Ok(vec![error.to_string()]),
    };
    let mut problems: Vec<String> = audit
        .opened()
        .lost
        .iter()
        .map(|index| format!("log entry {index}: its access record is lost"))
        .collect();
    for finding in audit.check()? {
        problems.push(match finding {
            Finding::Changed { record, log_index } => {
                format!("access record {record} is not the one of log entry {log_index}")
            }
            Finding::NotLogged { record } => format!("access record {record} is not in the log"),
        });
    }
    Ok(problems)
}

pub(crate) fn run(arguments: &AuditArguments) -> anyhow::Result<Exit> {
    let mut config = Config::load(arguments.config.as_deref(), &|name| std::env::var(name).ok())?;
    if let Some(data) = &arguments.data {
        config.data.clone_from(data);
    }
    let progress = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let found = findings(&config, &progress)?;
    progress.finish_and_clear();
    let is_clean = found.is_empty();
    if arguments.json {
        say_json(&json!({"clean": is_clean, "findings": found}));
    } else if is_clean {
        say("clean: every file, root, log entry, statement and access record fits");
    } else {
        for finding in &found {
            let text = |name: &str| finding[name].as_str().unwrap_or("").to_owned();
            let place = match text("batch") {
                batch if batch.is_empty() => String::new(),
                batch => format!("batch {batch} file {}: ", text("file")),
            };
            say(format!("{}: {place}{}", text("part"), text("problem")));
        }
    }
    Ok(if is_clean { Exit::Done } else { Exit::Refused })
}
