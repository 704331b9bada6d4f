//! The published vectors in `schemas/vectors`: trees, a checkpoint, an evidence file. `VITALOG_BLESS=1` rewrites them.
//!
//! Whoever writes a second implementation checks it against these files. What it is not: the proof that our
//! own code is right; that rests on judges from outside.
#![expect(clippy::unwrap_used, reason = "a panic is how a test speaks")]

use std::fs;
use std::path::Path;

use schemas_evidence::conformance::sample;
use schemas_evidence::merkle::{self, Blake3Frames, Sha256Rfc6962, TreeHash};
use schemas_evidence::{Evidence, NoteKey, Strictness, Verification, cosign_checkpoint, sign_checkpoint};
use schemas_identity::SecretKey;
use serde_json::{Value, json};

fn check(name: &str, computed: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors").join(name);
    let text = format!("{}\n", serde_json::to_string_pretty(computed).unwrap());
    if std::env::var_os("VITALOG_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(stored, text, "{name} differs; VITALOG_BLESS=1 rewrites it");
}

fn tree<H: TreeHash>(count: usize) -> Value {
    let data: Vec<String> = (0..count).map(|n| format!("leaf {n}")).collect();
    let leaves: Vec<_> = data.iter().map(|data| H::leaf(data.as_bytes())).collect();
    let hexes = |hashes: Vec<_>| hashes.iter().map(|hash: &[u8; 32]| hex::encode(hash)).collect::<Vec<_>>();
    let inclusion: Vec<Value> = (0..count as u64)
        .map(|index| json!({"index": index, "path": hexes(merkle::inclusion_path::<H>(&leaves, index).unwrap())}))
        .collect();
    let consistency: Vec<Value> = (1..=count as u64)
        .map(|old| json!({"old": old, "path": hexes(merkle::consistency_path::<H>(&leaves, old).unwrap())}))
        .collect();
    let root = hex::encode(merkle::root::<H>(&leaves));
    json!({"size": count, "leaves": hexes(leaves), "root": root, "inclusion": inclusion, "consistency": consistency})
}

/// Leaf and node keys, leaves, roots, inclusion and consistency paths for both hashes are those published.
#[test]
fn tree_vectors() {
    let sizes = [1usize, 2, 3, 5, 8, 13];
    check(
        "tree.json",
        &json!({
            "note": "leaf i of each tree is the ASCII text 'leaf i'; all values are lower-case hex",
            "blake3_frames": {
                "leaf_key": hex::encode(merkle::LEAF_KEY),
                "node_key": hex::encode(merkle::NODE_KEY),
                "leaf_of_abc": hex::encode(Blake3Frames::leaf(b"abc")),
                "trees": sizes.map(tree::<Blake3Frames>),
            },
            "sha256_rfc6962": {
                "leaf_of_abc": hex::encode(Sha256Rfc6962::leaf(b"abc")),
                "trees": sizes.map(tree::<Sha256Rfc6962>),
            },
        }),
    );
}

/// A checkpoint signed with a fixed seed, its verifier keys and a cosignature are those published.
#[test]
fn checkpoint_vectors() {
    let (log_seed, witness_seed) = ([0x6c; 32], [0x77; 32]);
    let (log, witness) = (SecretKey::from_seed(&log_seed), SecretKey::from_seed(&witness_seed));
    let root = merkle::root::<Sha256Rfc6962>(&[Sha256Rfc6962::leaf(b"abc")]);
    let note = sign_checkpoint(sample::ORIGIN, 1, &root, &log).unwrap();
    let cosigned = cosign_checkpoint(&note, "witness.example/w1", &witness, 1_790_000_000).unwrap();
    check(
        "checkpoint.json",
        &json!({
            "log_seed": hex::encode(log_seed),
            "log_vkey": NoteKey::log(sample::ORIGIN, log.public()).unwrap().to_string(),
            "witness_seed": hex::encode(witness_seed),
            "witness_vkey": NoteKey::witness("witness.example/w1", witness.public()).unwrap().to_string(),
            "size": 1,
            "root": hex::encode(root),
            "checkpoint": note,
            "cosignature_time_s": 1_790_000_000,
            "cosigned": cosigned,
        }),
    );
}

/// An evidence file under its policy, for a first key and for one replaced once, are those published.
#[test]
fn evidence_vectors() {
    let policy = sample::policy();
    let files: Vec<Value> = [0u8, 1]
        .iter()
        .map(|rotations| {
            let evidence = sample::evidence(*rotations).unwrap();
            let bytes = evidence.to_bytes().unwrap();
            let verified = Verification::run(&bytes, &policy, Strictness::Everything).result.unwrap();
            assert_eq!(Evidence::parse(&bytes).unwrap(), evidence);
            json!({
                "device": verified.device.id.to_string(),
                "rotations": verified.device.rotations,
                "boot": verified.boot.to_string(),
                "seq": verified.seq,
                "leaf": verified.leaf,
                "frames": verified.frames,
                "log_index": verified.log_index,
                "entry": evidence.entry,
                "proof": evidence.proof,
                "evidence": hex::encode(&bytes),
            })
        })
        .collect();
    check("evidence.json", &json!({"policy": policy.to_text(), "files": files}));
}
