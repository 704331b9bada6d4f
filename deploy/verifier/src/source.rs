//! A log as a directory or behind a URL. What it is not: trusted; whatever it answers is held against the signed head.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::time::Duration;

use schemas_evidence::tiles::{SourceError, TileSource};
use ureq::Agent;

/// Longest wait for one file, connection included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Most redirects followed.
const REDIRECTS_MAX: u32 = 3;

/// A URL if it looks like one, else a directory.
pub fn open_source(place: &str) -> Box<dyn TileSource> {
    if place.starts_with("http://") || place.starts_with("https://") {
        Box::new(HttpSource::new(place))
    } else {
        Box::new(DirSource::new(PathBuf::from(place)))
    }
}

/// A directory with `checkpoint` and `tile/`.
pub struct DirSource {
    dir: PathBuf,
}

impl DirSource {
    /// The log in this directory.
    pub fn new(dir: PathBuf) -> DirSource {
        DirSource { dir }
    }
}

impl TileSource for DirSource {
    fn read(&mut self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
        let full = self.dir.join(path);
        let failed = |reason: String| SourceError { path: full.display().to_string(), reason };
        let file = match File::open(&full) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error.to_string())),
        };
        let mut bytes = Vec::new();
        file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
        if bytes.len() > bytes_max {
            return Err(failed(format!("is longer than {bytes_max} bytes")));
        }
        Ok(Some(bytes))
    }
}

/// A log served over HTTP. Each answer is bounded in length and time.
pub struct HttpSource {
    base: String,
    agent: Agent,
}

impl HttpSource {
    /// The log below this URL.
    pub fn new(url: &str) -> HttpSource {
        let config = Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            .max_redirects(REDIRECTS_MAX)
            .http_status_as_error(false)
            .build();
        HttpSource { base: url.trim_end_matches('/').to_owned(), agent: Agent::new_with_config(config) }
    }
}

impl TileSource for HttpSource {
    fn read(&mut self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
        let url = format!("{}/{path}", self.base);
        let failed = |reason: String| SourceError { path: url.clone(), reason };
        let sent = self.agent.get(&url).header("Accept-Encoding", "identity").call();
        let mut response = sent.map_err(|error| failed(error.to_string()))?;
        match response.status().as_u16() {
            200 => (),
            404 | 410 => return Ok(None),
            status => return Err(failed(format!("the server answered {status}"))),
        }
        if response.headers().contains_key("content-encoding") {
            return Err(failed("the server compressed what was asked for as it is".to_owned()));
        }
        // The client errs at its limit, not beyond it.
        let body = response.body_mut().with_config().limit(bytes_max as u64 + 1).read_to_vec();
        body.map(Some).map_err(|error| failed(error.to_string()))
    }
}
