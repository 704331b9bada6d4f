//! `vitalog sql`: a question, its answer in the format asked for, and the manifest beside it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use schemas_evidence::AnswerManifest;
use serde_json::json;

use super::ClientOptions;
use crate::Exit;
use crate::client::Named;

/// Rows shown as a table at most; more is for the machine formats.
const TABLE_ROWS_MAX: usize = 10_000;

/// Shape of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for a human.
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object per line.
    Json,
    /// Arrow IPC stream.
    Arrow,
    /// One Parquet file.
    Parquet,
}

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Format::Table | Format::Arrow => "application/vnd.apache.arrow.stream",
            Format::Csv => "text/csv",
            Format::Json => "application/x-ndjson",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SqlArguments {
    /// The question, one SELECT.
    sql: String,
    /// Bearer token: your own (see `vitalog token`), or one that an identity provider of the deployment signed.
    #[arg(long, env = "VITALOG_TOKEN", hide_env_values = true)]
    token: String,
    /// Purpose of use; needed with a provider's token, which has none. Must be one that the token has or allows.
    #[arg(long)]
    purpose: Option<String>,
    /// Study in whose name is asked; must be one that the token has or allows.
    #[arg(long)]
    study: Option<String>,
    /// Shape of the answer.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write the answer here instead of to stdout.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write the manifest of the answer here, with the question in it: `vitalog-verify manifest F --policy P --result OUT`.
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// Ask the data as it was at this log size; consent is always today's.
    #[arg(long)]
    as_of: Option<u64>,
    #[command(flatten)]
    client: ClientOptions,
}

pub(crate) fn run(arguments: &SqlArguments) -> anyhow::Result<Exit> {
    let format = arguments.format.unwrap_or(if arguments.client.json { Format::Json } else { Format::Table });
    let mut question = json!({"sql": arguments.sql});
    if let Some(size) = arguments.as_of {
        question["as_of"] = size.into();
    }
    let server = &arguments.client.server;
    let named = Named { purpose: arguments.purpose.as_deref(), study: arguments.study.as_deref() };
    let (manifest, mut body) = server.sql(&question, &arguments.token, named, format.media_type())?;
    deliver(format, &mut body, arguments.out.as_deref())?;
    if let Some(path) = &arguments.manifest {
        let id = manifest.context("the server sent no manifest id")?;
        let text = server.get_bytes(&format!("/v1/manifests/{id}"), Some(&arguments.token))?;
        let mut manifest: AnswerManifest =
            serde_json::from_slice(&text).context("the server sent no manifest that can be read")?;
        // The server keeps only its digest.
        manifest.sql = Some(arguments.sql.clone());
        let text = serde_json::to_string_pretty(&manifest)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        if format == Format::Table {
            eprintln!(
                "the manifest speaks of the Arrow stream this table was made of; --format csv keeps its bytes"
            );
        }
        if let Some(rerun) = &manifest.rerun {
            eprintln!(
                "asked before: {} people withdrawn since, {} joined, {} changed",
                rerun.withdrawn, rerun.joined, rerun.changed
            );
        }
    }
    Ok(Exit::Done)
}

fn deliver(format: Format, body: &mut dyn Read, out: Option<&Path>) -> anyhow::Result<()> {
    if let Some(path) = out {
        let mut file =
            std::fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        match format {
            Format::Table => table(body, &mut file)?,
            _ => drop(std::io::copy(body, &mut file).context("the answer broke off: ask again")?),
        }
        return Ok(file.sync_all()?);
    }
    let mut out = std::io::stdout().lock();
    match format {
        Format::Table => table(body, &mut out),
        _ => {
            std::io::copy(body, &mut out).context("the answer broke off: ask again")?;
            Ok(out.flush()?)
        }
    }
}

fn table(body: &mut dyn Read, out: &mut dyn Write) -> anyhow::Result<()> {
    let reader =
        arrow::ipc::reader::StreamReader::try_new(body, None).context("the answer is not an Arrow stream")?;
    let schema = reader.schema();
    let mut batches = Vec::new();
    let mut rows = 0;
    for batch in reader {
        let batch = batch.context("the answer broke off: ask again")?;
        if rows < TABLE_ROWS_MAX {
            batches.push(batch.slice(0, batch.num_rows().min(TABLE_ROWS_MAX - rows)));
        }
        rows += batch.num_rows();
    }
    let text = arrow::util::pretty::pretty_format_batches_with_schema(schema, &batches)?;
    writeln!(out, "{text}")?;
    let noun = if rows == 1 { "row" } else { "rows" };
    if rows > TABLE_ROWS_MAX {
        eprintln!("{rows} {noun}, the first {TABLE_ROWS_MAX} shown; use --format csv for all");
    } else {
        eprintln!("{rows} {noun}");
    }
    Ok(())
}
