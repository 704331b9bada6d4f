//! Properties over generated frames and generated damage.

use proptest::prelude::*;
use schemas_identity::BootId;

use super::{again, key};
use crate::*;

fn values(len: usize) -> impl Strategy<Value = OutValues> {
    use proptest::collection::vec;
    prop_oneof![
        vec(any::<u8>(), len).prop_map(OutValues::U8),
        vec(any::<u16>(), len).prop_map(OutValues::U16),
        vec(any::<u32>(), len).prop_map(OutValues::U32),
        vec(any::<i8>(), len).prop_map(OutValues::I8),
        vec(any::<i16>(), len).prop_map(OutValues::I16),
        vec(any::<i32>(), len).prop_map(OutValues::I32),
        vec(any::<f32>(), len).prop_map(OutValues::F32),
        vec(any::<f64>(), len).prop_map(OutValues::F64),
    ]
}

fn deltas(len: usize) -> impl Strategy<Value = OutDeltas> {
    use proptest::collection::vec;
    prop_oneof![
        vec(any::<u8>(), len).prop_map(OutDeltas::U8),
        vec(any::<u16>(), len).prop_map(OutDeltas::U16),
        vec(any::<u32>(), len).prop_map(OutDeltas::U32),
    ]
}

fn series() -> impl Strategy<Value = OutSeries> {
    (1_usize..40).prop_flat_map(|len| {
        let spacing = prop_oneof![
            (1_u64..1 << 40).prop_map(|period| (period, None)),
            deltas(len).prop_map(|deltas| (0, Some(deltas))),
        ];
        let quality = proptest::option::of(proptest::collection::vec(any::<u8>(), len));
        (any::<u32>(), 0_u64..1 << 50, spacing, (1_u32..1 << 21, 1_u32..1 << 31), values(len), quality)
            .prop_map(|(signal, offset_us, (period_us, deltas), (num, den), values, quality)| {
                let float = matches!(values, OutValues::F32(_) | OutValues::F64(_));
                let scale = if float { Scale::ONE } else { Scale { num, den } };
                OutSeries { signal, offset_us, period_us, scale, values, deltas, quality }
            })
    })
}

prop_compose! {
    fn builder()(
        ed25519 in any::<bool>(),
        boot in any::<[u8; 8]>(),
        seq in 0_u64..1 << 63,
        prev in any::<[u8; 16]>(),
        wall_us in any::<Option<i64>>(),
        mono_us in 0_u64..1 << 63,
        series in proptest::collection::vec(series(), 0..6),
    ) -> FrameBuilder {
        let alg = if ed25519 { Alg::Ed25519 } else { Alg::EdDsa };
        FrameBuilder { alg, boot: BootId(boot), seq, prev, wall_us, mono_us, series }
    }
}

/// Whether the payload holds the known keys only.
fn only_known_keys(frame: &Frame<'_>) -> bool {
    frame.payload().first() == Some(&0xa6)
}

/// NaN differs from itself, so builders are compared by their bytes.
fn same(a: &FrameBuilder, b: &FrameBuilder) -> bool {
    a.payload() == b.payload()
        && a.alg == b.alg
        && (a.seq, a.wall_us, a.mono_us) == (b.seq, b.wall_us, b.mono_us)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// What a device encodes is what the server reads, and encoding it again gives the same bytes.
    #[test]
    fn round_trip(builder in builder()) {
        let bytes = builder.sign(&key()).unwrap();
        let frame = Frame::parse(&bytes).unwrap();
        prop_assert!(same(&FrameBuilder::copy_of(&frame), &builder));
        prop_assert_eq!(frame.series().count(), builder.series.len());
        prop_assert_eq!(again(&frame), bytes.clone());
        prop_assert_eq!(next_frame_len(&bytes), Ok(bytes.len()));
        prop_assert!(verify_all(&Reference, vec![(frame, key().public())]).remove(0).is_ok());
    }

    /// Columns of a series are its samples, whatever the times: also where they saturate.
    #[test]
    fn columns_are_samples(builder in builder(), t0_us in prop_oneof![any::<i64>(), i64::MAX - (1 << 50)..=i64::MAX]) {
        let bytes = builder.sign(&key()).unwrap();
        for series in Frame::parse(&bytes).unwrap().series() {
            // Something stands before: columns are appended to.
            let (mut ts, mut raw, mut real) = (vec![7], vec![7], vec![7.0]);
            series.extend_ts_us(t0_us, &mut ts);
            prop_assert_eq!(series.values.extend_raw(&mut raw), series.values.is_integer());
            prop_assert_eq!(series.values.extend_real(&mut real), !series.values.is_integer());
            let expected: Vec<i64> = series.samples(t0_us).map(|(ts_us, _, _)| ts_us).collect();
            prop_assert_eq!(&ts[1..], expected);
            let expected: Vec<i64> = (0..series.len()).filter_map(|at| series.values.raw_i64(at)).collect();
            prop_assert_eq!(&raw[1..], expected);
            let bits: Vec<u64> = real[1..].iter().map(|value| value.to_bits()).collect();
            let expected = (0..series.len()).filter_map(|at| series.values.real(at)).map(f64::to_bits);
            prop_assert_eq!(bits, expected.collect::<Vec<u64>>());
        }
    }

    /// Any bytes at all give a frame or an error; a frame of known keys is the encoding of its own fields.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = next_frame_len(&bytes);
        if let Ok(frame) = Frame::parse(&bytes) {
            prop_assert!(!only_known_keys(&frame) || again(&frame) == bytes);
        }
    }

    /// The same, where the damage starts from a good frame and so reaches deeper.
    #[test]
    fn damaged(builder in builder(), hits in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..5)) {
        let mut bytes = builder.sign(&key()).unwrap();
        for (at, value) in hits {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let _ = next_frame_len(&bytes);
        if let Ok(frame) = Frame::parse(&bytes) {
            prop_assert_eq!(frame.series().count(), frame.series_len());
            prop_assert!(!only_known_keys(&frame) || again(&frame) == bytes);
        }
    }
}

/// Every value of every single byte of a good frame, and every truncation: no panic, no second encoding of the
/// same content, no damaged frame that still verifies.
#[test]
fn every_single_byte() {
    let key = key();
    let good = hostile::sample(&key, 1);
    let mut accepted = 0;
    for at in 0..good.len() {
        assert!(Frame::parse(&good[..at]).is_err(), "cut at {at}");
        assert!(next_frame_len(&good[..at]).is_err(), "cut at {at}");
        let mut bytes = good.clone();
        for value in 0..=255 {
            bytes[at] = value;
            let _ = next_frame_len(&bytes);
            let Ok(frame) = Frame::parse(&bytes) else { continue };
            assert_eq!(again(&frame), bytes, "byte {at} = {value}");
            assert_eq!(frame.series().count(), frame.series_len());
            for series in frame.series() {
                assert_eq!(series.samples(i64::MIN).count(), series.len());
            }
            accepted += 1;
        }
        bytes[at] = good[at] ^ 1;
        if let Ok(frame) = Frame::parse(&bytes) {
            assert!(verify_all(&Reference, vec![(frame, key.public())]).remove(0).is_err(), "byte {at}");
        }
    }
    assert!(accepted > 20_000, "most payload bytes are free to vary, {accepted} did");
}
