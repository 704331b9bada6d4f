//! kill -9 under load, again and again on the same data: nothing acknowledged is lost, nothing is stored twice.
//!
//! Each round starts the server, sends over MQTT or HTTP with connections, window and bodies drawn at random, kills it at a
//! random moment and forgets only what was not answered. Some rounds kill it while it recovers. Frames that were
//! acknowledged in an earlier round are sent again over HTTP now and then, where `OK` instead of `DUP` would betray a loss.
//! Batches are small and seal each second, so that kills fall into sealing too. At the end everything is sent, the server
//! stops, and the lake's files are read by [`stored`], which shares no code with the lake.
//!
//! What it does not show: power loss. A killed process leaves the system's cache as it is, so a server that never synced
//! would pass; the simulated disk of `ingest-wal` is for that.

pub mod stored;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use schemas_frame::Code;

use crate::corpus::{self, Corpus, Head};
use crate::load::figures;
use crate::load::http::{self, HttpLoad};
use crate::load::mqtt::{self, MqttLoad};
use crate::load::{Lap, Pace, Verdicts};
use crate::server::{self, Server};
use crate::shape::{Dice, Kind};

/// Devices of the corpus.
const DEVICES: u32 = 64;
/// Most frames that a round may have answered before the kill.
const ROUND_FRAMES: u64 = 8_192;
/// One in so many rounds is killed while the server starts.
const STARTUP_KILLS: u64 = 6;
/// Longest life of such a server.
const STARTUP_MS: u64 = 250;
/// Longest wait for a round's frames: a server that stands still fails the round.
const ROUND_MAX: Duration = Duration::from_secs(60);
/// Rounds of sending what is left, at the end.
const LAST_ROUNDS: usize = 5;
/// Looks at the answers this often.
const LOOK: Duration = Duration::from_micros(500);
/// One in so many acknowledged frames is sent again.
const AGAIN: u64 = 200;
/// Small batches and segments: sealing and recycling happen all the time.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("VITALOG_LAKE_SEAL_SECONDS", "1"),
    ("VITALOG_LAKE_SEAL_FRAMES", "3000"),
    ("VITALOG_WAL_SEGMENT_BYTES", "1048576"),
];

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server's program.
    pub server: PathBuf,
    /// Rounds that end with a kill.
    pub rounds: u32,
    /// No round begins after so long; what was promised until then is checked all the same.
    pub at_most: Duration,
    /// Everything that is drawn comes from it.
    pub seed: u64,
    /// Kind of frames.
    pub kind: Kind,
    /// Where to work; the caller removes it.
    pub folder: PathBuf,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Outcome {
    /// Kills under load.
    pub kills: u32,
    /// Kills while starting.
    pub startup_kills: u32,
    /// Frames sent at least once.
    pub frames: u64,
    /// Frames that had an answer when a kill came.
    pub acknowledged_before_kills: u64,
    /// Frames on the way when a kill came.
    pub unanswered: u64,
    /// Of those, stored nevertheless: they were answered `DUP` later, as far as HTTP told.
    pub duplicates_answered: u64,
    /// Acknowledged frames that are not stored, or were answered as new a second time.
    pub lost: u64,
    /// Frames stored more than once.
    pub doubled: u64,
    /// Frames stored that nobody sent.
    pub strange: u64,
    /// Frames refused.
    pub refused: u64,
    /// Readings too many (or too few, if negative) in the tables.
    pub readings_off: i64,
}

impl Outcome {
    /// Whether the promise held.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0
            && self.doubled == 0
            && self.strange == 0
            && self.refused == 0
            && self.readings_off == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills under load and {} while starting; {} frames, {} acknowledged and {} unanswered when a kill came; {} lost, {} doubled, {} nobody sent, {} refused, readings off by {}",
            self.kills,
            self.startup_kills,
            self.frames,
            self.acknowledged_before_kills,
            self.unanswered,
            self.lost,
            self.doubled,
            self.strange,
            self.refused,
            self.readings_off
        )
    }
}

/// One way of sending.
#[derive(Debug, Clone, Copy)]
enum Way {
    Mqtt { connections: usize, window: u16 },
    Http { connections: usize, body_frames: usize },
}

impl Way {
    fn draw(dice: &mut Dice) -> Way {
        let connections = 1 + dice.below(8) as usize;
        match dice.below(2) {
            0 => Way::Mqtt { connections, window: 1 + dice.below(300) as u16 },
            _ => Way::Http { connections, body_frames: 1 + dice.below(400) as usize },
        }
    }
}

struct Run<'o> {
    options: &'o Options,
    corpus: Corpus,
    verdicts: Verdicts,
    dice: Dice,
    outcome: Outcome,
    enrolled: bool,
}

/// Runs all rounds and the checks; `progress` is told what happens.
///
/// # Errors
/// When a server does not come up, an answer is wrong, or the audit finds something. A broken promise is in the outcome.
pub fn run(options: &Options, progress: &mut dyn FnMut(String)) -> Result<Outcome> {
    let frames = (u64::from(options.rounds) + 1) * ROUND_FRAMES / u64::from(DEVICES);
    let head = Head::new(options.kind, DEVICES, frames as u32, options.seed)?;
    corpus::make(&head, &options.folder, &|_| {})?;
    let corpus = Corpus::open(&options.folder)?;
    let verdicts = Verdicts::new(corpus.len());
    let (dice, outcome) = (Dice(options.seed), Outcome::default());
    let mut run = Run { options, corpus, verdicts, dice, outcome, enrolled: false };
    let since = Instant::now();
    for round in (0..options.rounds).take_while(|_| since.elapsed() < options.at_most) {
        let text = run.round().with_context(|| format!("round {round}"))?;
        progress(format!("round {round}: {text}"));
    }
    run.finish()?;
    audit(options)?;
    Ok(run.outcome)
}

/// Asks the server's own audit.
fn audit(options: &Options) -> Result<()> {
    let audit = Command::new(&options.server)
        .args(["audit", "--data"])
        .arg(Server::data(&options.folder))
        .output()?;
    ensure!(
        audit.status.success(),
        "audit: {}{}",
        String::from_utf8_lossy(&audit.stdout),
        String::from_utf8_lossy(&audit.stderr)
    );
    Ok(())
}

impl Run<'_> {
    fn start(&mut self) -> Result<Server> {
        let server = Server::start(&self.options.server, &self.options.folder, &ENVIRONMENT)?;
        if !self.enrolled {
            server.station.enrol(&self.corpus.keys)?;
            self.enrolled = true;
        }
        Ok(server)
    }

    fn round(&mut self) -> Result<String> {
        if self.enrolled && self.dice.below(STARTUP_KILLS) == 0 {
            return self.kill_starting();
        }
        let server = self.start()?;
        let way = Way::draw(&mut self.dice);
        let kill_at = 1 + self.dice.below(ROUND_FRAMES);
        let before = self.verdicts.answered();
        let lanes = self.lanes(way);
        let (http, mqtt) = (server.http, server.mqtt);
        let lap = std::thread::scope(|scope| {
            let sender = scope.spawn(|| send(&self.corpus, &self.verdicts, way, (http, mqtt), &lanes));
            let since = Instant::now();
            while self.verdicts.answered() - before < kill_at && !sender.is_finished() {
                if since.elapsed() >= ROUND_MAX {
                    // A small window on a busy machine is slow, and killed as it stands; silence is an error.
                    let answered = self.verdicts.answered() - before;
                    ensure!(answered > 0, "no answer within {ROUND_MAX:?} of {way:?}");
                    break;
                }
                sleep(LOOK);
            }
            let is_loaded = !sender.is_finished();
            server.daemon.kill()?;
            let Ok(lap) = sender.join() else { bail!("the sender panicked") };
            ensure!(is_loaded, "the load ended before the kill: {:?}", lap.as_ref().map(|lap| &lap.problem));
            lap
        })?;
        let answered = self.verdicts.answered() - before;
        self.outcome.kills += 1;
        self.outcome.acknowledged_before_kills += answered;
        self.outcome.unanswered += lap.sent.saturating_sub(answered);
        Ok(format!(
            "{way:?}, killed after {answered} answers, {} on the way",
            lap.sent.saturating_sub(answered)
        ))
    }

    fn kill_starting(&mut self) -> Result<String> {
        let daemon = server::launch(&self.options.server, &self.options.folder, &ENVIRONMENT)?;
        let milliseconds = self.dice.below(STARTUP_MS);
        sleep(Duration::from_millis(milliseconds));
        daemon.kill()?;
        self.outcome.startup_kills += 1;
        Ok(format!("killed {milliseconds} ms after its start"))
    }

    /// What is not settled; over HTTP, with some that is, first.
    fn lanes(&mut self, way: Way) -> Vec<Vec<u32>> {
        let (Way::Mqtt { connections, .. } | Way::Http { connections, .. }) = way;
        let mut frames = Vec::new();
        if matches!(way, Way::Http { .. }) {
            for frame in 0..self.corpus.len() {
                let is_accepted = self.verdicts.get(frame).is_some_and(Code::is_accepted);
                if is_accepted && self.dice.below(AGAIN) == 0 {
                    frames.push(frame);
                }
            }
        }
        frames.extend(self.verdicts.unsettled());
        self.corpus.deal(connections, frames.into_iter())
    }

    /// Sends what is left, waits until it is sealed, stops the server, and reads what is stored.
    fn finish(&mut self) -> Result<()> {
        let server = self.start()?;
        for _ in 0..LAST_ROUNDS {
            let way = Way::Http { connections: 4, body_frames: 256 };
            let lanes = self.corpus.deal(4, self.verdicts.unsettled());
            let lap = send(&self.corpus, &self.verdicts, way, (server.http, server.mqtt), &lanes)?;
            ensure!(lap.problem.is_none(), "{:?}", lap.problem);
            if self.verdicts.unsettled().next().is_none() {
                break;
            }
        }
        ensure!(self.verdicts.unsettled().next().is_none(), "frames stay undecided");
        figures::wait_sealed(&server.station, 0, Instant::now())?;
        server.daemon.stop().context("the server's shutdown")?;
        self.judge()
    }

    fn judge(&mut self) -> Result<()> {
        let lake = Server::data(&self.options.folder).join("lake");
        let found = stored::read(&lake)?;
        let tally = self.verdicts.tally();
        let count = |accepted: bool| -> u64 {
            let codes = tally.iter().filter(|(code, _)| code.is_accepted() == accepted);
            codes.map(|(_, count)| count).sum()
        };
        let judged = stored::judge(&self.corpus, &self.verdicts, &found);
        self.outcome.frames = self.corpus.len() as u64;
        self.outcome.refused = count(false);
        self.outcome.duplicates_answered = tally.get(&Code::Dup).copied().unwrap_or(0);
        // Settled frames are sent again over HTTP only, so a second `OK` is of a frame that was lost in between.
        self.outcome.lost = judged.lost + self.verdicts.kept_again();
        self.outcome.doubled = judged.doubled;
        self.outcome.strange = judged.strange;
        let expected = count(true) * self.corpus.head.kind.readings();
        self.outcome.readings_off = found.readings.cast_signed() - expected.cast_signed();
        Ok(())
    }
}

fn send(
    corpus: &Corpus,
    verdicts: &Verdicts,
    way: Way,
    doors: (std::net::SocketAddr, std::net::SocketAddr),
    lanes: &[Vec<u32>],
) -> Result<Lap> {
    let pace = Pace::default();
    match way {
        Way::Mqtt { connections, window } => mqtt::run(
            corpus,
            &MqttLoad { address: doors.1, connections, window, threads: 1, pace },
            lanes,
            verdicts,
        ),
        Way::Http { body_frames, .. } => {
            http::run(corpus, &HttpLoad { address: doors.0, body_frames, pace }, lanes, verdicts)
        }
    }
}

/// A folder for a run, kept if the run fails.
///
/// # Errors
/// What [`run`] returns, with the seed and the folder that was kept; a broken promise is an error here.
pub fn run_in_temporary(options: &Options, progress: &mut dyn FnMut(String)) -> Result<Outcome> {
    let parent: &Path = &options.folder;
    let folder = tempfile::Builder::new().prefix("vitalog-crash-").tempdir_in(parent)?;
    let options = Options { folder: folder.path().to_owned(), ..options.clone() };
    let result = run(&options, progress);
    let problem = match result {
        Ok(outcome) if outcome.is_clean() => return Ok(outcome),
        Ok(outcome) => anyhow::anyhow!("{outcome}"),
        Err(error) => error,
    };
    let kept = folder.keep();
    Err(problem.context(format!("seed {}, kept in {}", options.seed, kept.display())))
}
