//! What compaction costs and saves, printed: `cargo test --release -p ingest-lake -- --ignored --nocapture what_compaction`.

use std::time::Instant;

use schemas_frame::{Alg, seal};

use super::*;

const DEVICES: u32 = 256;
const BATCHES: u64 = 256;

/// Ten seconds of a wearable: a heart rate each second, two slow signals once.
fn ten_seconds(device: u32, seq: u64, prev: [u8; 16]) -> Admitted {
    let noise = blake3::hash(&[device.to_le_bytes(), (seq as u32).to_le_bytes()].concat());
    let noise = noise.as_bytes();
    let t0_us = T0 + seq as i64 * 10_000_000 + i64::from(device) * 1_733;
    let heart: Vec<i64> = (0..10).map(|at| 60 + i64::from(device % 30) + i64::from(noise[at] % 4)).collect();
    let one = |signal, raw| series(signal, 1_000_000, &[raw]);
    let builder = FrameBuilder::new(BootId([device as u8; 8]), seq, prev, Some(t0_us), seq * 10_000_000)
        .series(series(1, 1_000_000, &heart))
        .series(one(2, 95 + i64::from(noise[11] % 4)))
        .series(one(5, 3_300 + i64::from(noise[12] % 16)));
    let mut signature = [0; 64];
    blake3::Hasher::new().update(noise).finalize_xof().fill(&mut signature);
    let kid = SecretKey::from_seed(&[device as u8; 32]).public().short_id();
    let frame = seal(Alg::EdDsa, kid, &builder.payload(), |_| signature).into();
    Admitted { position: seq, device, t0_us, received_us: t0_us + 40_000, flags: 0, code: Code::Ok, frame }
}

fn say(lake: &Lake, what: &str, readings: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    let view = lake.view();
    let mut bytes = [0; 3];
    for file in view.parts().iter().flat_map(|part| part.files) {
        bytes[file.kind as usize] += file.bytes;
    }
    let [scalar, wave, frames] = bytes;
    let per = |bytes: u64| bytes as f64 / readings as f64;
    println!(
        "{what}: {} files, {:.2} B/reading (rows {:.2}, frames {:.2}), {seconds:.2} s",
        view.parts().iter().map(|part| part.files.len()).sum::<usize>(),
        per(scalar + wave + frames),
        per(scalar + wave),
        per(frames),
    );
}

#[test]
#[ignore = "prints figures"]
fn what_compaction_costs_and_saves() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = open(directory.path(), &ledger);
    let readings = u64::from(DEVICES) * BATCHES * 12;
    let mut prev = vec![[0; 16]; DEVICES as usize];
    let started = Instant::now();
    for seq in 0..BATCHES {
        let frames: Vec<Admitted> =
            (0..DEVICES).zip(&prev).map(|(device, prev)| ten_seconds(device, seq, *prev)).collect();
        prev = frames.iter().map(|admitted| schemas_frame::digest16(&admitted.frame)).collect();
        lake.push(frames);
        lake.seal().unwrap().unwrap();
    }
    say(&lake, "256 batches of 256 frames", readings, started);
    let started = Instant::now();
    for _ in 0..16 {
        lake.compact(0, &|| true).unwrap().unwrap();
    }
    say(&lake, "sixteen sets", readings, started);
    let started = Instant::now();
    lake.compact(0, &|| true).unwrap().unwrap();
    say(&lake, "one set", readings, started);
    let started = Instant::now();
    assert_eq!(findings(directory.path(), &ledger), []);
    println!("audit: {:.2} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    for seq in 0..100 {
        let device = (seq * 97 % 256) as u32;
        let found = lake.find(device, [device as u8; 8], seq).unwrap().unwrap();
        let Place::Batch { id, leaf, .. } = found.place else { panic!("sealed") };
        lake.inclusion(&id, leaf).unwrap().unwrap();
    }
    println!("find and prove: {:.1} ms each", started.elapsed().as_secs_f64() * 10.0);
}
