//! Everything in one process: opened in order, connected here and nowhere else, closed in the reverse order.
//!
//! Opening: data directory, log, statements, lake, pipeline, consents, audit, engine, doors.
//! Closing: doors first (nothing new), then the pipeline (decides what waits, seals), then the rest.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use ingest_intake::mqtt::{Endpoint, MqttOptions};
use ingest_intake::{Admission, AdmissionOptions, http as frames_http, tls};
use ingest_lake::Lake;
use ingest_pipeline::{Desk, Parts, Pipeline, Standings};
use ingest_statements::Statements;
use ingest_tlog::FileLog;
use ingest_verify::hashes::SideBySide;
use query_audit::Audit;
use query_consents::Consents;
use query_doors::http::DoorState;
use query_doors::{Limiter, Rates};
use query_engine::{Engine, Manifests};
use query_tokens::Tokens;
use schemas_evidence::Ledger;
use schemas_identity::statement::{Body, Maker, sign};
use schemas_identity::{Did, SecretKey};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::client::now_us;
use crate::config::{Config, Listen};
use crate::datadir::{DataDir, write_durable};

mod bridge;
mod clock;
mod devices;
mod evidence;
mod gatekeeper;
mod listen;
mod oidc;
mod quarantine;
mod routes;
mod tables;
mod verification;

#[cfg(test)]
mod tests;

/// Uses of tokens that a crash may lose.
const TOKENS_KEPT_EVERY: Duration = Duration::from_secs(1);
/// Time for a TLS handshake.
const HANDSHAKE_SECONDS: u64 = 10;
/// Seed of the maker that `--dev` registers; public on purpose, worthless outside `--dev`.
const DEV_MAKER_CONTEXT: &str = "vitalog 2026 development maker v1";

/// The maker of `replay` and `simulate` on a server that runs with `--dev`. Everybody has this key.
pub(crate) fn dev_maker() -> SecretKey {
    SecretKey::from_seed(&blake3::derive_key(DEV_MAKER_CONTEXT, b""))
}

/// Addresses as bound, after port 0 was resolved.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    pub(crate) http: Option<SocketAddr>,
    pub(crate) mqtt: Option<SocketAddr>,
}

impl Addresses {
    /// Content of the ready file.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut open = serde_json::Map::new();
        for (name, address) in [("http", self.http), ("mqtt", self.mqtt)] {
            if let Some(address) = address {
                open.insert(name.into(), address.to_string().into());
            }
        }
        open.into()
    }
}

/// A running deployment.
pub(crate) struct Server {
    pub(crate) addresses: Addresses,
    stop: CancellationToken,
    doors: Vec<tokio::task::JoinHandle<()>>,
    pipeline: Arc<parking_lot::Mutex<Option<Pipeline>>>,
    engine: Arc<Engine>,
    patience: Duration,
    _data: DataDir,
}

struct Rooms {
    statements: Arc<Statements>,
    lake: Arc<Lake>,
    ledger: Arc<dyn Ledger>,
    pipeline: Arc<parking_lot::Mutex<Option<Pipeline>>>,
    standings: Standings,
    quarantine: Desk,
    admission: Admission,
    door: DoorState,
    metrics: prometheus::Registry,
}

impl Server {
    /// Opens everything and starts serving.
    pub(crate) async fn start(config: &Config, is_dev: bool) -> anyhow::Result<Server> {
        let data = DataDir::open(&config.data)?;
        let settings = (config.clone(), is_dev);
        // Opening reads and syncs files: not on the async threads.
        let (rooms, data) = tokio::task::spawn_blocking(move || {
            let rooms = open_rooms(&settings.0, settings.1, &data)?;
            anyhow::Ok((rooms, data))
        })
        .await??;
        let (pipeline, engine) = (rooms.pipeline.clone(), rooms.door.engine.clone());
        let stop = CancellationToken::new();
        let keeping =
            tokio::spawn(keep_tokens(rooms.door.tokens.clone(), rooms.door.clock.clone(), stop.clone()));
        let keys = oidc::keep(rooms.door.tokens.providers(), &rooms.door.clock, &stop);
        let (addresses, mut doors) = open_doors(config, is_dev, rooms, &data, &stop).await?;
        doors.push(keeping);
        doors.extend(keys);
        for (name, listen) in [("postgres", &config.listen.postgres), ("flight", &config.listen.flight)] {
            if *listen != Listen::Off {
                tracing::warn!(door = name, "this door is not built yet and stays closed");
            }
        }
        let patience = Duration::from_secs(config.shutdown_seconds);
        Ok(Server { addresses, stop, doors, pipeline, engine, patience, _data: data })
    }

    /// Closes the doors, lets what was taken become durable and answered, seals, ends.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let doors = futures::future::join_all(self.doors);
        if tokio::time::timeout(self.patience, doors).await.is_err() {
            tracing::warn!("doors did not close in time; open connections are dropped");
        }
        let (pipeline, engine) = (self.pipeline.lock().take(), self.engine);
        let closing = tokio::task::spawn_blocking(move || {
            if let Some(pipeline) = pipeline {
                pipeline.stop();
            }
            // The last of its owners waits for its threads.
            drop(engine);
        });
        if let Err(error) = closing.await {
            tracing::error!(%error, "the pipeline did not stop as it should");
        }
    }
}

/// Writes which tokens were used, forgets those that are over; once more at the end.
async fn keep_tokens(tokens: Arc<Tokens>, clock: clock::Clock, stop: CancellationToken) {
    let mut is_last = false;
    while !is_last {
        tokio::select! {
            () = stop.cancelled() => is_last = true,
            () = tokio::time::sleep(TOKENS_KEPT_EVERY) => {}
        }
        let (tokens, now_s) = (tokens.clone(), clock::seconds(&clock));
        // Revocations are written by themselves, so a failure here loses a list at most; the next round tries again.
        match tokio::task::spawn_blocking(move || tokens.keep(now_s)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "uses of tokens are not written"),
            Err(error) => tracing::error!(%error, "uses of tokens are not written"),
        }
    }
}

fn open_rooms(config: &Config, is_dev: bool, data: &DataDir) -> anyhow::Result<Rooms> {
    let metrics = prometheus::Registry::new();
    let mut operators: Vec<Did> = Vec::new();
    for operator in &config.operators {
        operators.push(operator.parse().context("operators")?);
    }
    let dev_operator = if is_dev { Some(data.key("operator")?) } else { None };
    operators.extend(dev_operator.as_ref().map(|key| key.public().did()));
    let log =
        FileLog::open(&data.folder("log"), &config.origin, data.key("log")?, ingest_tlog::Options::default())
            .context("cannot open the log")?;
    let ledger: Arc<dyn Ledger> = Arc::new(log);
    let statements =
        Statements::open(&data.folder("statements"), ledger.clone(), &config.origin, operators.clone())
            .context("cannot open the statements")?;
    let statements = Arc::new(statements);
    if let Some(operator) = &dev_operator {
        register_dev_maker(&statements, &config.origin, operator)?;
    }
    let options = ingest_lake::Options {
        hasher: Arc::new(SideBySide),
        compaction: compaction(config)?,
        tail_bytes_max: config.lake.tail_bytes_max,
        ..ingest_lake::Options::new(data.folder("lake"))
    };
    let lake = Lake::open(options, ledger.clone()).context("cannot open the lake")?;
    let lake = Arc::new(lake);
    let admission_options = AdmissionOptions {
        bytes_max: config.intake.queue_bytes_max,
        frames_max: config.intake.queue_frames_max,
    };
    let (admission, inbox) = Admission::new(admission_options);
    let source = statements.clone();
    let verifiers = verification::start(&config.intake, &metrics)?;
    let parts = Parts {
        inbox,
        register: Arc::new(move || source.register()),
        verifiers,
        lake: lake.clone(),
        metrics: ingest_pipeline::Metrics::register(&metrics)?,
        clock: Arc::new(now_us),
    };
    let pipeline =
        Pipeline::start(pipeline_options(config, data), parts).context("cannot start the pipeline")?;
    tracing::info!(frames = pipeline.recovered.frames, "write-ahead log replayed");
    let door = open_query_side(config, data, &metrics, &statements, &lake, &ledger, operators)?;
    let (standings, quarantine) = (pipeline.standings.clone(), pipeline.quarantine.clone());
    let pipeline = Arc::new(parking_lot::Mutex::new(Some(pipeline)));
    Ok(Rooms { statements, lake, ledger, pipeline, standings, quarantine, admission, door, metrics })
}

fn compaction(config: &Config) -> anyhow::Result<ingest_lake::Compaction> {
    Ok(ingest_lake::Compaction {
        is_on: config.lake.compact,
        fan_in: usize::try_from(config.lake.compact_fan_in)?,
        bytes_max: config.lake.set_bytes_max,
        frames_max: config.lake.set_frames_max,
        keep: Duration::from_secs(config.lake.replaced_keep_seconds),
    })
}

fn pipeline_options(config: &Config, data: &DataDir) -> ingest_pipeline::Options {
    ingest_pipeline::Options {
        wal: ingest_wal::Options {
            segment_bytes: config.wal.segment_bytes,
            bytes_max: config.wal.bytes_max,
            free_bytes_min: config.wal.free_bytes_min,
            ..ingest_wal::Options::new(data.folder("wal"))
        },
        quarantine: data.folder("quarantine"),
        quarantine_budgets: config.quarantine.budgets(),
        windows_bytes_max: usize::try_from(config.intake.windows_bytes_max).unwrap_or(usize::MAX),
        seal_frames: config.lake.seal_frames,
        seal_bytes: config.lake.seal_bytes,
        seal_after: Duration::from_secs(config.lake.seal_seconds),
    }
}

/// Large queries get disk beside the data, if any; never what the write-ahead log may still need.
fn spill(config: &Config, data: &DataDir) -> Option<query_engine::Spill> {
    let bytes_max = config.query.spill_bytes_max;
    let free_bytes_min = config.wal.bytes_max.saturating_add(config.wal.free_bytes_min);
    (bytes_max > 0).then(|| query_engine::Spill { folder: data.folder("spill"), bytes_max, free_bytes_min })
}

fn open_query_side(
    config: &Config,
    data: &DataDir,
    metrics: &prometheus::Registry,
    statements: &Arc<Statements>,
    lake: &Arc<Lake>,
    ledger: &Arc<dyn Ledger>,
    operators: Vec<Did>,
) -> anyhow::Result<DoorState> {
    let secret = data.pseudonym_secret()?;
    let consents = Arc::new(Consents::new(&config.origin, operators, &secret));
    let folded = consents.clone();
    statements.observe(Box::new(move |statement, index, epoch| {
        // The same statements were just folded by the register of the write side, so this cannot differ.
        if let Err(error) = folded.apply(statement, index, epoch) {
            tracing::error!(%error, "a statement in force does not fold on the query side");
        }
    }));
    let audit = Arc::new(
        Audit::open(data.folder("audit"), ledger.clone()).context("cannot open the access records")?,
    );
    let clock = clock::never_back(audit.opened().newest_us, now_us);
    let tables = Arc::new(tables::LakeTables { lake: lake.clone(), statements: statements.clone() });
    let options = query_engine::Options {
        queries_max: usize::try_from(config.query.concurrent_max)?,
        time_max: Duration::from_secs(config.query.timeout_seconds),
        queries_per_principal_max: usize::try_from(config.query.per_principal_max)?,
        memory_bytes_max: usize::try_from(config.query.query_memory_bytes_max)?,
        memory_total_bytes_max: usize::try_from(config.query.memory_bytes_max)?,
        spill: spill(config, data),
        rows_max: config.query.rows_max,
        clock: clock.clone(),
        ..query_engine::Options::default()
    };
    let tokens =
        Tokens::open(&data.folder("tokens"), &config.origin, consents.clone(), clock::seconds(&clock))
            .context("cannot open the tokens")?
            .trusting(oidc::open(config, &secret, metrics, &clock)?);
    let engine = Engine::new(options, tables, consents.clone(), audit.clone())
        .map_err(|error| anyhow::anyhow!("cannot start the query engine: {error:?}"))?;
    // The log vouches for answers as for its checkpoints: with one key, which every policy has already.
    let manifests = Manifests::open(
        data.folder("audit").join("manifests"),
        usize::try_from(config.query.manifests_max)?,
        ledger.clone(),
        audit.clone(),
        data.key("log")?,
    )?;
    Ok(DoorState {
        engine: Arc::new(engine),
        consents,
        audit,
        manifests: Arc::new(manifests),
        tokens: Arc::new(tokens),
        limiter: Arc::new(Limiter::new(Rates {
            address: config.query.address_requests_per_second,
            party: config.query.party_requests_per_second,
            refused: config.query.address_refused_per_second,
        })),
        clock,
        metrics: query_doors::Metrics::new(metrics)?,
    })
}

/// The nonce is fixed, so that the statement is the same at every start and is taken once.
fn register_dev_maker(statements: &Statements, origin: &str, operator: &SecretKey) -> anyhow::Result<()> {
    let maker =
        Maker { party: dev_maker().public().did(), title: "development".into(), from: None, to: None };
    let compact = sign(&Body::Maker(maker), origin, 0, [0; 16], operator);
    statements.submit(&compact, now_us()).context("cannot register the development maker")?;
    Ok(())
}

async fn open_doors(
    config: &Config,
    is_dev: bool,
    rooms: Rooms,
    data: &DataDir,
    stop: &CancellationToken,
) -> anyhow::Result<(Addresses, Vec<tokio::task::JoinHandle<()>>)> {
    let intake_metrics = Arc::new(ingest_intake::Metrics::register(&rooms.metrics, &rooms.admission)?);
    let tls_files = config.has_tls().then(|| (Path::new(&config.tls.cert), Path::new(&config.tls.key)));
    let mut addresses = Addresses::default();
    let mut doors = Vec::new();
    if let Some(address) = config.listen.mqtt.address() {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        addresses.mqtt = Some(listener.local_addr()?);
        let gatekeeper = gatekeeper(&rooms, is_dev);
        let mut options = MqttOptions::new(intake_metrics.clone());
        options.connections_max = usize::try_from(config.intake.mqtt_connections_max)?;
        let endpoint = Endpoint::new(rooms.admission.clone(), Arc::new(gatekeeper), options);
        let authorities = Some(Path::new(&config.tls.client_ca)).filter(|path| !path.as_os_str().is_empty());
        let acceptor = match tls_files {
            Some((cert, key)) => Some(tls::ClientTls::new(cert, key, &[b"mqtt"], authorities)?),
            None => None,
        };
        let stop = stop.clone();
        doors.push(tokio::spawn(async move { endpoint.serve(listener, acceptor, stop).await }));
    }
    doors.extend(bridge::start(&config.bridge, &rooms.admission, &intake_metrics, stop)?);
    if let Some(address) = config.listen.http.address() {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        addresses.http = Some(listener.local_addr()?);
        let mut options = frames_http::HttpOptions::new(intake_metrics);
        options.body_bytes_max = usize::try_from(config.intake.body_bytes_max)?;
        let app = http_routes(is_dev, rooms, data, options)?;
        let connections_max = usize::try_from(config.intake.http_connections_max)?;
        let (within, stop) = (listen::HEADERS_WITHIN, stop.clone());
        doors.push(match tls_files {
            Some((cert, key)) => {
                let tls_config = tls::server_config(cert, key, &[b"h2", b"http/1.1"])?;
                let handshake = Duration::from_secs(HANDSHAKE_SECONDS);
                let listener = tls::TlsListener::new(listener, tls_config, handshake);
                tokio::spawn(listen::serve(listener, app, connections_max, within, stop))
            }
            None => tokio::spawn(listen::serve(listener, app, connections_max, within, stop)),
        });
    }
    Ok((addresses, doors))
}

fn gatekeeper(rooms: &Rooms, is_dev: bool) -> gatekeeper::TokenGatekeeper {
    gatekeeper::TokenGatekeeper {
        statements: rooms.statements.clone(),
        tokens: rooms.door.tokens.clone(),
        clock: rooms.door.clock.clone(),
        is_dev,
    }
}

fn http_routes(
    is_dev: bool,
    rooms: Rooms,
    data: &DataDir,
    options: frames_http::HttpOptions,
) -> anyhow::Result<axum::Router> {
    let pipeline = rooms.pipeline.clone();
    let shared = Arc::new(routes::Shared {
        statements: rooms.statements,
        lake: rooms.lake,
        standings: rooms.standings,
        quarantine: rooms.quarantine,
        admission: rooms.admission.clone(),
        ledger: rooms.ledger,
        log_directory: data.folder("log"),
        statements_total: routes::statement_counter(&rooms.metrics)?,
        metrics: rooms.metrics,
        tokens: rooms.door.tokens.clone(),
        clock: rooms.door.clock.clone(),
        is_dev,
        is_ready: AtomicBool::new(false),
        is_healthy: Box::new(move || pipeline.lock().as_ref().is_some_and(Pipeline::is_healthy)),
    });
    shared.is_ready.store(true, Ordering::Release);
    Ok(frames_http::router(rooms.admission, options)
        .merge(routes::router(shared, rooms.door.limiter.clone(), rooms.door.metrics.clone()))
        .merge(query_doors::http::router(rooms.door))
        .fallback(frames_http::not_found))
}

/// Writes the ready file, whole or not at all.
pub(crate) fn write_ready(path: &Path, addresses: &Addresses) -> anyhow::Result<()> {
    write_durable(path, format!("{}\n", addresses.to_json()).as_bytes(), false)
        .with_context(|| format!("cannot write {}", path.display()))
}
