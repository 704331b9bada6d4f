//! A directory that contradicts itself is not opened.

use std::fs;

use schemas_evidence::tiles::encode_tile;

use super::*;

/// 700 entries: most durable in tiles, 20 still in the journal.
fn closed() -> TempDir {
    let dir = TempDir::new().unwrap();
    let log = open_fast(dir.path()).unwrap();
    log.append(&entries(0, 680)).unwrap();
    log.append(&entries(680, 700)).unwrap();
    drop(log);
    dir
}

fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    let mut names = Vec::new();
    list(from, from, &mut names);
    for name in names {
        let target = to.path().join(&name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(from.join(&name), target).unwrap();
    }
    to
}

/// Either the change is refused, or it hit something the journal stands for and is undone without a trace.
fn refused_or_healed(dir: &Path, what: &str) -> bool {
    match open_fast(dir) {
        Err(error) => {
            assert!(matches!(error, LedgerError::Corrupt { .. }), "{what}: {error}");
            true
        }
        Ok(log) => {
            assert_eq!(log.size(), 700, "{what}");
            assert_eq!(log.entries(0, 700).unwrap(), texts(0, 700), "{what}");
            drop(log);
            assert!(audit_log(dir, &key()).unwrap().is_clean(), "{what}");
            false
        }
    }
}

/// A changed byte in any file, and any missing file, is found at opening (or was only a copy of what the journal holds).
#[test]
fn changed_and_missing_files_are_found_at_opening() {
    let sound = closed();
    let mut names = Vec::new();
    list(sound.path(), sound.path(), &mut names);
    let mut refused = 0;
    for name in names.iter().filter(|name| *name != ".lock") {
        let bytes = fs::read(sound.path().join(name)).unwrap();
        for at in [0, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
            let dir = copy(sound.path());
            let mut changed = bytes.clone();
            changed[at] ^= 2;
            fs::write(dir.path().join(name), changed).unwrap();
            refused += u32::from(refused_or_healed(dir.path(), &format!("{name} byte {at}")));
        }
        for cut in [0, bytes.len() / 2] {
            let dir = copy(sound.path());
            fs::write(dir.path().join(name), &bytes[..cut]).unwrap();
            refused += u32::from(refused_or_healed(dir.path(), &format!("{name} cut to {cut}")));
        }
        let dir = copy(sound.path());
        fs::remove_file(dir.path().join(name)).unwrap();
        refused += u32::from(refused_or_healed(dir.path(), &format!("{name} missing")));
    }
    assert!(refused > 40, "{refused}");
}

/// An entry rewritten together with its leaf hash does not fit the tile above.
#[test]
fn an_entry_rewritten_with_its_leaf_hash_is_refused() {
    let dir = closed();
    let (bundle, tile) = (dir.path().join("tile/entries/000"), dir.path().join("tile/0/000"));
    let (old, new) = (entry(5).to_text(), entry(5_000_000).to_text());
    let text = String::from_utf8(fs::read(&bundle).unwrap()).unwrap();
    fs::write(&bundle, text.replace(&old, &new)).unwrap();
    let mut hashes: Vec<_> = (0..256).map(|n| entry_leaf(&entry(n).to_text())).collect();
    hashes[5] = entry_leaf(&new);
    fs::write(&tile, encode_tile(&hashes)).unwrap();
    let error = open_fast(dir.path()).err().unwrap();
    assert!(error.to_string().contains("tile/0/000"), "{error}");
    let audit = audit_log(dir.path(), &key()).unwrap();
    assert!(audit.findings.iter().any(|finding| finding.place == "checkpoint"), "{:?}", audit.findings);
}

/// A journal that lost acknowledged commits is betrayed by the published checkpoint.
#[test]
fn a_journal_cut_below_the_published_checkpoint_is_refused() {
    let dir = closed();
    let journal = dir.path().join(".journal");
    let bytes = fs::read(&journal).unwrap();
    fs::write(&journal, &bytes[..bytes.len() - 1]).unwrap();
    let error = open_fast(dir.path()).err().unwrap();
    assert!(error.to_string().contains("checkpoint"), "{error}");
}

/// A log is one origin's and one key's.
#[test]
fn another_key_or_origin_cannot_take_over_a_log() {
    let dir = closed();
    let other = SecretKey::from_seed(&[0x52; 32]);
    for (origin, secret) in [(ORIGIN, other), ("log.example/other", secret())] {
        let refused = FileLog::open(dir.path(), origin, secret, small());
        assert!(matches!(refused, Err(LedgerError::Corrupt { .. })));
    }
    assert!(FileLog::open(&dir.path().join("new"), "two words", secret(), small()).is_err());
    open(dir.path()).unwrap();
}

/// Tiles without a journal are somebody's copy: writing on from them could fork the log.
#[test]
fn a_copy_without_its_journal_is_not_written_to() {
    let dir = closed();
    fs::remove_file(dir.path().join(".journal")).unwrap();
    assert!(matches!(open(dir.path()), Err(LedgerError::Corrupt { .. })));
    assert!(audit_log(dir.path(), &key()).unwrap().is_clean(), "but it can be audited");
}

/// Damage while the log is open does not leave it as a proof or as a text.
#[test]
fn damage_while_open_is_not_handed_out() {
    let dir = closed();
    let log = open_fast(dir.path()).unwrap();
    for file in ["tile/0/000", "tile/entries/001"] {
        let path = dir.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    assert!(matches!(log.tlog_proof(3), Err(LedgerError::Corrupt { .. })));
    assert!(matches!(log.entries(256, 260), Err(LedgerError::Corrupt { .. })));
    assert_eq!(log.entries(690, 700).unwrap(), texts(690, 700));
}
