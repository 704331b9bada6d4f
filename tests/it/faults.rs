//! Faults of the machine under a real server: killed again and again while it is written to, and a disk that is full.
//! Not power loss: a simulated disk plays that, in `ingest-wal` and `ingest-pipeline`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bench_peers::crash;
use bench_peers::shape::Kind;
use schemas_frame::{FrameBuilder, OutSeries, OutValues, Scale};
use schemas_identity::{BootId, SecretKey};

use crate::process::{Server, binary};
use crate::story::{T0, device};

/// Kills of one run of the tests; `bench-peers crash --rounds N` does more.
const KILLS: u32 = 24;

/// Guarantee (G2): SIGKILL at random moments under load, over both doors: nothing acknowledged is lost, nothing is stored
/// twice, audit is clean. The seed is printed; a failure keeps its folder.
#[test]
fn killed_again_and_again() {
    let folder = tempfile::tempdir().expect("directory");
    let seed = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), 0);
    eprintln!("seed {seed}");
    let options = crash::Options {
        server: binary("vitalog"),
        rounds: KILLS,
        at_most: Duration::MAX,
        seed,
        kind: Kind::A,
        folder: folder.path().to_owned(),
    };
    let outcome =
        crash::run_in_temporary(&options, &mut |line| eprintln!("{line}")).expect("no broken promise");
    assert!(outcome.acknowledged_before_kills > 0, "{outcome}");
}

/// A small disk in memory; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, mebibytes: u32) -> Option<SmallDisk> {
        std::fs::create_dir_all(path).expect("directory");
        let options = format!("size={mebibytes}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(path.to_owned()));
        }
        eprintln!("skipped: this user may not mount a small disk");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ended = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A frame of about 60 KB that does not compress.
fn large_frame(key: &SecretKey, seq: u64) -> Vec<u8> {
    let mut noise = vec![0; 30_000 * 2];
    blake3::Hasher::new().update(&seq.to_be_bytes()).finalize_xof().fill(&mut noise);
    let values = noise.as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
    let t0_us = T0 + seq as i64 * 30_000_000;
    FrameBuilder::new(BootId([8; 8]), seq, [0; 16], Some(t0_us), seq * 30_000_000)
        .series(OutSeries {
            signal: 18,
            offset_us: 0,
            period_us: 1_000,
            scale: Scale::ONE,
            values: OutValues::I16(values),
            deltas: None,
            quality: None,
        })
        .sign(key)
        .expect("a frame")
}

/// Guarantee (G2, G3): on a full disk senders are told to wait and nothing is dropped, reads go on, and once there is room
/// again the same process takes everything; what was acknowledged is there, once.
#[test]
fn a_full_disk_is_survived() {
    let directory = tempfile::tempdir().expect("directory");
    let Some(_disk) = SmallDisk::mount(&directory.path().join("data"), 40) else { return };
    let environment = [
        ("VITALOG_WAL_SEGMENT_BYTES", "1048576"),
        ("VITALOG_WAL_FREE_BYTES_MIN", "12582912"),
        ("VITALOG_LAKE_SEAL_BYTES", "4194304"),
    ];
    let server = Server::start_with(directory.path(), &environment);
    let key = device(&server, directory.path());
    let ballast = directory.path().join("data/ballast");
    std::fs::write(&ballast, vec![1; 16 << 20]).expect("room for ballast");
    let mut taken = 0;
    let refused = loop {
        assert!(taken < 1_000, "40 MiB never fill");
        match server.try_post(&large_frame(&key, taken)) {
            // Kept, though it names no frame before it.
            (200, codes) => assert!(codes == ["OK"] || codes == ["CHAIN"], "{codes:?}"),
            (status, _) => break status,
        }
        taken += 1;
    };
    assert_eq!(refused, 503, "after {taken} frames");
    eprintln!("full after {taken} frames");
    let before = server.metric("vitalog_pipeline_readings_total");
    assert_eq!(before, taken * 30_000, "reads go on");
    assert!(server.ok(&["devices", "--json"]).contains("device"), "reads go on");
    std::fs::remove_file(&ballast).expect("removed");
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.try_post(&large_frame(&key, taken)).0 != 200 {
        assert!(Instant::now() < deadline, "it does not recover by itself");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(server.post(&large_frame(&key, 0)), ["DUP"]);
    server.stop();
    let data = directory.path().join("data").to_string_lossy().into_owned();
    let audit = Command::new(binary("vitalog")).args(["audit", "--data", &data]).output().expect("runs");
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    let server = Server::start_with(directory.path(), &environment);
    for seq in 0..=taken {
        assert_eq!(server.post(&large_frame(&key, seq)), ["DUP"], "frame {seq}");
    }
}
