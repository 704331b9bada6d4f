//! The pipeline as a whole, on a real directory: what is refused can come back, and once only.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ingest_intake::{Admission, AdmissionOptions, Allowed, Door, Via};
use ingest_lake::Lake;
use parking_lot::Mutex;
use schemas_evidence::MemoryLedger;
use schemas_frame::{Code, FrameBuilder, OutSeries, OutValues, Reference, Scale};
use schemas_identity::statement::{Body, Enrol, Maker, Statement, proof_of_possession, sign};
use schemas_identity::{BootId, DeviceNumber, Register, SecretKey};

use crate::*;

const ORIGIN: &str = "example.org/log";
/// 2026-03-01T00:00:00Z.
const NOW: i64 = 1_772_323_200_000_000;
const ALL: Filter = Filter { reason: None, device: None, count_max: 10_000, bytes_max: usize::MAX };

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn enrol(register: &Mutex<Arc<Register>>, device: u8, index: u64) {
    let (maker, mut changed) = (key(2).public().did(), Register::clone(&register.lock()));
    let mut apply = |body: &Body, by: u8, index| {
        let compact = sign(body, ORIGIN, 0, [index as u8; 16], &key(by));
        changed.apply(&Statement::parse(&compact, ORIGIN).unwrap(), index).unwrap();
    };
    if index == 0 {
        apply(&Body::Maker(Maker { party: maker, title: String::new(), from: None, to: None }), 1, 0);
    }
    let (device_key, pop) = (key(device).public().did(), proof_of_possession(ORIGIN, &maker, &key(device)));
    apply(&Body::Enrol(Enrol { device_key, model: "M".into(), signals: vec![], pop }), 2, index + 1);
    *register.lock() = Arc::new(changed);
}

fn frame(device: u8, seq: u64, value: u8) -> Bytes {
    let (wall_us, mono_us) = (Some(NOW - 1_000_000), seq * 1_000_000);
    let mut builder = FrameBuilder::new(BootId([1; 8]), seq, [0; 16], wall_us, mono_us);
    builder.series.push(OutSeries {
        signal: 1,
        offset_us: 0,
        period_us: 1_000_000,
        scale: Scale { num: 1, den: 1 },
        values: OutValues::U8(vec![value]),
        deltas: None,
        quality: None,
    });
    Bytes::from(builder.sign(&key(device)).unwrap())
}

/// A pipeline on a directory, and what a test needs of it.
struct Bench {
    pipeline: Pipeline,
    admission: Admission,
    lake: Arc<Lake>,
    register: Arc<Mutex<Arc<Register>>>,
}

fn start(directory: &Path, register: &Arc<Mutex<Arc<Register>>>) -> Bench {
    start_at(directory, register, NOW)
}

fn start_at(directory: &Path, register: &Arc<Mutex<Arc<Register>>>, now_us: i64) -> Bench {
    let ledger = Arc::new(MemoryLedger::new(ORIGIN));
    let lake = Arc::new(Lake::open(ingest_lake::Options::new(directory.join("lake")), ledger).unwrap());
    let (admission, inbox) = Admission::new(AdmissionOptions::default());
    let source = register.clone();
    let parts = Parts {
        inbox,
        register: Arc::new(move || source.lock().clone()),
        verifiers: vec![Box::new(Reference)],
        lake: lake.clone(),
        metrics: Metrics::register(&prometheus::Registry::new()).unwrap(),
        clock: Arc::new(move || now_us),
    };
    let options = Options {
        wal: ingest_wal::Options::new(directory.join("wal")),
        quarantine: directory.join("quarantine"),
        quarantine_budgets: Budgets::default(),
        windows_bytes_max: 1 << 20,
        seal_frames: 1 << 20,
        seal_bytes: 1 << 30,
        seal_after: Duration::from_secs(3_600),
    };
    let pipeline = Pipeline::start(options, parts).unwrap();
    Bench { pipeline, admission, lake, register: register.clone() }
}

impl Bench {
    fn send(&self, frames: &[Bytes]) -> Vec<Code> {
        let via = Via { door: Door::Http, peer: None, allowed: Allowed::All, topic_device: None };
        let reply = self.admission.offer(frames.to_vec(), via).unwrap().blocking_recv().unwrap();
        reply.verdicts.iter().map(|verdict| verdict.code).collect()
    }

    fn replay(&self) -> Vec<Code> {
        let replay = self.pipeline.quarantine.replay(&self.admission, &ALL).unwrap();
        assert_eq!((replay.undecided, replay.is_more), (0, false));
        replay.frames.iter().map(|frame| frame.verdict.code).collect()
    }

    fn kept(&self) -> usize {
        self.pipeline.quarantine.list(&ALL).unwrap().0.len()
    }

    fn stop(self) {
        drop(self.admission);
        self.pipeline.stop();
    }
}

fn fresh() -> Arc<Mutex<Arc<Register>>> {
    let register = Arc::new(Mutex::new(Arc::new(Register::new(ORIGIN, vec![key(1).public().did()]))));
    enrol(&register, 3, 0);
    register
}

// Frames of a device that nobody had enrolled are kept; once it is enrolled a replay stores each of them exactly once,
// they leave the quarantine, and a second replay finds nothing.
#[test]
fn frames_from_before_the_enrolment_come_back_once() {
    let (directory, register) = (tempfile::tempdir().unwrap(), fresh());
    let bench = start(directory.path(), &register);
    let frames: Vec<Bytes> = (0..20).map(|seq| frame(4, seq, 60)).collect();
    assert_eq!(bench.send(&frames), [Code::KeyUnknown; 20]);
    assert_eq!(bench.replay(), [Code::KeyUnknown; 20], "still nobody's");
    assert_eq!(bench.kept(), 20, "a replay that is refused neither loses nor doubles a frame");
    enrol(&bench.register, 4, 5);
    assert!(bench.replay().iter().all(|code| code.is_kept()));
    assert_eq!((bench.kept(), bench.lake.waiting().0), (0, 20));
    assert!(bench.replay().is_empty());
    assert_eq!(bench.send(&frames), [Code::Dup; 20]);
    bench.stop();
}

// A crash between the durable write and the mark: the frames are still listed, and the next replay tells DUP and lets
// them leave; no row is there twice.
#[test]
fn a_crash_in_the_middle_of_a_replay_doubles_nothing() {
    let (directory, register) = (tempfile::tempdir().unwrap(), fresh());
    let bench = start(directory.path(), &register);
    let frames: Vec<Bytes> = (0..5).map(|seq| frame(4, seq, 60)).collect();
    bench.send(&frames);
    let kept = directory.path().join("quarantine/key-unknown-0000000001.q");
    let before = std::fs::read(&kept).unwrap();
    enrol(&bench.register, 4, 5);
    assert!(bench.replay().iter().all(|code| code.is_kept()));
    bench.stop();
    // The marks never reached the disk, and the frame that was being kept at that moment is torn.
    std::fs::write(&kept, &before[..before.len() - 3]).unwrap();
    let bench = start(directory.path(), &register);
    assert_eq!(bench.replay(), [Code::Dup; 4]);
    assert_eq!((bench.kept(), bench.send(&frames)), (0, vec![Code::Dup; 5]));
    bench.stop();
}

// An equivocation is on the disk when it is answered, is never DUP, and no replay makes it so or keeps it twice.
#[test]
fn equivocations_are_kept_before_they_are_answered() {
    let (directory, register) = (tempfile::tempdir().unwrap(), fresh());
    let bench = start(directory.path(), &register);
    assert!(bench.send(&[frame(3, 0, 60)])[0].is_kept());
    assert_eq!(bench.send(&[frame(3, 0, 61), frame(3, 0, 61)]), [Code::Equivocation; 2]);
    assert_eq!(bench.kept(), 1);
    assert_eq!(bench.replay(), [Code::Equivocation]);
    assert_eq!(bench.kept(), 1);
    bench.stop();
}

// What is told about a device is live, and open gaps are there again after a restart.
#[test]
fn standings_are_live_and_survive() {
    let (directory, register) = (tempfile::tempdir().unwrap(), fresh());
    let bench = start(directory.path(), &register);
    bench.send(&[frame(3, 0, 60), frame(3, 4, 60), frame(3, 2, 60)]);
    let view = |bench: &Bench| bench.pipeline.standings.of(&[DeviceNumber(0), DeviceNumber(77)]).unwrap();
    let views = view(&bench);
    let told = views[0].clone().unwrap();
    assert_eq!((told.boots[0].1, views[1].clone()), (4, None));
    let gaps = |view: &ingest_devices::DeviceView| -> Vec<_> {
        view.gaps.iter().map(|gap| (gap.first, gap.last, gap.since_us)).collect()
    };
    assert_eq!(gaps(&told), [(1, 1, Some(NOW)), (3, 3, Some(NOW))]);
    let times = told.times.unwrap();
    assert_eq!((times.last_measured_us, times.clock_offset_us), (Some(NOW - 1_000_000), Some(-1_000_000)));
    bench.send(&[frame(3, 3, 60)]);
    assert_eq!(view(&bench)[0].clone().unwrap().gaps_filled, 1);
    bench.stop();
    let bench = start_at(directory.path(), &register, NOW + 3_600_000_000);
    assert_eq!(gaps(&view(&bench)[0].clone().unwrap()), [(1, 1, Some(NOW))]);
    bench.stop();
}
