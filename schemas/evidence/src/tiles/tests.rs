//! Names and contents of tiles, and the audit against every kind of change.

use std::collections::HashMap;

use super::*;
use crate::ledger::Ledger;
use crate::memory::MemoryLedger;
use crate::note::NoteKey;
use crate::open_checkpoint;

const ORIGIN: &str = "log.example/vitalog";

/// A log as files in memory.
#[derive(Clone, Default)]
struct Files(HashMap<String, Vec<u8>>);

impl TileSource for Files {
    fn read(&mut self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(self.0.get(path).map(|bytes| bytes[..bytes.len().min(bytes_max)].to_vec()))
    }
}

fn key() -> NoteKey {
    NoteKey::log(ORIGIN, MemoryLedger::test_key().public()).unwrap()
}

/// Writes tiles straight from the definition in the specification.
fn files(size: u64) -> (Files, MemoryLedger) {
    let ledger = MemoryLedger::new(ORIGIN);
    let entries: Vec<Entry> = (0..size)
        .map(|n| {
            let mut commitment = [0; 32];
            commitment[..8].copy_from_slice(&n.to_be_bytes());
            Entry::Result { commitment }
        })
        .collect();
    ledger.append(&entries).unwrap();
    let texts: Vec<String> = entries.iter().map(Entry::to_text).collect();
    let leaves: Vec<Hash32> = texts.iter().map(|text| Sha256Rfc6962::leaf(text.as_bytes())).collect();
    let mut files = Files::default();
    for level in 0..8u8 {
        for (n, width) in tiles_of_level(size, level) {
            let span = 1usize << (8 * u32::from(level));
            let first = n as usize * 256;
            let hash = |i: usize| merkle::root::<Sha256Rfc6962>(&leaves[i * span..(i + 1) * span]);
            let hashes: Vec<Hash32> = (first..first + width as usize).map(hash).collect();
            files.0.insert(tile_path(level, n, width), encode_tile(&hashes));
            if level == 0 {
                let texts = texts[first..first + width as usize].iter().map(String::as_bytes);
                files.0.insert(entries_path(n, width), encode_bundle(texts).unwrap());
            }
        }
    }
    files.0.insert("checkpoint".into(), ledger.checkpoint().unwrap().into_bytes());
    (files, ledger)
}

fn run(files: &Files, kept: &[Checkpoint]) -> Result<LogAudit, AuditError> {
    audit(&mut files.clone(), &Policy::of_log(key(), &[]), kept, &mut |_| ())
}

#[test]
fn names_are_those_of_the_specification() {
    assert_eq!(tile_path(0, 1_234_067, 256), "tile/0/x001/x234/067");
    assert_eq!(tile_path(1, 0, 17), "tile/1/000.p/17");
    assert_eq!(entries_path(999, 256), "tile/entries/999");
    assert_eq!(entries_path(1000, 1), "tile/entries/x001/000.p/1");
    let example = |level| tiles_of_level(70_000, level).collect::<Vec<_>>();
    assert_eq!((example(0).len(), example(0).last()), (274, Some(&(273, 112))));
    assert_eq!(example(1), [(0, 256), (1, 17)]);
    assert_eq!(example(2), [(0, 1)]);
    assert_eq!(example(3), []);
    assert_eq!(level_size(u64::MAX, 8), 0);
}

#[test]
fn tiles_and_bundles_read_back_and_only_at_their_width() {
    let hashes = vec![[1; 32], [2; 32]];
    assert_eq!(decode_tile(&encode_tile(&hashes), 2), Some(hashes.clone()));
    assert_eq!(decode_tile(&encode_tile(&hashes), 3), None);
    assert_eq!(decode_tile(&encode_tile(&hashes)[1..], 2), None);
    let bundle = encode_bundle([b"one".as_slice(), b"", b"three"]).unwrap();
    assert_eq!(decode_bundle(&bundle, 3).unwrap(), [b"one".as_slice(), b"", b"three"]);
    for cut in 0..bundle.len() {
        assert!(decode_bundle(&bundle[..cut], 3).is_none());
    }
    assert!(encode_bundle([vec![0; 65_536].as_slice()]).is_none());
}

#[test]
fn a_sound_log_is_clean_at_every_shape_and_its_entries_are_counted() {
    for size in [0u64, 1, 255, 256, 257, 600, 65_536, 65_537] {
        let (files, _) = files(size);
        let audit = run(&files, &[]).unwrap();
        assert_eq!(audit.findings, [], "{size}");
        assert_eq!(audit.kinds.values().sum::<u64>(), size);
    }
}

#[test]
fn any_changed_bit_of_any_file_is_found() {
    let (sound, _) = files(600);
    for (path, bytes) in &sound.0 {
        for at in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            let mut changed = sound.clone();
            changed.0.get_mut(path).unwrap()[at] ^= 4;
            let found = run(&changed, &[]).map_or(true, |audit| !audit.is_clean());
            assert!(found, "{path} byte {at}");
        }
        let mut missing = sound.clone();
        missing.0.remove(path);
        assert!(run(&missing, &[]).map_or(true, |audit| !audit.is_clean()), "{path} missing");
    }
}

#[test]
fn a_rewritten_entry_is_named_by_its_index() {
    let (mut files, _) = files(600);
    let bundle = files.0.get_mut("tile/entries/001").unwrap();
    let at = bundle.len() - 10;
    bundle[at] = if bundle[at] == b'0' { b'1' } else { b'0' };
    let audit = run(&files, &[]).unwrap();
    assert_eq!(audit.findings[0].place, "entry 511");
    assert!(audit.findings.iter().any(|finding| finding.place == "checkpoint"));
}

#[test]
fn a_kept_checkpoint_must_be_a_prefix_of_the_log() {
    let (longer, _) = files(600);
    let (_, shorter) = files(300);
    let honest = open_checkpoint(&shorter.checkpoint().unwrap(), &key()).unwrap();
    assert!(run(&longer, std::slice::from_ref(&honest)).unwrap().is_clean());
    let rewritten = Checkpoint { root: [1; 32], ..honest.clone() };
    let foreign = Checkpoint { origin: "other".into(), ..honest.clone() };
    let future = Checkpoint { size: 601, ..honest };
    for kept in [rewritten, foreign, future] {
        assert_eq!(run(&longer, std::slice::from_ref(&kept)).unwrap().findings.len(), 1, "{kept:?}");
    }
}

#[test]
fn a_partial_file_that_gave_way_to_the_full_one_is_read_there() {
    let (mut early, _) = files(300);
    let (late, _) = files(512);
    for path in ["tile/entries/001", "tile/0/001"] {
        early.0.remove(&format!("{path}.p/44"));
        early.0.insert(path.to_owned(), late.0[path].clone());
    }
    assert!(run(&early, &[]).unwrap().is_clean());
}
