//! The 518 published Merkle vectors (transparency-dev), found through `VITALOG_SHARED` or `../shared` from the workspace root.
//! What it is not: needed to build; without the folder the test says loudly that it was skipped.
#![expect(clippy::unwrap_used, reason = "a panic is how a test speaks")]

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas_evidence::merkle::{
    Hash32, ProofError, Sha256Rfc6962, verify_consistency, verify_inclusion, verify_subtree_consistency,
    verify_subtree_inclusion,
};
use serde_json::Value;

const FILES: usize = 518;

fn folder() -> Option<PathBuf> {
    let shared = match std::env::var_os("VITALOG_SHARED") {
        Some(shared) => PathBuf::from(shared),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    };
    let folder = shared.join("vectors/merkle_rfc6962/testdata");
    folder.is_dir().then_some(folder)
}

fn json_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            json_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
}

fn number(vector: &Value, field: &str) -> u64 {
    vector[field].as_u64().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// A hash that must have 32 bytes: this crate's types admit no other, so another length is a refusal.
fn hash(value: &Value) -> Option<Hash32> {
    bytes(value).try_into().ok()
}

/// A root that is only compared. The vectors use texts like "dont care 1" here, which a hash of their own stands for.
fn stand_in(value: &Value) -> Hash32 {
    let raw = bytes(value);
    raw.as_slice().try_into().unwrap_or_else(|_| *blake3::hash(&raw).as_bytes())
}

fn proof(vector: &Value) -> Option<Vec<Hash32>> {
    match vector["proof"].as_array() {
        Some(hashes) => hashes.iter().map(hash).collect(),
        None => Some(Vec::new()),
    }
}

/// `None`: a part has not the length of a hash. Otherwise the verdict.
fn verdict(kind: &str, vector: &Value) -> Option<Result<(), ProofError>> {
    let path = proof(vector)?;
    let n = |field| number(vector, field);
    Some(match kind {
        "inclusion" => {
            let (leaf, root) = (hash(&vector["leafHash"])?, hash(&vector["root"])?);
            verify_inclusion::<Sha256Rfc6962>(&leaf, n("leafIdx"), n("treeSize"), &path, &root)
        }
        "subtreeinclusion" => {
            let (leaf, root) = (hash(&vector["leafHash"])?, hash(&vector["root"])?);
            let range = (n("start"), n("end"));
            verify_subtree_inclusion::<Sha256Rfc6962>(&leaf, n("leafIdx"), range, &path, &root)
        }
        "consistency" => {
            let (old, new) = (stand_in(&vector["root1"]), stand_in(&vector["root2"]));
            verify_consistency::<Sha256Rfc6962>(n("size1"), n("size2"), &path, &old, &new)
        }
        "subtreeconsistency" => {
            let (part, whole) = (stand_in(&vector["root1"]), stand_in(&vector["root2"]));
            let range = (n("start"), n("end"));
            verify_subtree_consistency::<Sha256Rfc6962>(range, n("size"), &path, &part, &whole)
        }
        other => panic!("unknown kind of vector {other}"),
    })
}

/// Every published vector, good and bad, gets the verdict it asks for.
#[test]
fn all_published_vectors_agree() {
    let Some(folder) = folder() else {
        eprintln!("skipped: all_published_vectors_agree needs vectors/merkle_rfc6962 (set VITALOG_SHARED)");
        return;
    };
    let mut checked = 0;
    for kind in ["inclusion", "consistency", "subtreeinclusion", "subtreeconsistency"] {
        let mut files = Vec::new();
        json_files(&folder.join(kind), &mut files);
        for file in files {
            let vector: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            let refused = !matches!(verdict(kind, &vector), Some(Ok(())));
            assert_eq!(refused, vector["wantErr"].as_bool().unwrap(), "{}", file.display());
            checked += 1;
        }
    }
    assert_eq!(checked, FILES);
}
