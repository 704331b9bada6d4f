//! Compaction: the same rows, frames, proofs and answers before and after; at every instant of it and whoever reads.

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, filter_record_batch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use schemas_evidence::{Entry, FileKind, Ledger};
use schemas_signals::columns;

use super::rebuilt::{Plan, expected, frames, plan};
use super::*;
use crate::compact::Compaction;

const MINUTE_US: i64 = 60_000_000;

/// Sets of two, so that few batches make several levels.
fn in_pairs(directory: &Path) -> Options {
    let compaction = Compaction { fan_in: 2, ..Compaction::default() };
    Options { compaction, ..Options::new(directory) }
}

fn open_in_pairs(directory: &Path, ledger: &Arc<MemoryLedger>) -> Lake {
    Lake::open(in_pairs(directory), ledger.clone()).unwrap()
}

/// A lake of so many batches, each with some frames of three devices.
fn with_batches(directory: &Path, ledger: &Arc<MemoryLedger>, batches: u64) -> Lake {
    let lake = open_in_pairs(directory, ledger);
    for batch in 0..batches {
        lake.push((batch * 4..batch * 4 + 4).flat_map(|seq| (0..3).map(move |at| frame(at, seq))).collect());
        lake.seal().unwrap().unwrap();
    }
    lake
}

fn compact_all(lake: &Lake) -> usize {
    (0..).take_while(|_| lake.compact(0, &|| true).unwrap().is_some()).count()
}

fn rows_of(directory: &Path, part: &Part<'_>, kind: FileKind) -> Option<RecordBatch> {
    let file = part.files.iter().find(|file| file.kind == kind)?;
    let schema = match kind {
        FileKind::Scalar => columns::stored_scalar_schema(),
        FileKind::Wave => columns::stored_wave_schema(),
        FileKind::Frames => columns::frames_schema(),
    };
    let file = std::fs::File::open(directory.join(&file.name)).unwrap();
    let rows: Vec<RecordBatch> = ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap()
        .map(|rows| rows.unwrap().with_schema(schema.clone()).unwrap())
        .collect();
    let rows = concat_batches(&schema, &rows).unwrap();
    let limit = part.leaf_limit.unwrap_or(u32::MAX);
    let keep = rows["leaf"].as_primitive::<UInt32Type>().iter().map(|leaf| leaf.map(|leaf| leaf < limit));
    Some(filter_record_batch(&rows, &keep.collect()).unwrap())
}

/// Every sample that a view shows, in an order of its own: what a query over it would see, leaves not counted.
fn shown(lake: &Lake, view: &View) -> Vec<String> {
    let mut shown = Vec::new();
    for part in view.parts() {
        for kind in [FileKind::Scalar, FileKind::Wave] {
            let Some(rows) = rows_of(lake.directory(), &part, kind) else { continue };
            let kept: Vec<usize> = (0..rows.num_columns() - 1).collect();
            let rows = rows.project(&kept).unwrap();
            shown.extend((0..rows.num_rows()).map(|row| format!("{:?}", rows.slice(row, 1).columns())));
        }
    }
    shown.sort();
    shown
}

fn parquet_files(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(".parquet"));
    names.sort();
    names
}

fn check_found(lake: &Lake, frames: &[Admitted]) {
    let batches = lake.view().batches.clone();
    for admitted in frames {
        let (device, boot, seq) = key_of(admitted).unwrap();
        let stored = lake.find(device, boot, seq).unwrap().unwrap();
        assert_eq!(stored.frame, admitted.frame);
        let Place::Batch { id, leaf, .. } = stored.place else { panic!("sealed") };
        let (size, path) = lake.inclusion(&id, leaf).unwrap().unwrap();
        let root = batches.iter().find(|batch| batch.manifest.batch == id).unwrap().manifest.root;
        let hash = frame_leaf(&stored.frame);
        merkle::verify_inclusion::<Blake3Frames>(&hash, u64::from(leaf), size, &path, &root).unwrap();
    }
}

/// The batches' frames in leaf order, one after the other: the leaves of a set.
fn check_set(lake: &Lake, batches: &[Vec<Admitted>]) {
    let mut leaves: Vec<Admitted> = Vec::new();
    for batch in batches {
        let mut batch = batch.clone();
        batch.sort_by_key(|admitted| key_of(admitted).unwrap());
        leaves.extend(batch);
    }
    let rows = rows(&leaves, 0).unwrap();
    let view = lake.view();
    let [part] = view.parts()[..] else { panic!("one set") };
    assert_eq!(part.leaf_limit, None);
    let sorted = [
        (FileKind::Scalar, &rows.scalar, columns::stored_scalar_schema()),
        (FileKind::Wave, &rows.wave, columns::stored_wave_schema()),
    ];
    for (kind, rows, schema) in sorted {
        let found = rows_of(lake.directory(), &part, kind);
        assert_eq!(found.unwrap_or_else(|| RecordBatch::new_empty(schema.clone())), expected(rows, &schema));
    }
}

fn check(plans: &[Plan], batches: usize) {
    let all = frames(plans);
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = open_in_pairs(directory.path(), &ledger);
    let mut sealed = Vec::new();
    for batch in all.chunks(all.len().div_ceil(batches).max(1)) {
        lake.push(batch.to_vec());
        lake.seal().unwrap().unwrap();
        sealed.push(batch.to_vec());
    }
    if sealed.len() != batches {
        return;
    }
    let before = shown(&lake, &lake.view());
    // Four batches become two sets, and those one.
    assert_eq!(compact_all(&lake), batches - 1);
    assert_eq!(findings(directory.path(), &ledger), []);
    check_set(&lake, &sealed);
    assert_eq!(shown(&lake, &lake.view()), before);
    check_found(&lake, &all);
    assert!(lake.remove_replaced(i64::MAX).unwrap() > 0);
    check_found(&lake, &all);
    drop(lake);
    let lake = open_in_pairs(directory.path(), &ledger);
    assert_eq!((lake.ranges().is_empty(), shown(&lake, &lake.view())), (false, before));
    check_found(&lake, &all);
    assert_eq!(findings(directory.path(), &ledger), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    // Guarantee: compacted once and once more, files have every row of every batch once, sorted; each frame comes back byte for
    // byte and is proved against its own batch's root; audit is clean; a restart changes nothing.
    #[test]
    fn sets_hold_what_their_batches_held(plans in prop::collection::vec(plan(), 4..24)) {
        check(&plans, 4);
    }
}

/// Guarantee: blocks are counted from each batch's own first leaf, also in a set whose batches end within a block.
#[test]
fn blocks_of_a_set_prove() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = open_in_pairs(directory.path(), &ledger);
    let batch = |from: u64| (from..from + 70).flat_map(|seq| [frame(0, seq), frame(1, seq)]).collect();
    let batches: Vec<Vec<Admitted>> = [0, 70, 140, 210].map(batch).into();
    for batch in &batches {
        lake.push(batch.clone());
        lake.seal().unwrap().unwrap();
    }
    assert_eq!(compact_all(&lake), 3);
    check_set(&lake, &batches);
    check_found(&lake, &batches.concat());
    assert_eq!(findings(directory.path(), &ledger), []);
}

/// Guarantee: what a query sees as of any size of the log is the same before compaction, after it, after the old files are
/// gone, and after a restart.
#[test]
fn the_past_stays_the_same() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = with_batches(directory.path(), &ledger, 5);
    let sizes = 0..=lake.log_size();
    let past = |lake: &Lake| -> Vec<Vec<String>> {
        sizes.clone().map(|size| shown(lake, &lake.view_at(size))).collect()
    };
    let before = past(&lake);
    assert_eq!(before.iter().map(Vec::len).collect::<Vec<_>>(), [0, 48, 96, 144, 192, 240]);
    assert_eq!(compact_all(&lake), 3);
    assert_eq!(past(&lake), before);
    assert_eq!(lake.remove_replaced(i64::MAX).unwrap(), 18);
    assert_eq!(past(&lake), before);
    drop(lake);
    assert_eq!(past(&open_in_pairs(directory.path(), &ledger)), before);
}

/// Guarantee: a crash after any step leaves all rows there once: before the entry the set is swept away, after it the set
/// counts and what it replaced is swept away, however far that had come.
#[test]
fn a_crash_after_any_step_loses_and_doubles_nothing() {
    for step in 0..6 {
        let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
        let lake = with_batches(directory.path(), &ledger, 2);
        let (before, old) = (shown(&lake, &lake.view()), parquet_files(directory.path()));
        let all = [0, 1, 2].into_iter().flat_map(|device| (0..8).map(move |seq| frame(device, seq)));
        let all: Vec<Admitted> = all.collect();
        match step {
            // A file half written.
            0 => std::fs::write(directory.path().join("ab.scalar.parquet.tmp"), "half").unwrap(),
            // All files, no manifest.
            1 => {
                lake.prepare(&|| true).unwrap().unwrap();
                let names = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
                let manifest = names.filter(|name| name.to_string_lossy().ends_with(".compact.json"));
                manifest.for_each(|name| std::fs::remove_file(name).unwrap());
            }
            // Files and manifest, no entry.
            2 => drop(lake.prepare(&|| true).unwrap().unwrap()),
            // The entry, no swap.
            3 => drop(lake.commit(&lake.prepare(&|| true).unwrap().unwrap()).unwrap()),
            // All of it, nothing deleted.
            4 => drop(lake.compact(0, &|| true).unwrap().unwrap()),
            // Deleted in part.
            _ => {
                lake.compact(0, &|| true).unwrap().unwrap();
                old.iter()
                    .step_by(2)
                    .for_each(|name| std::fs::remove_file(directory.path().join(name)).unwrap());
            }
        }
        drop(lake);
        let lake = open_in_pairs(directory.path(), &ledger);
        assert_eq!(shown(&lake, &lake.view()), before, "step {step}");
        check_found(&lake, &all);
        assert_eq!(findings(directory.path(), &ledger), [], "step {step}");
        let is_compacted = step >= 3;
        assert_eq!(lake.view().parts().len(), if is_compacted { 1 } else { 2 }, "step {step}");
        let files = parquet_files(directory.path());
        assert_eq!(files == old, !is_compacted, "step {step}");
        assert_eq!(files.len(), if is_compacted { 3 } else { 6 }, "step {step}");
        assert_eq!(compact_all(&lake), usize::from(!is_compacted));
        assert_eq!(shown(&lake, &lake.view()), before, "step {step}");
    }
}

/// Guarantee: whoever holds a view reads its files to the end; they go when nobody does and their time is over.
#[test]
fn a_held_view_keeps_its_files() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = with_batches(directory.path(), &ledger, 4);
    let view = lake.view();
    let before = shown(&lake, &view);
    assert_eq!(compact_all(&lake), 3);
    let late = 11 * MINUTE_US;
    assert_eq!(lake.remove_replaced(late).unwrap(), 0);
    assert_eq!(shown(&lake, &view), before);
    drop(view);
    // A view of the state in between would name the first two sets.
    assert_eq!(lake.remove_replaced(9 * MINUTE_US).unwrap(), 0);
    assert_eq!(lake.remove_replaced(late).unwrap(), 18);
    assert_eq!(parquet_files(directory.path()).len(), 3);
    assert_eq!(shown(&lake, &lake.view()), before);
}

/// Guarantee: a later view keeps nothing that it does not name.
#[test]
fn a_new_view_keeps_no_old_files() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = with_batches(directory.path(), &ledger, 2);
    assert_eq!(compact_all(&lake), 1);
    let _view = lake.view();
    assert_eq!(lake.remove_replaced(i64::MAX).unwrap(), 6);
}

/// Guarantee: one byte changed in any file of a set or in its manifest, or a file gone, and audit names it.
#[test]
fn audit_finds_every_change_of_a_set() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = with_batches(directory.path(), &ledger, 2);
    let id = lake.compact(0, &|| true).unwrap().unwrap().set.manifest.set.clone();
    lake.remove_replaced(i64::MAX).unwrap();
    assert_eq!(findings(directory.path(), &ledger), []);
    let mut names = parquet_files(directory.path());
    assert!(names.iter().all(|name| name.starts_with(&id)));
    let all = std::fs::read_dir(directory.path()).unwrap();
    let all = all.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.extend(all.filter(|name| name.ends_with(".compact.json")));
    assert_eq!(names.len(), 4);
    for name in names {
        every_change_is_found(directory.path(), &ledger, &name);
    }
    std::fs::write(directory.path().join("ff.compact.json"), "x").unwrap();
    assert_eq!(findings(directory.path(), &ledger).len(), 1);
}

/// Guarantee: as long as a set's files are not what was written, what it replaced stays, also over a restart.
#[test]
fn a_damaged_set_keeps_what_it_replaced() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = with_batches(directory.path(), &ledger, 2);
    let set = lake.compact(0, &|| true).unwrap().unwrap().set.clone();
    let path = directory.path().join(&set.manifest.files[0].name);
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    std::fs::write(&path, &bad).unwrap();
    assert!(matches!(lake.remove_replaced(i64::MAX), Err(LakeError::Stored { .. })));
    drop(lake);
    let lake = open_in_pairs(directory.path(), &ledger);
    assert_eq!(parquet_files(directory.path()).len(), 9);
    std::fs::write(&path, &good).unwrap();
    drop(lake);
    drop(open_in_pairs(directory.path(), &ledger));
    assert_eq!(parquet_files(directory.path()).len(), 3);
}

/// Guarantee: a set whose rows are not those of its batches' frames is never used; the batches' own files stay.
#[test]
fn a_set_is_checked_before_it_counts() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = with_batches(directory.path(), &ledger, 2);
    // Rows of one batch in the place of another's: sorted, well-formed and false.
    let files: Vec<String> = lake
        .view()
        .parts()
        .iter()
        .map(|part| part.files.iter().find(|file| file.kind == FileKind::Scalar).unwrap().name.clone())
        .collect();
    let path = |at: usize| directory.path().join(&files[at]);
    let good = std::fs::read(path(1)).unwrap();
    std::fs::copy(path(0), path(1)).unwrap();
    let error = lake.compact(0, &|| true).unwrap_err();
    assert!(matches!(error, LakeError::Mismade { .. }), "{error}");
    assert_eq!((ledger.size(), parquet_files(directory.path()).len()), (2, 6));
    std::fs::write(path(1), good).unwrap();
    assert_eq!(compact_all(&lake), 1);
}

/// Guarantee: a compaction that fails or is given up leaves everything as it was; the next one succeeds.
#[test]
fn a_failed_compaction_is_repeated() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = with_batches(directory.path(), &ledger, 2);
    let (before, old) = (shown(&lake, &lake.view()), parquet_files(directory.path()));
    assert!(lake.compact(0, &|| false).unwrap().is_none());
    assert_eq!(parquet_files(directory.path()), old);
    let moved = directory.path().with_extension("away");
    std::fs::rename(directory.path(), &moved).unwrap();
    assert!(lake.compact(0, &|| true).unwrap_err().is_recoverable());
    std::fs::rename(&moved, directory.path()).unwrap();
    assert_eq!((parquet_files(directory.path()), ledger.size()), (old, 2));
    assert_eq!(compact_all(&lake), 1);
    assert_eq!(shown(&lake, &lake.view()), before);
}

/// A log that takes an entry and then says that it failed.
struct Forgetful {
    inner: Arc<MemoryLedger>,
    is_lying: std::sync::atomic::AtomicBool,
}

impl Ledger for Forgetful {
    fn origin(&self) -> &str {
        self.inner.origin()
    }
    fn append(&self, entries: &[Entry]) -> Result<Vec<u64>, schemas_evidence::LedgerError> {
        let taken = self.inner.append(entries)?;
        if self.is_lying.load(Ordering::SeqCst) {
            return Err(schemas_evidence::LedgerError::Range { from: 0, to: 0, size: 0 });
        }
        Ok(taken)
    }
    fn size(&self) -> u64 {
        self.inner.size()
    }
    fn checkpoint(&self) -> Result<String, schemas_evidence::LedgerError> {
        self.inner.checkpoint()
    }
    fn entries(&self, from: u64, to: u64) -> Result<Vec<String>, schemas_evidence::LedgerError> {
        self.inner.entries(from, to)
    }
    fn inclusion(
        &self,
        index: u64,
        size: u64,
    ) -> Result<Vec<schemas_evidence::Hash32>, schemas_evidence::LedgerError> {
        self.inner.inclusion(index, size)
    }
    fn consistency(
        &self,
        old: u64,
        new: u64,
    ) -> Result<Vec<schemas_evidence::Hash32>, schemas_evidence::LedgerError> {
        self.inner.consistency(old, new)
    }
    fn tlog_proof(&self, index: u64) -> Result<String, schemas_evidence::LedgerError> {
        self.inner.tlog_proof(index)
    }
}

/// Guarantee: an entry that the log took although it answered with an error is not appended again, and counts.
#[test]
fn an_entry_is_never_appended_twice() {
    let (directory, inner) = (tempfile::tempdir().unwrap(), ledger());
    drop(with_batches(directory.path(), &inner, 2));
    let forgetful = Arc::new(Forgetful { inner: inner.clone(), is_lying: true.into() });
    let lake = Lake::open(in_pairs(directory.path()), forgetful.clone()).unwrap();
    assert!(lake.compact(0, &|| true).is_err());
    assert_eq!((lake.view().parts().len(), inner.size()), (2, 3));
    forgetful.is_lying.store(false, Ordering::SeqCst);
    assert!(lake.compact(0, &|| true).unwrap().is_some());
    assert_eq!((lake.view().parts().len(), inner.size()), (1, 3));
    assert_eq!(findings(directory.path(), &inner), []);
}

/// Guarantee: an entry that came twice means what it meant the first time; one whose batches are not neighbours is refused.
#[test]
fn the_log_decides_what_a_set_is() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = with_batches(directory.path(), &ledger, 4);
    assert_eq!(compact_all(&lake), 3);
    drop(lake);
    let entries = ledger.entries(0, ledger.size()).unwrap();
    let first_set = Entry::parse(&entries[4]).unwrap();
    ledger.append(std::slice::from_ref(&first_set)).unwrap();
    assert_eq!(open_in_pairs(directory.path(), &ledger).view().parts().len(), 1);
    let other = super::ledger();
    other.append(&[Entry::parse(&entries[0]).unwrap(), first_set]).unwrap();
    let error = Lake::open(in_pairs(directory.path()), other).err().unwrap();
    assert!(matches!(error, LakeError::SetContradiction { .. }), "{error}");
}

/// Guarantee: work ends: each batch is rewritten once per level, and what is large enough never again.
#[test]
fn compaction_comes_to_an_end() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let compaction = Compaction { fan_in: 3, frames_max: 60, ..Compaction::default() };
    let options = Options { compaction, ..Options::new(directory.path()) };
    let lake = Lake::open(options, ledger.clone()).unwrap();
    let mut compactions = 0;
    for batch in 0..30 {
        lake.push((0..5).map(|seq| frame(0, batch * 5 + seq)).collect());
        lake.seal().unwrap().unwrap();
        compactions += compact_all(&lake);
    }
    // Ten of the first level, three of 45 frames each of the second; those are full.
    assert_eq!((compactions, lake.view().parts().len()), (13, 4));
    assert_eq!(findings(directory.path(), &ledger), []);
}

/// Guarantee: what is half as large as a set may be is not rewritten again for the sake of small neighbours.
#[test]
fn what_is_large_enough_stays() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let compaction = Compaction { fan_in: 2, frames_max: 20, ..Compaction::default() };
    let options = Options { compaction, ..Options::new(directory.path()) };
    let lake = Lake::open(options, ledger.clone()).unwrap();
    let mut seq = 0;
    for frames in [12, 2, 12, 2, 2] {
        lake.push((0..frames).map(|at| frame(0, seq + at)).collect());
        seq += frames;
        lake.seal().unwrap().unwrap();
    }
    assert_eq!((compact_all(&lake), lake.view().parts().len()), (1, 4));
}
