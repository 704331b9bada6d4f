//! Configuration: one TOML file, an environment override for each key, checked before anything starts.
//! Not the command line: flags of `serve` are applied on top by `cli::serve`.
//!
//! `[[oidc]]` stands in the file alone. A key `a.b` of the file is overridden by `VITALOG_A_B`; keys of `[listen]` by `VITALOG_HTTP`, `VITALOG_MQTT` and so on.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod bridge;
mod oidc;

pub(crate) use bridge::BridgeConfig;
pub(crate) use oidc::OidcConfig;

/// Log origin used by `--dev` on both sides, so that a developer needs no configuration.
pub(crate) const DEV_ORIGIN: &str = "localhost/vitalog-dev";
/// Largest configuration file that is read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with a configuration; the text names file and line, or the key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// File asked for.
        path: PathBuf,
        /// Reason given by the system.
        source: std::io::Error,
    },
    /// The file is larger than any sensible configuration.
    #[error("{path} has {bytes} bytes, more than {CONFIG_BYTES_MAX}")]
    TooLarge {
        /// File asked for.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Not TOML, an unknown key or a wrong type; the parser's text names the line.
    #[error("{path}: {message}")]
    Syntax {
        /// File asked for.
        path: PathBuf,
        /// The parser's words, with line and column.
        message: String,
    },
    /// An environment override that does not fit its key.
    #[error("environment variable {variable}: {message}")]
    Environment {
        /// Name of the variable.
        variable: String,
        /// What was expected.
        message: String,
    },
    /// Values that are well-formed but must not be used.
    #[error("{key}: {message}")]
    Refused {
        /// The key, as in the file.
        key: &'static str,
        /// Why, and what to do.
        message: String,
    },
}

/// Where a door listens: an address, or `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// The door is not opened.
    Off,
    /// Address; port 0 lets the system choose.
    At(SocketAddr),
}

impl Listen {
    /// The address, if the door is open.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Listen::Off => None,
            Listen::At(address) => Some(*address),
        }
    }
}

impl std::str::FromStr for Listen {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Listen::Off);
        }
        text.parse().map(Listen::At).map_err(|_| format!("`{text}` is neither IP:PORT nor `off`"))
    }
}

impl Serialize for Listen {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Listen::Off => serializer.serialize_str("off"),
            Listen::At(address) => serializer.collect_str(address),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Doors.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ListenConfig {
    /// HTTP: frames, statements, SQL, log tiles, health, metrics.
    pub(crate) http: Listen,
    /// MQTT 3.1.1 and 5.
    pub(crate) mqtt: Listen,
    /// PostgreSQL wire; not built yet: an address is accepted, warned about and not opened.
    pub(crate) postgres: Listen,
    /// Flight SQL; not built yet: an address is accepted, warned about and not opened.
    pub(crate) flight: Listen,
}

/// TLS for every open door.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsConfig {
    /// PEM certificate chain; empty = no TLS, then only loopback addresses are allowed.
    pub(crate) cert: String,
    /// PEM private key.
    pub(crate) key: String,
    /// PEM authorities of MQTT client certificates, whose `did:key` URI then says who a client is; empty = a client
    /// certificate is only its Ed25519 key.
    pub(crate) client_ca: String,
}

/// Doors for writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IntakeConfig {
    /// Largest HTTP body.
    pub(crate) body_bytes_max: u64,
    /// Bytes of frames that may wait for their verdict, over all doors.
    pub(crate) queue_bytes_max: u64,
    /// Frames that may wait for their verdict, over all doors.
    pub(crate) queue_frames_max: u64,
    /// MQTT connections at once.
    pub(crate) mqtt_connections_max: u64,
    /// HTTP connections at once, whatever they ask for.
    pub(crate) http_connections_max: u64,
    /// Memory of what is known of all devices' sequence numbers: 136 bytes for each that ever sent, the rest for recent
    /// digests. With less, frames sent again are looked up in the lake instead.
    pub(crate) windows_bytes_max: u64,
    /// Threads that verify signatures; 0 = half of the machine's cores.
    pub(crate) verify_threads: u64,
    /// Bytes of keys' tables over all of these threads.
    pub(crate) verify_table_bytes_max: u64,
}

/// The write-ahead log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WalConfig {
    /// Size of one preallocated segment.
    pub(crate) segment_bytes: u64,
    /// Bytes all segments may use; beyond it senders are asked to wait.
    pub(crate) bytes_max: u64,
    /// Bytes of the disk that new segments leave free, so that batches can still be sealed; 0 = take all.
    pub(crate) free_bytes_min: u64,
}

/// Bytes of refused frames that are kept, by reason. The oldest make room, except for contradictions: beyond their budget
/// none is kept any more, and an alarm says so.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct QuarantineConfig {
    /// EQUIVOCATION.
    pub(crate) equivocation_bytes_max: u64,
    /// KEY_REVOKED.
    pub(crate) key_revoked_bytes_max: u64,
    /// SIG_BAD.
    pub(crate) sig_bad_bytes_max: u64,
    /// KEY_UNKNOWN.
    pub(crate) key_unknown_bytes_max: u64,
    /// DECODE.
    pub(crate) decode_bytes_max: u64,
}

impl Default for QuarantineConfig {
    fn default() -> Self {
        let budgets = ingest_pipeline::Budgets::default();
        Self {
            equivocation_bytes_max: budgets.equivocation,
            key_revoked_bytes_max: budgets.key_revoked,
            sig_bad_bytes_max: budgets.sig_bad,
            key_unknown_bytes_max: budgets.key_unknown,
            decode_bytes_max: budgets.decode,
        }
    }
}

impl QuarantineConfig {
    pub(crate) fn budgets(&self) -> ingest_pipeline::Budgets {
        ingest_pipeline::Budgets {
            equivocation: self.equivocation_bytes_max,
            key_revoked: self.key_revoked_bytes_max,
            sig_bad: self.sig_bad_bytes_max,
            key_unknown: self.key_unknown_bytes_max,
            decode: self.decode_bytes_max,
        }
    }
}

/// When frames become a batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LakeConfig {
    /// Frames of a batch.
    pub(crate) seal_frames: u64,
    /// Bytes of frames of a batch.
    pub(crate) seal_bytes: u64,
    /// Seconds after the first frame of a batch.
    pub(crate) seal_seconds: u64,
    /// Memory of frames that wait for their batch or are being written; beyond it senders wait. At least twice `seal_bytes`.
    pub(crate) tail_bytes_max: u64,
    /// Whether small files are put together in the background.
    pub(crate) compact: bool,
    /// Neighbouring batches, or sets of them, that become one set.
    pub(crate) compact_fan_in: u64,
    /// Bytes of files of a set, about.
    pub(crate) set_bytes_max: u64,
    /// Frames of a set.
    pub(crate) set_frames_max: u64,
    /// Seconds that replaced files stay; running queries keep theirs longer.
    pub(crate) replaced_keep_seconds: u64,
}

/// Limits of reading.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct QueryConfig {
    /// Memory of all running queries.
    pub(crate) memory_bytes_max: u64,
    /// Seconds from question to last row.
    pub(crate) timeout_seconds: u64,
    /// Rows of one answer.
    pub(crate) rows_max: u64,
    /// Memory of one query.
    pub(crate) query_memory_bytes_max: u64,
    /// Disk for sorts and groupings that are larger than a query's memory, of all queries together, in `DATA/spill`; 0 = none,
    /// they are refused. A query that starts has none either while less than this and `wal.bytes_max` and `wal.free_bytes_min` is free.
    pub(crate) spill_bytes_max: u64,
    /// Queries at once.
    pub(crate) concurrent_max: u64,
    /// Queries at once of one party.
    pub(crate) per_principal_max: u64,
    /// Manifests of answers kept to be fetched, the newest; older ones are removed.
    pub(crate) manifests_max: u64,
    /// Requests per second of one address that come with a token, ten times as many at once; 0 = no limit.
    pub(crate) address_requests_per_second: u32,
    /// Requests per second of one party, ten times as many at once; 0 = no limit.
    pub(crate) party_requests_per_second: u32,
    /// Refused tokens per second of one address, ten times as many at once; beyond it no token from there is looked at,
    /// a good one neither. 0 = no limit.
    pub(crate) address_refused_per_second: u32,
}

/// What the process says about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogConfig {
    /// Filter, such as `info` or `info,ingest_lake=debug`.
    pub(crate) filter: String,
    /// `text` or `json`.
    pub(crate) format: String,
}

/// Everything `serve` needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Name of this deployment's log; statements and tokens name it as their audience.
    pub(crate) origin: String,
    /// Data directory.
    pub(crate) data: PathBuf,
    /// did:key of the operators who sign makers, roles and studies.
    pub(crate) operators: Vec<String>,
    /// Seconds that a graceful stop may take.
    pub(crate) shutdown_seconds: u64,
    /// Doors.
    pub(crate) listen: ListenConfig,
    /// TLS.
    pub(crate) tls: TlsConfig,
    /// Doors for writes.
    pub(crate) intake: IntakeConfig,
    /// Frames from a broker.
    pub(crate) bridge: BridgeConfig,
    /// Write-ahead log.
    pub(crate) wal: WalConfig,
    /// Batches.
    pub(crate) lake: LakeConfig,
    /// Refused frames that are kept.
    pub(crate) quarantine: QuarantineConfig,
    /// Reading.
    pub(crate) query: QueryConfig,
    /// Own log.
    pub(crate) log: LogConfig,
    /// Identity providers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) oidc: Vec<OidcConfig>,
}

fn loopback(port: u16) -> Listen {
    Listen::At(SocketAddr::from(([127, 0, 0, 1], port)))
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self { http: loopback(8080), mqtt: loopback(1883), postgres: Listen::Off, flight: Listen::Off }
    }
}

impl Default for IntakeConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            queue_bytes_max: 64 << 20,
            queue_frames_max: 262_144,
            mqtt_connections_max: 10_000,
            http_connections_max: 4_096,
            windows_bytes_max: 256 << 20,
            verify_threads: 0,
            verify_table_bytes_max: 128 << 20,
        }
    }
}

impl Default for WalConfig {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, bytes_max: 1 << 30, free_bytes_min: 256 << 20 }
    }
}

impl Default for LakeConfig {
    fn default() -> Self {
        Self {
            seal_frames: 65_536,
            seal_bytes: 32 << 20,
            seal_seconds: 10,
            tail_bytes_max: ingest_lake::TAIL_BYTES_MAX,
            compact: true,
            compact_fan_in: ingest_lake::FAN_IN as u64,
            set_bytes_max: ingest_lake::SET_BYTES_MAX,
            set_frames_max: ingest_lake::SET_FRAMES_MAX,
            replaced_keep_seconds: ingest_lake::KEEP.as_secs(),
        }
    }
}

impl Default for QueryConfig {
    fn default() -> Self {
        let rates = query_doors::Rates::default();
        Self {
            memory_bytes_max: 1 << 30,
            query_memory_bytes_max: 1 << 28,
            spill_bytes_max: 1 << 32,
            timeout_seconds: 120,
            rows_max: 50_000_000,
            concurrent_max: 128,
            per_principal_max: 8,
            manifests_max: query_engine::manifest::MANIFESTS_MAX_DEFAULT as u64,
            address_requests_per_second: rates.address,
            party_requests_per_second: rates.party,
            address_refused_per_second: rates.refused,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), format: "text".into() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            origin: DEV_ORIGIN.into(),
            data: "vitalog-data".into(),
            operators: Vec::new(),
            shutdown_seconds: 10,
            listen: ListenConfig::default(),
            tls: TlsConfig::default(),
            intake: IntakeConfig::default(),
            bridge: BridgeConfig::default(),
            wal: WalConfig::default(),
            lake: LakeConfig::default(),
            quarantine: QuarantineConfig::default(),
            query: QueryConfig::default(),
            log: LogConfig::default(),
            oidc: Vec::new(),
        }
    }
}

impl Config {
    /// Reads a file (or the defaults), then the environment.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config, ConfigError> {
        let config = match file {
            Some(path) => Self::read(path)?,
            None => Config::default(),
        };
        let mut table = toml::Table::try_from(&config).map_err(|error| ConfigError::Environment {
            variable: "(defaults)".into(),
            message: error.to_string(),
        })?;
        let mut changed = Vec::new();
        overlay(&mut table, "", environment, &mut changed)?;
        table.try_into().map_err(|error: toml::de::Error| ConfigError::Environment {
            variable: changed.join(", "),
            message: error.message().to_owned(),
        })
    }

    fn read(path: &Path) -> Result<Config, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        if bytes > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLarge { path: path.to_owned(), bytes });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        toml::from_str(&text).map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })
    }

    /// Refuses what is well-formed but unsafe or senseless.
    pub(crate) fn check(&self, dev: bool) -> Result<(), ConfigError> {
        self.check_names(dev)?;
        self.check_doors(dev)?;
        self.bridge.check()?;
        oidc::check(&self.oidc)?;
        self.check_limits()
    }

    fn check_names(&self, dev: bool) -> Result<(), ConfigError> {
        let refused = |key, message: String| Err(ConfigError::Refused { key, message });
        let plain = |c: char| c.is_ascii_graphic() && c != '+';
        if self.origin.is_empty() || self.origin.len() > 200 || !self.origin.chars().all(plain) {
            return refused("origin", "1 to 200 visible ASCII characters without spaces or `+`".into());
        }
        for operator in &self.operators {
            if operator.parse::<schemas_identity::Did>().is_err() {
                return refused("operators", format!("`{operator}` is not an Ed25519 did:key"));
            }
        }
        if self.operators.is_empty() && !dev {
            let message =
                "name at least one operator did:key (`vitalog key new --out operator.pem`), or use --dev";
            return refused("operators", message.into());
        }
        if !["text", "json"].contains(&self.log.format.as_str()) {
            return refused("log.format", format!("`{}` is neither `text` nor `json`", self.log.format));
        }
        Ok(())
    }

    fn check_doors(&self, dev: bool) -> Result<(), ConfigError> {
        let refused = |key, message: String| Err(ConfigError::Refused { key, message });
        if self.tls.cert.is_empty() != self.tls.key.is_empty() {
            return refused("tls", "cert and key go together".into());
        }
        if !self.tls.client_ca.is_empty() && self.tls.cert.is_empty() {
            return refused(
                "tls.client_ca",
                "clients show certificates over TLS only: set tls.cert and tls.key".into(),
            );
        }
        let doors = [("listen.http", &self.listen.http), ("listen.mqtt", &self.listen.mqtt)];
        for (key, listen) in doors {
            let Some(address) = listen.address() else { continue };
            if address.ip().is_loopback() {
                continue;
            }
            if dev {
                return refused(key, format!("{address} is not loopback, and --dev is for loopback only"));
            }
            if self.tls.cert.is_empty() {
                return refused(key, format!("{address} is not loopback: set tls.cert and tls.key"));
            }
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        let limits = [
            ("intake.body_bytes_max", self.intake.body_bytes_max, 1 << 10, 1 << 30),
            ("intake.queue_bytes_max", self.intake.queue_bytes_max, 1 << 17, 1 << 34),
            ("intake.queue_frames_max", self.intake.queue_frames_max, 1, 1 << 24),
            ("intake.mqtt_connections_max", self.intake.mqtt_connections_max, 1, 1 << 20),
            ("intake.http_connections_max", self.intake.http_connections_max, 1, 1 << 20),
            ("intake.verify_threads", self.intake.verify_threads, 0, 1_024),
            ("intake.verify_table_bytes_max", self.intake.verify_table_bytes_max, 1 << 20, 1 << 36),
            ("intake.windows_bytes_max", self.intake.windows_bytes_max, 1 << 20, 1 << 40),
            ("wal.segment_bytes", self.wal.segment_bytes, 1 << 18, 1 << 31),
            ("wal.bytes_max", self.wal.bytes_max, self.wal.segment_bytes.saturating_mul(2), 1 << 40),
            ("wal.free_bytes_min", self.wal.free_bytes_min, 0, 1 << 50),
            ("lake.seal_frames", self.lake.seal_frames, 1, 1 << 20),
            ("lake.seal_bytes", self.lake.seal_bytes, 1 << 10, 1 << 30),
            ("lake.seal_seconds", self.lake.seal_seconds, 1, 3_600),
            (
                "lake.tail_bytes_max",
                self.lake.tail_bytes_max,
                self.lake.seal_bytes.saturating_mul(2),
                1 << 40,
            ),
            ("lake.compact_fan_in", self.lake.compact_fan_in, 2, 64),
            ("lake.set_bytes_max", self.lake.set_bytes_max, 1 << 20, 1 << 34),
            ("lake.set_frames_max", self.lake.set_frames_max, 2, 1 << 24),
            ("lake.replaced_keep_seconds", self.lake.replaced_keep_seconds, 0, 31_536_000),
            ("quarantine.equivocation_bytes_max", self.quarantine.equivocation_bytes_max, 1 << 20, 1 << 40),
            ("quarantine.key_revoked_bytes_max", self.quarantine.key_revoked_bytes_max, 1 << 18, 1 << 40),
            ("quarantine.sig_bad_bytes_max", self.quarantine.sig_bad_bytes_max, 1 << 18, 1 << 40),
            ("quarantine.key_unknown_bytes_max", self.quarantine.key_unknown_bytes_max, 1 << 18, 1 << 40),
            ("quarantine.decode_bytes_max", self.quarantine.decode_bytes_max, 1 << 18, 1 << 40),
            ("query.memory_bytes_max", self.query.memory_bytes_max, 1 << 24, 1 << 40),
            ("query.query_memory_bytes_max", self.query.query_memory_bytes_max, 1 << 24, 1 << 40),
            ("query.spill_bytes_max", self.query.spill_bytes_max, 0, 1 << 44),
            ("query.per_principal_max", self.query.per_principal_max, 1, 10_000),
            ("query.manifests_max", self.query.manifests_max, 1, 10_000_000),
            ("query.timeout_seconds", self.query.timeout_seconds, 1, 86_400),
            ("query.rows_max", self.query.rows_max, 1, u64::MAX),
            ("query.concurrent_max", self.query.concurrent_max, 1, 10_000),
            (
                "query.address_requests_per_second",
                u64::from(self.query.address_requests_per_second),
                0,
                1 << 20,
            ),
            ("query.party_requests_per_second", u64::from(self.query.party_requests_per_second), 0, 1 << 20),
            (
                "query.address_refused_per_second",
                u64::from(self.query.address_refused_per_second),
                0,
                1 << 20,
            ),
            ("shutdown_seconds", self.shutdown_seconds, 1, 600),
        ];
        for (key, value, least, most) in limits {
            if value < least || value > most {
                return Err(ConfigError::Refused {
                    key,
                    message: format!("{value} is not within {least}..={most}"),
                });
            }
        }
        Ok(())
    }

    /// Whether TLS is configured.
    pub(crate) fn has_tls(&self) -> bool {
        !self.tls.cert.is_empty()
    }
}

/// `listen.http` is `VITALOG_HTTP`; every other key is `VITALOG_` and its path.
fn variable_name(path: &str) -> String {
    let short = path.strip_prefix("listen.").unwrap_or(path);
    format!("VITALOG_{}", short.replace('.', "_").to_ascii_uppercase())
}

fn overlay(
    table: &mut toml::Table,
    prefix: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    changed: &mut Vec<String>,
) -> Result<(), ConfigError> {
    for (key, value) in table.iter_mut() {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if let toml::Value::Table(inner) = value {
            overlay(inner, &path, environment, changed)?;
            continue;
        }
        let variable = variable_name(&path);
        let Some(text) = environment(&variable) else { continue };
        *value = typed(value, &text).ok_or_else(|| ConfigError::Environment {
            variable: variable.clone(),
            message: expected(value),
        })?;
        changed.push(variable);
    }
    Ok(())
}

fn typed(like: &toml::Value, text: &str) -> Option<toml::Value> {
    Some(match like {
        toml::Value::Integer(_) => toml::Value::Integer(text.parse().ok()?),
        toml::Value::Boolean(_) => toml::Value::Boolean(text.parse().ok()?),
        toml::Value::Array(_) => toml::Value::Array(
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| part.into()).collect(),
        ),
        _ => toml::Value::String(text.to_owned()),
    })
}

fn expected(like: &toml::Value) -> String {
    format!("expected {}", like.type_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    /// Guarantee: a bad key is named with its line.
    #[test]
    fn a_bad_key_is_named_with_its_line() {
        let path = std::env::temp_dir().join(format!("vitalog-config-{}.toml", std::process::id()));
        std::fs::write(&path, "origin = \"a/b\"\n[wal]\nsegment_byte = 1\n").unwrap();
        let text = Config::load(Some(&path), &nothing).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(text.contains("line 3") && text.contains("segment_byte"), "{text}");
    }

    /// Guarantee: every key has an override, and a wrong one is named.
    #[test]
    fn environment_overrides() {
        let environment = |name: &str| match name {
            "VITALOG_HTTP" => Some("127.0.0.1:0".to_owned()),
            "VITALOG_MQTT" => Some("off".to_owned()),
            "VITALOG_WAL_SEGMENT_BYTES" => Some("1048576".to_owned()),
            _ => None,
        };
        let config = Config::load(None, &environment).unwrap();
        assert_eq!(config.listen.mqtt, Listen::Off);
        assert_eq!(config.wal.segment_bytes, 1 << 20);
        let wrong = |name: &str| (name == "VITALOG_WAL_SEGMENT_BYTES").then(|| "many".to_owned());
        let text = Config::load(None, &wrong).unwrap_err().to_string();
        assert!(text.contains("VITALOG_WAL_SEGMENT_BYTES") && text.contains("integer"), "{text}");
    }

    /// Guarantee: plaintext never leaves loopback, and --dev never does at all.
    #[test]
    fn plaintext_stays_on_loopback() {
        let mut config = Config { operators: Vec::new(), ..Config::default() };
        config.listen.http = "192.0.2.1:8080".parse().unwrap();
        assert!(config.check(true).unwrap_err().to_string().contains("loopback"));
        config.listen.http = "127.0.0.1:0".parse().unwrap();
        assert!(config.check(true).is_ok());
        assert!(config.check(false).unwrap_err().to_string().contains("operators"));
    }
}
