//! Any frames at all: stored, audited, found and proved as they were sent, whether their bytes were kept or not.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use schemas_evidence::FileKind;
use schemas_frame::{Alg, OutDeltas, seal};
use schemas_signals::columns;

use super::*;
use crate::rebuild::shape_of;

#[derive(Debug, Clone)]
pub(super) struct Plan {
    device: u32,
    boot: u8,
    t0_us: i64,
    wall_us: Option<i64>,
    mono_us: u64,
    series: Vec<OutSeries>,
    has_unknown_key: bool,
    knows_prev: bool,
    alg: Alg,
}

fn values() -> impl Strategy<Value = OutValues> {
    use prop::collection::vec;
    let some = || 1..40usize;
    prop_oneof![
        vec(any::<u8>(), some()).prop_map(OutValues::U8),
        vec(any::<u16>(), some()).prop_map(OutValues::U16),
        vec(any::<u32>(), some()).prop_map(OutValues::U32),
        vec(any::<i8>(), some()).prop_map(OutValues::I8),
        vec(any::<i16>(), some()).prop_map(OutValues::I16),
        vec(any::<i32>(), some()).prop_map(OutValues::I32),
        vec(any::<u32>().prop_map(f32::from_bits), some()).prop_map(OutValues::F32),
        vec(any::<u64>().prop_map(f64::from_bits), some()).prop_map(OutValues::F64),
    ]
}

fn one_series() -> impl Strategy<Value = OutSeries> {
    let signals = prop_oneof![9 => 1..23u32, 1 => Just(65_000)];
    let period_us = prop_oneof![Just(0), Just(1), Just(31_250), Just(1_000_000)];
    (signals, 0..3_000_000u64, period_us, values(), any::<bool>(), 0..3u8, any::<u8>(), 1..300u32).prop_map(
        |(signal, offset_us, period_us, values, has_quality, width, step, den)| {
            let count = values.len();
            let is_float = matches!(values, OutValues::F32(_) | OutValues::F64(_));
            let deltas = (period_us == 0).then(|| match width {
                0 => OutDeltas::U8(vec![step % 3; count]),
                1 => OutDeltas::U16((0..count).map(|at| (at * usize::from(step)) as u16).collect()),
                _ => OutDeltas::U32((0..count).map(|at| at as u32 * 1_000).collect()),
            });
            let quality = has_quality.then(|| (0..count).map(|at| at as u8).collect());
            let scale = if is_float { Scale::ONE } else { Scale { num: 1, den } };
            OutSeries { signal, offset_us, period_us, scale, values, deltas, quality }
        },
    )
}

pub(super) fn plan() -> impl Strategy<Value = Plan> {
    let near = T0..T0 + 5_000_000;
    let t0_us = prop_oneof![8 => near, 1 => Just(i64::MAX - 10), 1 => Just(i64::MIN)];
    let wall = prop_oneof![4 => Just(None), 1 => any::<Option<i64>>().prop_map(Some)];
    (0..3u32, 0..2u8, t0_us, wall, any::<u64>(), prop::collection::vec(one_series(), 0..6), 0..10u8).prop_map(
        |(device, boot, t0_us, wall, mono_us, series, odd)| Plan {
            device,
            boot,
            t0_us,
            wall_us: wall.unwrap_or(Some(t0_us)),
            mono_us,
            series,
            has_unknown_key: odd == 0,
            knows_prev: odd > 2,
            alg: if odd == 5 { Alg::Ed25519 } else { Alg::EdDsa },
        },
    )
}

/// The frames of some plans, numbered per device and boot, signatures made up: the lake verifies none.
pub(super) fn frames(plans: &[Plan]) -> Vec<Admitted> {
    let mut last: std::collections::HashMap<(u32, u8), (u64, [u8; 16])> = Default::default();
    let mut frames = Vec::new();
    for (plan, position) in plans.iter().zip(0..) {
        let (seq, prev) = last.get(&(plan.device, plan.boot)).copied().unwrap_or_default();
        let prev = if plan.knows_prev { prev } else { [position as u8; 16] };
        let mut builder = FrameBuilder::new(BootId([plan.boot; 8]), seq, prev, plan.wall_us, plan.mono_us);
        builder.series = plan.series.clone();
        let mut payload = builder.payload();
        if plan.has_unknown_key {
            payload[0] += 1;
            payload.extend([0x18, 99, 0x01]);
        }
        let kid = SecretKey::from_seed(&[plan.device as u8; 32]).public().short_id();
        let bytes = seal(plan.alg, kid, &payload, |_| [position as u8; 64]);
        let Ok(frame) = Frame::parse(&bytes) else { continue };
        last.insert((plan.device, plan.boot), (seq + 1, frame.digest16()));
        frames.push(Admitted {
            position,
            device: plan.device,
            t0_us: plan.t0_us,
            received_us: T0 + position as i64,
            flags: position as u32 % 4,
            code: Code::Ok,
            frame: bytes.into(),
        });
    }
    frames
}

fn read(lake: &Lake, kind: FileKind, schema: arrow::datatypes::SchemaRef) -> RecordBatch {
    let mut batches = Vec::new();
    let view = lake.view();
    for file in view.batches[0].manifest.files.iter().filter(|file| file.kind == kind) {
        let file = std::fs::File::open(lake.directory().join(&file.name)).unwrap();
        for rows in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            batches.push(rows.unwrap().with_schema(schema.clone()).unwrap());
        }
    }
    concat_batches(&schema, &batches).unwrap()
}

/// What the file should hold: all rows of the frames in leaf order, sorted row by row.
pub(super) fn expected(rows: &RecordBatch, schema: &arrow::datatypes::SchemaRef) -> RecordBatch {
    let kept: Vec<usize> =
        schema.fields().iter().map(|field| rows.schema().index_of(field.name()).unwrap()).collect();
    let rows = rows.project(&kept).unwrap();
    let order = arrow::array::UInt32Array::from_iter_values(0..rows.num_rows() as u32);
    let mut keys: Vec<SortColumn> = ["device", "signal", "ts", "leaf"]
        .map(|name| SortColumn { values: rows[name].clone(), options: None })
        .into();
    keys.push(SortColumn { values: std::sync::Arc::new(order), options: None });
    take_record_batch(&rows, &lexsort_to_indices(&keys, None).unwrap()).unwrap()
}

fn check(plans: &[Plan]) {
    let frames = frames(plans);
    if frames.is_empty() {
        return;
    }
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = open(directory.path(), &ledger);
    lake.push(frames.clone());
    let id = lake.seal().unwrap().unwrap().batch.manifest.batch.clone();
    assert_eq!(findings(directory.path(), &ledger), []);
    let mut in_order = frames.clone();
    in_order.sort_by_key(|admitted| key_of(admitted).unwrap());
    let rows = rows(&in_order, 0).unwrap();
    let scalar = columns::stored_scalar_schema();
    assert_eq!(read(&lake, FileKind::Scalar, scalar.clone()), expected(&rows.scalar, &scalar));
    let wave = columns::stored_wave_schema();
    assert_eq!(read(&lake, FileKind::Wave, wave.clone()), expected(&rows.wave, &wave));
    let table = read(&lake, FileKind::Frames, columns::frames_schema());
    for (admitted, leaf) in in_order.iter().zip(0..) {
        let (device, boot, seq) = key_of(admitted).unwrap();
        let stored = lake.find(device, boot, seq).unwrap().unwrap();
        assert_eq!(stored.frame, admitted.frame);
        let (size, path) = lake.inclusion(&id, leaf).unwrap().unwrap();
        let (hash, root) = (frame_leaf(&stored.frame), lake.view().batches[0].manifest.root);
        merkle::verify_inclusion::<Blake3Frames>(&hash, u64::from(leaf), size, &path, &root).unwrap();
        let frame = Frame::parse(&admitted.frame).unwrap();
        let is_kept = table["frame"].as_binary::<i32>().is_valid(leaf as usize);
        assert_eq!(is_kept, shape_of(&frame, admitted.t0_us).is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    // Guarantee: whatever frames a batch holds, its files have every sample once and sorted, audit is clean, and each frame
    // comes back byte for byte with a proof, from its rows or from its kept bytes.
    #[test]
    fn frames_come_back(plans in prop::collection::vec(plan(), 1..12)) {
        check(&plans);
    }
}

/// Guarantee: more frames than a block has, of several devices, prove the same way; the usual frame keeps no bytes.
#[test]
fn blocks_prove() {
    let plain = |device: u32| Plan {
        device,
        boot: 0,
        t0_us: T0,
        wall_us: Some(T0),
        mono_us: 7,
        series: vec![series(1, 1_000_000, &[8_200, 8_300]), series(14, 31_250, &[1, 2, 3])],
        has_unknown_key: false,
        knows_prev: true,
        alg: Alg::EdDsa,
    };
    let plans: Vec<Plan> = (0..150).map(|at| plain(at % 3)).collect();
    assert!(
        frames(&plans).iter().all(|one| shape_of(&Frame::parse(&one.frame).unwrap(), one.t0_us).is_some())
    );
    check(&plans);
}
