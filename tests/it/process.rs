//! Real processes for the stories: the binaries as built, a server with its own directory, commands with their output.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::workspace_root;

const READY_SECONDS_MAX: u64 = 60;

/// A binary of this workspace, built in the same way as these tests.
pub(crate) fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--workspace", "--all-targets", "--quiet"])
            .current_dir(workspace_root())
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the workspace does not build");
        let test = std::env::current_exe().expect("own path");
        test.parent().and_then(Path::parent).expect("target directory").to_owned()
    });
    directory.join(name)
}

/// What is beside the clone; `None`, said aloud, where it is absent.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let root =
        std::env::var_os("VITALOG_SHARED").map_or_else(|| workspace_root().join("../shared"), PathBuf::from);
    let found = root.join(path);
    if found.exists() {
        return Some(found.canonicalize().expect("path"));
    }
    eprintln!("skipped: {path} is not beside this clone (VITALOG_SHARED)");
    None
}

/// A server on ports of the system's choice; killed when dropped.
pub(crate) struct Server {
    child: Child,
    directory: PathBuf,
    pub(crate) url: String,
    pub(crate) mqtt_port: u16,
}

impl Server {
    /// Starts on `directory/data`.
    pub(crate) fn start(directory: &Path) -> Server {
        Server::start_with(directory, &[])
    }

    /// As `start`, with more settings by environment.
    pub(crate) fn start_with(directory: &Path, environment: &[(&str, &str)]) -> Server {
        Server::start_as(directory, &[], environment)
    }

    /// As `start_with`, with more arguments.
    pub(crate) fn start_as(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Server {
        let ready = directory.join("ready.json");
        // An earlier server's file must not be taken for this one's.
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory.join("server.log"))
            .expect("log");
        let mut child = Command::new(binary("vitalog"))
            .args(["serve", "--dev", "--data"])
            .arg(directory.join("data"))
            .args(arguments)
            .arg("--ready-file")
            .arg(&ready)
            .env("VITALOG_HTTP", "127.0.0.1:0")
            .env("VITALOG_MQTT", "127.0.0.1:0")
            .env("VITALOG_LAKE_SEAL_SECONDS", "1")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("server starts");
        let started = Instant::now();
        let addresses = loop {
            let text = std::fs::read_to_string(&ready).unwrap_or_default();
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
                break value;
            }
            let ended = child.try_wait().expect("status");
            assert!(ended.is_none(), "the server ended: {}", Self::log_of(directory));
            assert!(
                started.elapsed() < Duration::from_secs(READY_SECONDS_MAX),
                "not ready: {}",
                Self::log_of(directory)
            );
            std::thread::sleep(Duration::from_millis(20));
        };
        let url = format!("http://{}", addresses["http"].as_str().expect("http"));
        let mqtt = addresses["mqtt"].as_str().expect("mqtt");
        let mqtt_port = mqtt.rsplit(':').next().and_then(|port| port.parse().ok()).expect("port");
        Server { child, directory: directory.to_owned(), url, mqtt_port }
    }

    fn log_of(directory: &Path) -> String {
        std::fs::read_to_string(directory.join("server.log")).unwrap_or_default()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// SIGTERM, then waits for the end.
    pub(crate) fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().expect("kill runs").success());
        let status = self.child.wait().expect("wait");
        assert!(status.success(), "{status}: {}", Self::log_of(&self.directory));
    }

    /// Runs `vitalog` against this server.
    pub(crate) fn vitalog(&self, arguments: &[&str]) -> Output {
        Command::new(binary("vitalog")).args(arguments).env("VITALOG_URL", &self.url).output().expect("runs")
    }

    /// As `vitalog`, which must succeed; its stdout.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.vitalog(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {stderr}\n{}", Self::log_of(&self.directory));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// A new key in the directory; its path and did:key.
    pub(crate) fn key(&self, name: &str) -> (String, String) {
        let path = self.directory.join(name).to_string_lossy().into_owned();
        let text = self.ok(&["key", "new", "--out", &path]);
        (path, text.lines().next().expect("did").to_owned())
    }

    /// CSV answer without its header.
    pub(crate) fn sql(&self, token: &str, sql: &str) -> Vec<String> {
        let text = self.ok(&["sql", sql, "--token", token, "--format", "csv"]);
        text.lines().skip(1).map(str::to_owned).collect()
    }

    fn metric_line(&self, name: &str) -> Option<String> {
        let mut answer = ureq::get(format!("{}/metrics", self.url)).call().expect("metrics");
        let text = answer.body_mut().read_to_string().expect("text");
        text.lines().find(|line| line.starts_with(name)).map(str::to_owned)
    }

    /// A metric's value.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let line = self.metric_line(name).unwrap_or_else(|| panic!("no metric {name}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("number")
    }

    /// A counter that may not have counted yet.
    pub(crate) fn metric_or_zero(&self, name: &str) -> u64 {
        if self.metric_line(name).is_some() { self.metric(name) } else { 0 }
    }

    /// Until the bridge has subscribed.
    pub(crate) fn wait_for_bridge(&self) {
        let started = Instant::now();
        while self.metric_or_zero("vitalog_intake_bridge_connected") == 0 {
            assert!(started.elapsed() < Duration::from_secs(20), "the bridge does not connect");
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_millis(300));
    }

    /// Posts one frame, which may be refused as a whole: the status, and the verdicts' codes if there are any.
    pub(crate) fn try_post(&self, body: &[u8]) -> (u16, Vec<String>) {
        let mut answer = ureq::post(format!("{}/v1/frames", self.url))
            .config()
            .http_status_as_error(false)
            .build()
            .header("content-type", "application/cbor-seq")
            .send(body)
            .expect("answer");
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().expect("text");
        let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let code = |verdict: &serde_json::Value| verdict["code"].as_str().expect("code").to_owned();
        (status, answer["verdicts"].as_array().into_iter().flatten().map(code).collect())
    }

    /// Posts a body of frames; the verdicts' codes.
    pub(crate) fn post(&self, body: &[u8]) -> Vec<String> {
        let mut answer = ureq::post(format!("{}/v1/frames", self.url))
            .header("content-type", "application/cbor-seq")
            .send(body)
            .expect("answer");
        let text = answer.body_mut().read_to_string().expect("text");
        let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let code = |verdict: &serde_json::Value| verdict["code"].as_str().expect("code").to_owned();
        answer["verdicts"].as_array().expect("verdicts").iter().map(code).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
