//! The set manifest: which files hold the data of several batches, adjacent in the log, instead of the batches' own.
//!
//! Canonical JSON like the batch manifest; its BLAKE3 is all that the `compact` entry of the log says. Leaf numbers of a
//! set run on from batch to batch: those of a batch begin at the sum of the frames of the batches before it. What it is
//! not: proof of a frame. Roots, ranges and proofs stay those of the batches.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::entry::{BATCH_ID_HEX, Entry};
use crate::manifest::{FileRef, MANIFEST_BYTES_MAX, ManifestError, are_files};
use crate::merkle::Hash32;
use crate::text;

/// What one set consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetManifest {
    /// Format version, 1.
    pub v: u32,
    /// [`set_id`] of its batches.
    pub set: String,
    /// The batches whose data it holds, in the order of the log; at least 2.
    pub batches: Vec<SetBatch>,
    /// Whose files it takes the place of, in the same order: ids of sets, and of batches that were in none.
    pub replaces: Vec<String>,
    /// The files; names are unique.
    pub files: Vec<FileRef>,
}

/// A batch of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBatch {
    /// Its id.
    pub batch: String,
    /// Its number of frames, at least 1.
    pub frames: u64,
}

/// The id of the set of these batches: the same batches in the same order always make the same set.
pub fn set_id<'a>(batches: impl Iterator<Item = &'a str>) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("vitalog 2026 set id v1");
    for batch in batches {
        // Ids have one length, so no two lists give the same bytes.
        hasher.update(batch.as_bytes());
    }
    hex::encode(&hasher.finalize().as_bytes()[..BATCH_ID_HEX / 2])
}

impl SetManifest {
    /// The canonical bytes, the ones that are stored and hashed. Fails if a value breaks a rule.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads canonical bytes; any other spelling is refused.
    pub fn parse(bytes: &[u8]) -> Result<SetManifest, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLong { bytes: bytes.len() });
        }
        let manifest: SetManifest = serde_json::from_slice(bytes)?;
        if manifest.to_bytes()? == bytes { Ok(manifest) } else { Err(ManifestError::NotCanonical) }
    }

    /// BLAKE3 of the canonical bytes: the `manifest` field of the compact entry.
    pub fn digest(&self) -> Result<Hash32, ManifestError> {
        Ok(*blake3::hash(&self.to_bytes()?).as_bytes())
    }

    /// The log entry that puts this set in the place of what it replaces.
    pub fn entry(&self) -> Result<Entry, ManifestError> {
        Ok(Entry::Compact { manifest: self.digest()? })
    }

    /// Frames of all its batches.
    pub fn frames(&self) -> u64 {
        self.batches.iter().map(|batch| batch.frames).sum()
    }

    fn check(&self) -> Result<(), ManifestError> {
        let is_id = |id: &str| id.len() == BATCH_ID_HEX && text::is_lower_hex(id);
        let ids = || self.batches.iter().map(|batch| batch.batch.as_str());
        let total = self.batches.iter().try_fold(0u32, |sum, batch| {
            let frames = u32::try_from(batch.frames).ok().filter(|frames| *frames > 0)?;
            sum.checked_add(frames)
        });
        let replaces = || self.replaces.iter().map(String::as_str);
        let rules = [
            ("v", self.v == 1),
            ("batches", self.batches.len() >= 2 && ids().all(is_id) && are_unique(ids())),
            ("frames", total.is_some()),
            ("set", self.set == set_id(ids())),
            ("replaces", self.replaces.len() >= 2 && replaces().all(is_id) && are_unique(replaces())),
            ("files", are_files(&self.files)),
        ];
        match rules.iter().find(|(_, holds)| !holds) {
            Some((field, _)) => Err(ManifestError::Value { field }),
            None => Ok(()),
        }
    }
}

fn are_unique<'a>(mut ids: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = HashSet::new();
    ids.all(|id| seen.insert(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::FileKind;

    fn example() -> SetManifest {
        let batches: Vec<SetBatch> =
            [3, 5].map(|frames| SetBatch { batch: format!("{frames:032x}"), frames }).into();
        let file = FileRef {
            name: "a.frames.parquet".into(),
            kind: FileKind::Frames,
            blake3: [7; 32],
            bytes: 10,
            rows: 8,
            device_min: 0,
            device_max: 4,
            ts_min_us: -1,
            ts_max_us: 9,
        };
        SetManifest {
            v: 1,
            set: set_id(batches.iter().map(|batch| batch.batch.as_str())),
            replaces: batches.iter().map(|batch| batch.batch.clone()).collect(),
            batches,
            files: vec![file],
        }
    }

    // Guarantee: a set manifest reads back, has one spelling, and its entry commits to every field.
    #[test]
    fn a_set_manifest_has_one_spelling() {
        let manifest = example();
        let bytes = manifest.to_bytes().unwrap();
        assert_eq!(SetManifest::parse(&bytes).unwrap(), manifest);
        let text = String::from_utf8(bytes).unwrap();
        for changed in [
            text.replace("\"v\":1", "\"v\": 1"),
            text.replace("\"frames\":3", "\"frames\":3,\"more\":1"),
            text.trim_end().to_owned(),
        ] {
            assert!(SetManifest::parse(changed.as_bytes()).is_err(), "{changed}");
        }
        let mut other = manifest.clone();
        other.files[0].rows = 9;
        assert_ne!(other.entry().unwrap(), manifest.entry().unwrap());
    }

    // Guarantee: the id follows from the batches and their order, so a set cannot pass for another one.
    #[test]
    fn values_that_break_a_rule_are_refused() {
        let check = |field: &str, change: &dyn Fn(&mut SetManifest)| {
            let mut manifest = example();
            change(&mut manifest);
            let found = manifest.to_bytes().unwrap_err();
            assert!(matches!(found, ManifestError::Value { field: named } if named == field), "{found:?}");
        };
        check("v", &|manifest| manifest.v = 2);
        check("set", &|manifest| manifest.batches.reverse());
        check("set", &|manifest| manifest.set = format!("{:032x}", 1));
        check("batches", &|manifest| manifest.batches.truncate(1));
        check("batches", &|manifest| manifest.batches[1] = manifest.batches[0].clone());
        check("frames", &|manifest| manifest.batches[0].frames = 0);
        check("frames", &|manifest| manifest.batches[0].frames = u64::from(u32::MAX));
        check("replaces", &|manifest| manifest.replaces.truncate(1));
        check("replaces", &|manifest| manifest.replaces[0] = "x".into());
        check("files", &|manifest| manifest.files[0].name = "../x".into());
    }
}
