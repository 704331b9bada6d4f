//! `schemas/vectors/frame.json` and `leaf.json`: what a second implementation must produce and refuse. They are made
//! here from fixed seeds and compared as text; `VITALOG_BLESS=1` writes them anew.

use std::path::PathBuf;

use schemas_identity::{BootId, SecretKey};
use serde_json::{Value, json};

use crate::*;

const LEAF_CONTEXT: &str = "vitalog 2026 frame leaf v1";
const NODE_CONTEXT: &str = "vitalog 2026 tree node v1";
const CORPUS_SEED: u64 = 20_260_101;
const MUTANTS: usize = 20;

/// Compares with the file, or writes it when blessed.
fn check(name: &str, made: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../vectors").join(name);
    let text = format!("{}\n", serde_json::to_string_pretty(made).unwrap());
    if std::env::var_os("VITALOG_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{name} differs from what this build makes; VITALOG_BLESS=1 rewrites it");
}

fn leaf(bytes: &[u8]) -> String {
    hex::encode(blake3::keyed_hash(&blake3::derive_key(LEAF_CONTEXT, b""), bytes).as_bytes())
}

fn builders() -> Vec<(&'static str, FrameBuilder)> {
    let boot = BootId([1, 2, 3, 4, 5, 6, 7, 8]);
    let series = |signal, values| OutSeries {
        signal,
        offset_us: 0,
        period_us: 1_000_000,
        scale: Scale::ONE,
        values,
        deltas: None,
        quality: None,
    };
    let empty = FrameBuilder::new(boot, 0, [0; 16], None, 0);
    let widths = [
        OutValues::U8(vec![0, 1, 255]),
        OutValues::U16(vec![0, 256, 65_535]),
        OutValues::U32(vec![0, 65_536, u32::MAX]),
        OutValues::I8(vec![-128, 0, 127]),
        OutValues::I16(vec![-32_768, 0, 32_767]),
        OutValues::I32(vec![i32::MIN, 0, i32::MAX]),
        OutValues::F32(vec![-0.5, 0.0, 1.5]),
        OutValues::F64(vec![-0.1, 1e300, 36.6]),
    ];
    let mut all = FrameBuilder::new(boot, 24, [0xaa; 16], Some(-1), 1 << 32);
    all.series = widths.into_iter().enumerate().map(|(i, values)| series(i as u32 + 20, values)).collect();
    let wide = FrameBuilder::new(BootId([0xff; 8]), (1 << 63) - 1, [0xff; 16], Some(i64::MIN), (1 << 63) - 1)
        .series(OutSeries {
            offset_us: (1 << 53) - 1,
            scale: Scale { num: (1 << 31) - 1, den: (1 << 31) - 1 },
            ..series(u32::MAX, OutValues::U16(vec![65_535]))
        });
    let irregular =
        FrameBuilder::new(boot, 2, [9; 16], Some(1_644_226_096_484_375), 35_484_375).series(OutSeries {
            period_us: 0,
            scale: Scale { num: 1, den: 1000 },
            deltas: Some(OutDeltas::U32(vec![0, 859_375, 953_125])),
            quality: Some(vec![1, 2, 3]),
            ..series(10, OutValues::U32(vec![890_625, 859_375, 953_125]))
        });
    let mut other_alg = hostile::sample_builder(1);
    other_alg.alg = Alg::Ed25519;
    vec![
        ("no series, clock never set", empty),
        ("three series", hostile::sample_builder(0)),
        ("alg -19", other_alg),
        ("every width", all),
        ("every bound", wide),
        ("irregular with quality", irregular),
    ]
}

fn values_json(values: &OutValues) -> Value {
    match values {
        OutValues::U8(v) => json!({"tag": 64, "values": v}),
        OutValues::U16(v) => json!({"tag": 69, "values": v}),
        OutValues::U32(v) => json!({"tag": 70, "values": v}),
        OutValues::I8(v) => json!({"tag": 72, "values": v}),
        OutValues::I16(v) => json!({"tag": 77, "values": v}),
        OutValues::I32(v) => json!({"tag": 78, "values": v}),
        OutValues::F32(v) => json!({"tag": 85, "values": v}),
        OutValues::F64(v) => json!({"tag": 86, "values": v}),
    }
}

fn deltas_json(deltas: &OutDeltas) -> Value {
    match deltas {
        OutDeltas::U8(v) => json!({"tag": 64, "values": v}),
        OutDeltas::U16(v) => json!({"tag": 69, "values": v}),
        OutDeltas::U32(v) => json!({"tag": 70, "values": v}),
    }
}

fn series_json(series: &OutSeries) -> Value {
    json!({
        "signal": series.signal,
        "offset_us": series.offset_us,
        "period_us": series.period_us,
        "scale": [series.scale.num, series.scale.den],
        "values": values_json(&series.values),
        "deltas": series.deltas.as_ref().map(deltas_json),
        "quality": series.quality,
    })
}

fn frame_json(name: &str, seed: u8, builder: &FrameBuilder) -> Value {
    let key = SecretKey::from_seed(&[seed; 32]);
    let bytes = builder.sign(&key).unwrap();
    let frame = Frame::parse(&bytes).unwrap();
    let mut message = Vec::new();
    frame.signed_message(&mut message);
    json!({
        "name": name,
        "seed": hex::encode([seed; 32]),
        "public": hex::encode(key.public().as_bytes()),
        "kid": key.public().short_id(),
        "alg": if builder.alg == Alg::EdDsa { -8 } else { -19 },
        "boot": builder.boot,
        "seq": builder.seq,
        "prev": hex::encode(builder.prev),
        "wall_us": builder.wall_us,
        "mono_us": builder.mono_us,
        "series": builder.series.iter().map(series_json).collect::<Vec<_>>(),
        "payload": hex::encode(frame.payload()),
        "signed_message": hex::encode(&message),
        "signature": hex::encode(frame.signature()),
        "frame": hex::encode(&bytes),
        "digest16": hex::encode(frame.digest16()),
        "leaf": leaf(&bytes),
    })
}

/// The frames that fixed seeds give, and the hostile ones with the code each deserves, are those of the file.
#[test]
fn frame_vectors() {
    let mut frames = Vec::new();
    for (seed, (name, builder)) in (1..).zip(builders()) {
        frames.push(frame_json(name, seed, &builder));
    }
    let key = SecretKey::from_seed(&[7; 32]);
    let cases = hostile::corpus(&key, CORPUS_SEED, MUTANTS);
    let small = cases.iter().filter(|case| case.bytes.len() <= 16_384);
    let refused: Vec<Value> = small
        .map(|case| {
            let code = match (case.expected, Frame::parse(&case.bytes)) {
                (Some(code), _) => code,
                (None, Err(error)) => error.code(),
                (None, Ok(frame)) if frame.kid() != key.public().short_id() => Code::KeyUnknown,
                (None, Ok(_)) => Code::SigBad,
            };
            json!({"name": case.name, "code": code, "frame": hex::encode(&case.bytes)})
        })
        .collect();
    let made = json!({
        "what": "vitalog frames: fields and key seed give exactly these bytes; the refused ones get exactly this code",
        "external_aad": hex::encode(EXTERNAL_AAD),
        "frames": frames,
        "refused_enrolled_seed": hex::encode([7; 32]),
        "refused": refused,
    });
    check("frame.json", &made);
}

/// Leaf and node keys and the leaf of "abc" are the contract's constants, and the file has them.
#[test]
fn leaf_vectors() {
    let leaf_key = hex::encode(blake3::derive_key(LEAF_CONTEXT, b""));
    let node_key = hex::encode(blake3::derive_key(NODE_CONTEXT, b""));
    assert_eq!(leaf_key, "3339571a2c916a2d5770ec0bdc3bac3fb74909908815cb7872532361618f867c");
    assert_eq!(node_key, "f3f98a88c973e8d7692de73d34a3e09c5766d17c36b1bfba3a143ad9c2360aab");
    assert_eq!(leaf(b"abc"), "8881f24ec8d5adf719ab867845d89ff3640e4266482e39eabd250823fc9dec02");
    let pattern = |len: usize| (0..len).map(|i| (i % 251) as u8).collect::<Vec<u8>>();
    let mut leaves = vec![json!({"data": hex::encode("abc"), "leaf": leaf(b"abc")})];
    for len in [0, 1, 63, 64, 65, 1023, 1024, 1025, 2049] {
        let data = pattern(len);
        leaves.push(json!({"data": hex::encode(&data), "leaf": leaf(&data)}));
    }
    let (left, right) = ([1_u8; 32], [2_u8; 32]);
    let node = blake3::keyed_hash(&blake3::derive_key(NODE_CONTEXT, b""), &[left, right].concat());
    let made = json!({
        "what": "leaf = BLAKE3 keyed hash of the frame's bytes; node = BLAKE3 keyed hash of left and right",
        "leaf_context": LEAF_CONTEXT,
        "leaf_key": leaf_key,
        "node_context": NODE_CONTEXT,
        "node_key": node_key,
        "leaves": leaves,
        "nodes": [{"left": hex::encode(left), "right": hex::encode(right), "node": hex::encode(node.as_bytes())}],
    });
    check("leaf.json", &made);
}
