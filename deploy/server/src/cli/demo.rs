//! `vitalog demo`: the whole story on loopback, against a real server process with its own data directory. Every line is
//! printed from what came back; a line that would not be true is an error instead.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bench_fleet::send::{HttpSender, SendOptions, Tally};
use bench_fleet::simulate::Fleet;
use clap::Args;
use schemas_frame::{Code, Frame};
use schemas_identity::SecretKey;
use schemas_identity::token::Scope;
use serde_json::{Map, Value, json};

use super::{ClientOptions, consent, devices, say};
use crate::Exit;
use crate::client::{Named, Server, now_us};
use crate::config::{Config, DEV_ORIGIN};

const READY_SECONDS_MAX: u64 = 20;
const SEAL_SECONDS_MAX: u64 = 20;
const STOP_SECONDS_MAX: u64 = 15;
const PURPOSE: &str = "HRESCH";
/// Frames of the story.
const ROUNDS: u64 = 12;
const SEED: u64 = 2026;

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Keep the data directory here (it must not exist yet); otherwise it is removed at the end.
    #[arg(long)]
    keep: Option<PathBuf>,
}

/// A server of our own binary, stopped when the story ends, however it ends.
struct Running {
    child: Child,
    options: ClientOptions,
}

impl Running {
    fn start(directory: &Path) -> anyhow::Result<Running> {
        let ready = directory.join("ready.json");
        let log = std::fs::File::create(directory.join("server.log"))?;
        let child = Command::new(std::env::current_exe()?)
            .args(["serve", "--dev", "--data"])
            .arg(directory.join("data"))
            .arg("--ready-file")
            .arg(&ready)
            .envs([("VITALOG_HTTP", "127.0.0.1:0"), ("VITALOG_MQTT", "127.0.0.1:0")])
            .env("VITALOG_LAKE_SEAL_SECONDS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start the server")?;
        let mut running = Running {
            child,
            options: ClientOptions {
                server: Server { url: String::new(), aud: DEV_ORIGIN.into(), ca: None },
                json: false,
            },
        };
        let addresses = running.wait_ready(&ready)?;
        let http = addresses["http"].as_str().context("the ready file names no HTTP address")?;
        running.options.server.url = format!("http://{http}");
        Ok(running)
    }

    fn wait_ready(&mut self, ready: &Path) -> anyhow::Result<Value> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(READY_SECONDS_MAX) {
            if let Ok(text) = std::fs::read_to_string(ready) {
                return Ok(serde_json::from_str(&text)?);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "the server ended before it was ready ({status}); see server.log in the data directory"
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the server was not ready within {READY_SECONDS_MAX} s");
    }

    /// SIGTERM, as an operator would, and waits.
    fn stop(mut self) -> anyhow::Result<()> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status();
        if !status.is_ok_and(|status| status.success()) {
            self.child.kill()?;
        }
        let started = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(
                started.elapsed() < Duration::from_secs(STOP_SECONDS_MAX),
                "the server did not stop in time"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Story {
    running: Running,
    directory: PathBuf,
    device: SecretKey,
    patient: SecretKey,
    researcher: SecretKey,
    frames: Vec<Vec<u8>>,
    line: u32,
}

impl Story {
    fn tell(&mut self, text: &str) {
        self.line += 1;
        say(format!("{:2}  {text}", self.line));
    }

    fn server(&self) -> &Server {
        &self.running.options.server
    }

    fn send(&self, frames: &[Vec<u8>]) -> anyhow::Result<Tally> {
        let sender = HttpSender::new(&self.server().url, SendOptions::default());
        Ok(sender.send(frames, &mut |_| {})?)
    }

    fn count(&self) -> anyhow::Result<u64> {
        let token = self.server().own_token(&self.researcher, PURPOSE, Scope::Sql)?;
        let question = json!({"sql": "SELECT count(*) AS n FROM readings"});
        let (_, mut body) = self.server().sql(&question, &token, Named::default(), "application/x-ndjson")?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut body, &mut text)?;
        let row: Value = serde_json::from_str(text.trim()).context("the answer is no JSON row")?;
        row["n"].as_u64().context("the answer has no count")
    }

    fn capture(&mut self) -> anyhow::Result<()> {
        let maker = crate::serve::dev_maker();
        devices::enrol_device(self.server(), &self.device, &maker, "simulated")?;
        let id = self.device.public().short_id();
        devices::bind_device(self.server(), id, &self.patient, &self.device, None, None)?;
        let mut good = self.frames.clone();
        let lost = good.remove(5);
        let tally = self.send(&good)?;
        let accepted = tally.of(Code::Ok);
        ensure!(accepted == good.len() as u64, "not every good frame was accepted: {:?}", tally.by_code);
        self.tell(&format!("{accepted} signed frames accepted, each verdict given after the disk had it"));
        let mut flipped = lost.clone();
        if let Some(byte) = flipped.last_mut() {
            *byte ^= 1;
        }
        let tally = self.send(&[flipped])?;
        ensure!(tally.of(Code::SigBad) == 1, "the damaged frame was not refused: {:?}", tally.by_code);
        self.tell("one bit flipped on the way: refused SIG_BAD");
        let tally = self.send(&good[..1])?;
        ensure!(tally.of(Code::Dup) == 1, "the replay was not recognised: {:?}", tally.by_code);
        self.tell("the first frame sent again: DUP, stored once");
        self.show_gap()
    }

    fn show_gap(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(SEAL_SECONDS_MAX) {
            let answer = self.server().get("/v1/devices", None)?;
            if let Some(gap) = answer.body["devices"][0]["gaps"].as_array().and_then(|gaps| gaps.first()) {
                let (from, to) = (gap["from"].clone(), gap["to"].clone());
                self.tell(&format!("a frame never arrived: the device shows the gap {from}..{to}"));
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the missing frame did not show as a gap");
    }

    fn consent(&mut self) -> anyhow::Result<()> {
        let before = self.count()?;
        ensure!(before == 0, "rows were visible without a grant: {before}");
        self.tell("a researcher asks without a grant: 0 rows");
        let mut fields = Map::new();
        fields.insert("subject".into(), json!(self.patient.public().did()));
        let researcher = self.researcher.public().did().to_string();
        fields.insert("grantee".into(), json!({"kind": "party", "value": researcher}));
        fields.insert("signals".into(), json!(["*"]));
        fields.insert("purposes".into(), json!([PURPOSE]));
        fields.insert("export".into(), json!("rows"));
        let receipt = consent::grant_fields(&self.running.options, &self.patient, "grant", &fields)?;
        let rows = self.count()?;
        ensure!(rows > 0, "the grant opened nothing");
        self.tell(&format!(
            "the patient grants with their own key (log index {}): SQL counts {rows} readings",
            receipt["log_index"]
        ));
        let started = Instant::now();
        consent::revoke(&self.running.options, &self.patient, "*")?;
        let rows = self.count()?;
        let took = started.elapsed();
        ensure!(rows == 0, "rows were visible after the revocation: {rows}");
        self.tell(&format!(
            "the patient revokes; the next SQL counts {rows}, {:.1} ms after the click",
            took.as_secs_f64() * 1e3
        ));
        self.report()
    }

    fn report(&mut self) -> anyhow::Result<()> {
        let token = self.server().own_token(&self.patient, "PATRQT", Scope::Sql)?;
        let answer = self.server().get("/v1/me/accesses", Some(&token))?;
        ensure!(answer.status == 200, "the access report was refused ({})", answer.status);
        let accesses = answer.body["accesses"].as_array().cloned().unwrap_or_default();
        ensure!(accesses.len() >= 2, "the access report misses queries: {}", answer.body);
        let rows: u64 = accesses.iter().filter_map(|access| access["rows"].as_u64()).sum();
        self.tell(&format!(
            "the access report lists {} attempts on this person for {PURPOSE}, {rows} rows released",
            accesses.len()
        ));
        Ok(())
    }

    /// Fetches the proof of one frame and checks it with the verifier's own code, which sees only the file and the policy.
    fn prove(&mut self) -> anyhow::Result<()> {
        let frame = Frame::parse(&self.frames[2]).map_err(|error| anyhow::anyhow!("{error}"))?;
        let path = format!("/v1/evidence?device={}&boot={}&seq={}", frame.kid(), frame.boot(), frame.seq());
        let evidence = super::prove::fetch(self.server(), &path, &self.patient)?;
        let key = std::fs::read_to_string(self.directory.join("data/keys/log.pem"))?;
        let key = SecretKey::from_pem(&key)?;
        let log = schemas_evidence::note::NoteKey::log(DEV_ORIGIN, key.public())?;
        let policy =
            schemas_evidence::policy::Policy::of_log(log, &[crate::serve::dev_maker().public().did()]);
        schemas_evidence::evidence::Evidence::verify(&evidence, &policy)
            .context("the proof does not verify")?;
        let mut forged = evidence.clone();
        let middle = forged.len() / 2;
        forged[middle] ^= 1;
        let refusal = match schemas_evidence::evidence::Evidence::verify(&forged, &policy) {
            Ok(_) => bail!("a forged proof verified"),
            Err(error) => error.step().name(),
        };
        std::fs::write(self.directory.join("frame.evidence"), &evidence)?;
        std::fs::write(self.directory.join("policy.txt"), policy.to_text())?;
        let size = evidence.len();
        self.tell(&format!("the proof of one frame ({size} bytes) verifies offline; one byte changed: refused at step `{refusal}`"));
        Ok(())
    }
}

/// Flips one byte in the middle of a Parquet file and lets the audit find it.
fn tamper(directory: &Path) -> anyhow::Result<String> {
    let config = Config { data: directory.join("data"), ..Config::default() };
    let hidden = indicatif::ProgressBar::hidden();
    let before = super::audit::findings(&config, &hidden)?;
    ensure!(before.is_empty(), "the audit is not clean before anything was changed: {before:?}");
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(directory.join("data/lake"))? {
        files.push(entry?.path());
    }
    files.retain(|path| path.to_string_lossy().ends_with(".scalar.parquet"));
    files.sort();
    let path = files.first().context("no Parquet file was written")?;
    let mut bytes = std::fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes)?;
    let found = super::audit::findings(&config, &hidden)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let batch = found
        .iter()
        .find(|finding| finding["file"] == name.as_str())
        .and_then(|finding| finding["batch"].as_str());
    let batch = batch.context("the audit did not find the changed byte")?;
    Ok(format!("one byte of a Parquet file changed: audit, clean before, names batch {batch}"))
}

fn play(directory: &Path) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut fleet = Fleet::new(1, SEED, &[], now_us() - 3_600_000_000);
    let mut frames = Vec::new();
    for _ in 0..ROUNDS {
        frames.extend(fleet.next_round()?);
    }
    let device = &fleet.devices()[0];
    let copy = |key: &SecretKey| SecretKey::from_pem(&key.to_pem());
    let mut story = Story {
        running: Running::start(directory)?,
        directory: directory.to_owned(),
        device: copy(&device.key)?,
        patient: copy(&device.subject)?,
        researcher: SecretKey::generate().map_err(|error| anyhow::anyhow!("no randomness: {error}"))?,
        frames,
        line: 0,
    };
    story.capture()?;
    story.consent()?;
    story.prove()?;
    let line = story.line + 1;
    story.running.stop()?;
    say(format!("{line:2}  {}", tamper(directory)?));
    eprintln!("the story took {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

pub(crate) fn run(arguments: &DemoArguments) -> anyhow::Result<Exit> {
    let (directory, is_kept) = match &arguments.keep {
        Some(path) => (path.clone(), true),
        None => (std::env::temp_dir().join(format!("vitalog-demo-{}", std::process::id())), false),
    };
    std::fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let played = play(&directory);
    if is_kept {
        eprintln!("kept in {}", directory.display());
    } else if let Err(error) = std::fs::remove_dir_all(&directory) {
        eprintln!("cannot remove {}: {error}", directory.display());
    }
    played.map(|()| Exit::Done)
}
