//! Tests of the whole crate: what goes in comes out, what is damaged is refused, and another COSE library agrees.

mod oracle;
mod properties;
mod vectors;

use schemas_identity::SecretKey;

use crate::*;

pub(crate) fn key() -> SecretKey {
    SecretKey::from_seed(&[7; 32])
}

/// The bytes a frame's own fields give when encoded again, with its signature.
pub(crate) fn again(frame: &Frame<'_>) -> Vec<u8> {
    let builder = FrameBuilder::copy_of(frame);
    encode::seal(builder.alg, frame.kid(), &builder.payload(), |_| *frame.signature())
}

/// Every case of the hostile corpus meets the code it deserves, and is told why where it is not a frame.
#[test]
fn hostile_corpus_is_refused() {
    let key = key();
    let public = key.public();
    for case in hostile::corpus(&key, 1, 2_000) {
        let code = match Frame::parse(&case.bytes) {
            Err(error) => {
                assert!(!error.hint().is_empty());
                error.code()
            }
            Ok(frame) if frame.kid() != public.short_id() => Code::KeyUnknown,
            Ok(frame) => match verify_all(&Reference, vec![(frame, public)]).remove(0) {
                Ok(_) => Code::Ok,
                Err(_) => Code::SigBad,
            },
        };
        match case.expected {
            Some(expected) => assert_eq!(code, expected, "{}", case.name),
            None => assert!(!code.is_accepted(), "{}", case.name),
        }
    }
}

/// The corpus' own good frame verifies; so the refusals above are due to the damage alone.
#[test]
fn sample_is_good() {
    let key = key();
    for alg in [Alg::EdDsa, Alg::Ed25519] {
        let mut builder = hostile::sample_builder(3);
        builder.alg = alg;
        let bytes = builder.sign(&key).unwrap();
        let frame = Frame::parse(&bytes).unwrap();
        let verified = verify_all(&Reference, vec![(frame, key.public())]).remove(0).unwrap();
        assert_eq!((verified.alg(), verified.seq(), verified.series_len()), (alg, 3, 3));
        assert_eq!(verified.bytes(), bytes);
    }
}

/// A verifier that answers for too few jobs has verified none of the missing ones, and a neighbour's bad
/// signature changes no verdict.
#[test]
fn verdicts_stand_alone() {
    struct Lazy;
    impl Verifier for Lazy {
        fn name(&self) -> &'static str {
            "lazy"
        }
        fn verify(&self, _: &[Job<'_, '_>], verdicts: &mut Vec<bool>) {
            *verdicts = vec![true];
        }
    }
    let key = key();
    let (good, mut bad) = (hostile::sample(&key, 0), hostile::sample(&key, 1));
    *bad.last_mut().unwrap() ^= 1;
    let jobs = |list: &[&'static str]| -> Vec<(Frame<'_>, schemas_identity::PublicKey)> {
        let pick = |name: &&str| if *name == "good" { &good } else { &bad };
        list.iter().map(|name| (Frame::parse(pick(name)).unwrap(), key.public())).collect()
    };
    let lazy: Vec<bool> = verify_all(&Lazy, jobs(&["good", "good"])).iter().map(Result::is_ok).collect();
    assert_eq!(lazy, [true, false]);
    let mixed: Vec<bool> =
        verify_all(&Reference, jobs(&["good", "bad", "good"])).iter().map(Result::is_ok).collect();
    assert_eq!(mixed, [true, false, true]);
}

/// Unknown payload keys of any deterministic kind are accepted and stay in the bytes.
#[test]
fn unknown_keys_are_kept() {
    let key = key();
    let known = hostile::sample_builder(0).payload();
    for extra in ["07f6", "0782a1616101f4", "20fb3ff199999999999a", "61780c", "1864d84043010203"] {
        let mut payload = known.clone();
        payload[0] = 0xa7;
        payload.extend(hex::decode(extra).unwrap());
        let bytes = encode::seal(Alg::EdDsa, key.public().short_id(), &payload, |message| key.sign(message));
        let frame = Frame::parse(&bytes).unwrap_or_else(|error| panic!("{extra}: {error}"));
        assert_eq!((frame.payload(), frame.series_len()), (payload.as_slice(), 3));
    }
}

/// Times and values of regular, irregular and float series are the contract's formulas.
#[test]
fn samples() {
    let bytes = hostile::sample(&key(), 0);
    let frame = Frame::parse(&bytes).unwrap();
    let t0 = frame.wall_us().unwrap();
    let read: Vec<Vec<(i64, f64, Option<u8>)>> = frame
        .series()
        .map(|series| series.samples(t0).map(|(ts, value, quality)| (ts - t0, value, quality)).collect())
        .collect();
    assert_eq!(read[0], [(0, 82.72, Some(255)), (1_000_000, 83.0, Some(255)), (2_000_000, 83.23, Some(128))]);
    assert_eq!(read[1], [(250_000, 890.625, None), (1_109_375, 859.375, None)]);
    assert_eq!(read[2], [(0, -0.5, None), (7_812, 0.25, None), (15_624, 1.5, None), (23_436, 0.0, None)]);
    for series in frame.series() {
        for (index, (ts, value, _)) in series.samples(t0).enumerate() {
            assert_eq!((series.ts_us(index, t0), series.value(index)), (ts, value));
        }
        assert_eq!(series.samples(t0).last().map(|sample| sample.0), Some(series.ts_last_us(t0)));
        assert!(series.value(series.len()).is_nan());
    }
    let series = frame.series().next().unwrap();
    assert_eq!(series.samples(i64::MAX).last().map(|sample| sample.0), Some(i64::MAX));
}

/// A CBOR sequence is cut at its items' ends; a bad frame costs only itself, broken bytes end the sequence.
#[test]
fn sequences_are_cut() {
    let key = key();
    let first = hostile::sample(&key, 0);
    let not_a_frame = [0xbf, 0x01, 0x9f, 0xff, 0xff];
    let last = hostile::sample(&key, 1);
    let sequence = [&first[..], &not_a_frame, &last, &[0x82, 0x01]].concat();
    let mut rest = sequence.as_slice();
    let mut lengths = Vec::new();
    while let Ok(len) = next_frame_len(rest) {
        lengths.push(len);
        rest = &rest[len..];
    }
    assert_eq!(lengths, [first.len(), not_a_frame.len(), last.len()]);
    assert_eq!(next_frame_len(rest), Err(DecodeError::Truncated { at: 2 }));
    assert_eq!(next_frame_len(&[]), Err(DecodeError::Truncated { at: 0 }));
}

/// A frame of exactly the limit is accepted: the limit is the last good length.
#[test]
fn limit_is_inclusive() {
    let key = key();
    let mut builder = hostile::sample_builder(0);
    let around = builder.sign(&key).unwrap().len();
    let fill = |count: usize| OutSeries {
        values: OutValues::U8(vec![1; count]),
        quality: None,
        ..hostile::sample_builder(0).series.swap_remove(0)
    };
    builder.series.push(fill(60_000));
    let overhead = builder.sign(&key).unwrap().len() - 60_000;
    assert!(overhead > around);
    builder.series.pop();
    builder.series.push(fill(FRAME_BYTES_MAX - overhead));
    assert_eq!(builder.sign(&key).unwrap().len(), FRAME_BYTES_MAX);
    builder.series.pop();
    builder.series.push(fill(FRAME_BYTES_MAX - overhead + 1));
    assert_eq!(builder.sign(&key), Err(EncodeError(DecodeError::TooBig { len: FRAME_BYTES_MAX + 1 })));
}

/// The narrowest width that holds all integers is chosen, and none where 32 bits do not suffice.
#[test]
fn narrowest() {
    let cases: [(&[i64], Option<u8>); 8] = [
        (&[0, 255], Some(64)),
        (&[-128, 127], Some(72)),
        (&[0, 65_535], Some(69)),
        (&[-129, 127], Some(77)),
        (&[0, 1 << 31], Some(70)),
        (&[-1, 1 << 30], Some(78)),
        (&[-1, 1 << 31], None),
        (&[1 << 32], None),
    ];
    for (raws, tag) in cases {
        let found = OutValues::narrowest(raws).map(|values| {
            let mut bytes = Vec::new();
            values.write(&mut bytes);
            bytes[1]
        });
        assert_eq!(found, tag, "{raws:?}");
    }
    assert_eq!(OutDeltas::narrowest(&[255]), OutDeltas::U8(vec![255]));
    assert_eq!(OutDeltas::narrowest(&[256]), OutDeltas::U16(vec![256]));
    assert_eq!(OutDeltas::narrowest(&[1, 65_536]), OutDeltas::U32(vec![1, 65_536]));
}
