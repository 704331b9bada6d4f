//! One simulated machine: the real admission queue, checking, deciding thread, write-ahead log, lake with its compaction, quarantine on
//! simulated disks, driven step by step in one thread. What a thread would do beside another is played by `Plug`, which
//! lets a group be decided in the middle of a seal.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ingest_devices::{Limits, Windows};
use ingest_intake::{Admission, AdmissionOptions, Allowed, Door, Drain, Inbox, Via, admission::Received};
use ingest_lake::{Compaction, Lake};
use ingest_quarantine::Budgets;
use ingest_wal::Wal;
use ingest_wal::sim::SimDisk;
use parking_lot::Mutex;
use schemas_identity::Register;
use tempfile::TempDir;

use super::desk::Desk;
use super::dice::Dice;
use super::disks::{LakeDisk, LedgerDisk, WalDisk};
use super::fleet::{Senders, TrustingVerifier, register};
use super::plug::Plug;
use crate::check::{Group, check};
use crate::duties::Duties;
use crate::recover::wal_options;
use crate::{Decider, Metrics, Options, Shared, StartError};

/// A Monday morning.
const START_US: i64 = 1_750_000_000_000_000;
/// A start may fail this often before it counts as a problem: each failure is one more crash.
const STARTS_MAX: usize = 12;

/// What lives as long as the process.
pub(super) struct Life {
    pub(super) decider: Arc<Mutex<Decider>>,
    pub(super) lake: Arc<Lake>,
    admission: Admission,
    inbox: Inbox,
    pub(super) groups: Vec<Group>,
    pub(super) ledger_poisoned: Arc<Mutex<bool>>,
}

/// What a process finds when it starts, and who talks to it.
pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) plug: Plug,
    pub(super) wal: SimDisk,
    pub(super) lake_disk: LakeDisk,
    pub(super) ledger: LedgerDisk,
    pub(super) dir: TempDir,
    pub(super) desk: Arc<Mutex<Desk>>,
    pub(super) senders: Senders,
    pub(super) now_us: i64,
    pub(super) life: Option<Life>,
    pub(super) restarts: u64,
    options: Options,
    tail_bytes_max: u64,
    compaction: Compaction,
    windows: Limits,
    register: Arc<Register>,
    metrics: Metrics,
}

/// In memory where the system has that: the simulation plays what syncs do, the disk need not.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut dice = Dice::new(seed);
        let dir = directory();
        let plug = Plug::default();
        let desk: Arc<Mutex<Desk>> = Arc::default();
        let on_death = desk.clone();
        plug.at_death(Arc::new(move || on_death.lock().hang_up()));
        // Small, so that segments are many: full ones, spare ones, several released at once.
        let segment_bytes = [6 << 10, 6 << 10, 6 << 10, 40 << 10][dice.below(4)];
        let segments = 2 + dice.below(12) as u64;
        let wal_options = ingest_wal::Options {
            dir: "unused".into(),
            segment_bytes,
            bytes_max: segment_bytes * segments,
            free_bytes_min: 0,
            first_position: 0,
        };
        let options = Options {
            wal: wal_options,
            quarantine: dir.path().join("quarantine"),
            quarantine_budgets: Budgets::default(),
            windows_bytes_max: Limits::default().bytes_max,
            seal_frames: u64::MAX,
            seal_bytes: u64::MAX,
            seal_after: Duration::MAX,
        };
        let small =
            Limits { digests_per_boot: 2, runs_per_boot: 2, boots_per_device: 2, ..Limits::default() };
        World {
            plug: plug.clone(),
            wal: SimDisk::new(dice.next()),
            lake_disk: LakeDisk::new(&dir.path().join("lake"), plug),
            ledger: LedgerDisk::new(),
            desk,
            senders: Senders::new(&mut dice),
            now_us: START_US,
            life: None,
            restarts: 0,
            options,
            tail_bytes_max: [4 << 10, 20 << 10, 1 << 20][dice.below(3)],
            compaction: Compaction {
                fan_in: [2, 2, 3][dice.below(3)],
                keep: [Duration::ZERO, Duration::from_secs(30)][dice.below(2)],
                ..Compaction::default()
            },
            windows: if dice.one_in(4) { small } else { Limits::default() },
            register: Arc::new(register()),
            metrics: Metrics::register(&prometheus::Registry::new()).unwrap(),
            dir,
            dice,
        }
    }

    /// Starts the process; it may die while it does, any number of times.
    pub(super) fn start(&mut self) {
        for attempt in 0..STARTS_MAX {
            if attempt < STARTS_MAX / 2 && self.dice.one_in(5) {
                self.plug.die_in(1 + self.dice.below(10) as u64);
            }
            match self.start_once() {
                Ok(life) => {
                    self.life = Some(life);
                    self.restarts += 1;
                    return;
                }
                Err(_) if self.plug.is_down() => {
                    let power = self.dice.one_in(2);
                    self.end(power);
                }
                // Somebody makes room, then starts it again.
                Err(_) if self.plug.is_full() => self.plug.set_full(false),
                Err(error) => {
                    self.problem(format!("cannot start: {error:?}"));
                    return;
                }
            }
        }
        self.problem("cannot start".into());
    }

    pub(super) fn start_once(&self) -> Result<Life, StartError> {
        let ledger = self.ledger.open(self.plug.clone());
        let ledger_poisoned = ledger.poison();
        let mut options = ingest_lake::Options::new(self.dir.path().join("lake"));
        options.tail_bytes_max = self.tail_bytes_max;
        options.compaction = self.compaction.clone();
        options.faults = Some(Arc::new(self.lake_disk.clone()));
        let lake = Arc::new(Lake::open(options, Arc::new(ledger))?);
        let disk = WalDisk { sim: self.wal.clone(), plug: self.plug.clone() };
        let (wal, replay) = Wal::open_on(Arc::new(disk), &wal_options(&self.options, &lake))?;
        let register = self.register.clone();
        let source = Arc::new(move || register.clone());
        let shared = Arc::new(Shared::default());
        let now_us = self.now_us;
        let (duties, _) = Duties::new(Arc::new(move || now_us), self.metrics.admission.clone());
        let metrics = self.metrics.clone();
        let mut decider = Decider::new(&self.options, source, lake.clone(), wal, duties, metrics, shared)?;
        decider.windows = Windows::new(self.windows);
        let recovered = decider.recover(replay)?;
        if recovered.frames != lake.waiting().0 {
            self.problem(format!("{recovered:?}, but {} frames wait", lake.waiting().0));
        }
        let (admission, inbox) = Admission::new(AdmissionOptions { bytes_max: 60_000, frames_max: 30 });
        let decider = Arc::new(Mutex::new(decider));
        Ok(Life { decider, lake, admission, inbox, groups: Vec::new(), ledger_poisoned })
    }

    /// Ends the process as it stands; its disks keep what a kill or a power loss leaves.
    pub(super) fn end(&mut self, power: bool) {
        if !self.plug.is_down() {
            self.plug.die();
        }
        self.life = None;
        if power {
            self.wal.restart_after_power_loss();
            self.lake_disk.lose_power(&mut self.dice);
        } else {
            self.wal.restart_after_kill();
        }
        self.plug.revive();
    }

    pub(super) fn problem(&self, problem: String) {
        self.desk.lock().problems.push(problem);
    }

    /// Offers some frames in one submission.
    pub(super) fn offer(&mut self, frames: Vec<usize>) {
        let Some(life) = &self.life else { return };
        let mut desk = self.desk.lock();
        let bytes = frames.iter().map(|frame| desk.sent[*frame].bytes.clone()).collect();
        let via = Via { door: Door::Http, peer: None, allowed: Allowed::All, topic_device: None };
        match life.admission.offer(bytes, via) {
            Ok(answer) => {
                frames.iter().for_each(|frame| {
                    desk.todo.remove(frame);
                });
                desk.wait(answer, frames);
            }
            Err(_) => desk.todo.extend(frames),
        }
    }

    /// What a checking thread does: takes a group and checks it. False if nothing waits.
    pub(super) fn check(&mut self) -> bool {
        let Some(life) = &mut self.life else { return false };
        let drain = Drain { submissions_max: 1 + self.dice.below(4), bytes_max: 20_000 };
        let mut submissions = Vec::new();
        if !matches!(life.inbox.try_recv_many(&mut submissions, drain), Received::Some(_)) {
            return false;
        }
        let checked = check(&self.register, &TrustingVerifier, self.now_us, &submissions);
        life.groups.push(Group { submissions, checked, taken_at: std::time::Instant::now() });
        true
    }

    /// What the deciding thread does with the groups that are checked, if the lake has room.
    pub(super) fn decide(&mut self) {
        let Some(life) = &mut self.life else { return };
        if life.lake.has_room() && !life.groups.is_empty() {
            let count = 1 + self.dice.below(life.groups.len());
            let mut groups: Vec<Group> = life.groups.drain(..count).collect();
            life.decider.lock().decide(&mut groups);
            self.read_answers();
        }
    }

    fn read_answers(&self) {
        if !self.plug.is_down() {
            self.desk.lock().harvest();
        }
    }

    /// What the deciding thread does between groups.
    pub(super) fn tidy(&mut self) {
        let Some(life) = &self.life else { return };
        let mut decider = life.decider.lock();
        decider.release();
        if self.dice.one_in(2) {
            let _ = decider.wal.prepare();
        }
    }

    /// What the sealing thread does; the deciding thread may work in the middle of it.
    pub(super) fn seal(&mut self) {
        self.in_background(|lake, _| {
            let _ = lake.seal();
        });
    }

    /// What the compacting thread does; the deciding thread may work in the middle of it.
    pub(super) fn compact(&mut self) {
        self.in_background(|lake, now_us| {
            let _ = lake.remove_replaced(now_us);
            let _ = lake.compact(now_us, &|| true);
        });
    }

    fn in_background(&mut self, work: impl FnOnce(&Lake, i64)) {
        let Some(life) = &mut self.life else { return };
        if self.dice.one_in(2) && life.lake.has_room() {
            let mut groups = std::mem::take(&mut life.groups);
            let (decider, desk, plug) = (life.decider.clone(), self.desk.clone(), self.plug.clone());
            let releases = self.dice.one_in(2);
            let work = move || {
                decider.lock().decide(&mut groups);
                if !plug.is_down() {
                    desk.lock().harvest();
                }
                if releases {
                    decider.lock().release();
                }
            };
            self.plug.interrupt(self.dice.below(24) as u64, Box::new(work));
        }
        work(&life.lake, self.now_us);
        if let Some(work) = self.plug.uninterrupted()
            && !self.plug.is_down()
        {
            work();
        }
    }

    /// Whether only a restart helps.
    pub(super) fn is_stuck(&self) -> bool {
        let stuck = |life: &Life| life.decider.lock().wal.is_poisoned() || *life.ledger_poisoned.lock();
        self.life.as_ref().is_some_and(stuck)
    }
}
