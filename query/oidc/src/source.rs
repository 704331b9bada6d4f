//! Where keys come from: a file, or a URL. Nothing a token says has a part in it.
//!
//! A URL is https, or http to this machine; redirections are not followed, the answer must be 200, and time and bytes have an
//! end. Blocking: callers are not on an async thread.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// Largest document of keys, bytes.
pub const DOCUMENT_BYTES_MAX: u64 = 256 * 1024;
/// Longest fetch, from the name of the host to the last byte.
pub const FETCH_TIME_MAX: Duration = Duration::from_secs(10);
/// Largest file of certificate authorities, bytes.
const AUTHORITIES_BYTES_MAX: u64 = 1024 * 1024;

/// Why a document could not be had.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// More than [`DOCUMENT_BYTES_MAX`].
    #[error("{path} has more than {most} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// How many there may be.
        most: u64,
    },
    /// No certificate where some should be.
    #[error("{path} holds no PEM certificate")]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// Not reached, too slow, too long, or not believed.
    #[error("{url}: {source}")]
    Url {
        /// Which.
        url: String,
        /// What happened.
        source: Box<ureq::Error>,
    },
    /// Reached, with another answer than 200.
    #[error("{url} answers {status}")]
    Status {
        /// Which.
        url: String,
        /// The answer.
        status: u16,
    },
}

/// A place with a document of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file that somebody else writes, best by renaming.
    File(PathBuf),
    /// An address.
    Url {
        /// `https://`, or `http://` to this machine.
        url: String,
        /// PEM authorities that its certificate must come from; `None` = the public ones.
        authorities: Option<PathBuf>,
    },
}

impl Source {
    /// Whether it may be read each second.
    pub(crate) fn is_cheap(&self) -> bool {
        matches!(self, Source::File(_))
    }

    /// The document as it is now.
    pub(crate) fn read(&self) -> Result<Vec<u8>, SourceError> {
        match self {
            Source::File(path) => bounded(path, DOCUMENT_BYTES_MAX),
            Source::Url { url, authorities } => {
                let agent = agent(url, authorities.as_ref())?;
                let failed = |source| SourceError::Url { url: url.clone(), source: Box::new(source) };
                let answer = agent.get(url).header("accept", "application/json").call().map_err(failed)?;
                let status = answer.status().as_u16();
                if status != 200 {
                    return Err(SourceError::Status { url: url.clone(), status });
                }
                answer.into_body().into_with_config().limit(DOCUMENT_BYTES_MAX).read_to_vec().map_err(failed)
            }
        }
    }
}

fn bounded(path: &PathBuf, most: u64) -> Result<Vec<u8>, SourceError> {
    let failed = |source| SourceError::File { path: path.clone(), source };
    let mut bytes = Vec::new();
    // One more than may be, to see that there are more.
    File::open(path).map_err(failed)?.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(SourceError::TooLarge { path: path.clone(), most });
    }
    Ok(bytes)
}

fn agent(url: &str, authorities: Option<&PathBuf>) -> Result<ureq::Agent, SourceError> {
    let is_tls = url.starts_with("https://");
    let mut config = ureq::Agent::config_builder()
        .timeout_global(Some(FETCH_TIME_MAX))
        .max_redirects(0)
        .http_status_as_error(false)
        .https_only(is_tls);
    if !is_tls {
        // What is on this machine is not asked for elsewhere.
        config = config.proxy(None);
    }
    if let Some(path) = authorities {
        let pem = bounded(path, AUTHORITIES_BYTES_MAX)?;
        let certificates: Vec<_> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if certificates.is_empty() {
            return Err(SourceError::NoCertificate { path: path.clone() });
        }
        let roots = RootCerts::Specific(Arc::new(certificates));
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    Ok(config.build().into())
}
