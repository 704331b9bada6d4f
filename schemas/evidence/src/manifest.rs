//! The batch manifest: which files hold a batch, with digests, and which sequence numbers of which device are in it.
//!
//! It is canonical JSON (one spelling, fields in one order, no white space, a final newline); its BLAKE3 stands in the batch
//! entry of the log, so it lies beside the files unsigned. What it is not: the frames' proof; that is the batch root.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::entry::{BATCH_ID_HEX, Entry};
use crate::merkle::{self, Hash32};
use crate::text;

/// Longest manifest in bytes: 64 k frames of 64 k devices, each a range of its own, fit.
pub const MANIFEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// BLAKE3 key of a device range's leaf: `derive_key("vitalog 2026 device range leaf v1", "")`.
fn range_key() -> Hash32 {
    blake3::derive_key("vitalog 2026 device range leaf v1", b"")
}

/// What one batch consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchManifest {
    /// Format version, 1.
    pub v: u32,
    /// 32 lower-case hex digits.
    pub batch: String,
    /// Number of frames, at least 1.
    pub frames: u64,
    /// Root of the batch tree, 64 hex digits.
    #[serde(with = "hex32")]
    pub root: Hash32,
    /// First position in the write-ahead log.
    pub wal_from: u64,
    /// One past the last position.
    pub wal_to: u64,
    /// Earliest t0, microseconds since 1970 UTC.
    pub from_us: i64,
    /// Latest t0, microseconds since 1970 UTC.
    pub to_us: i64,
    /// The files; names are unique.
    pub files: Vec<FileRef>,
    /// One per contiguous run of one boot of one device, in the order of the frames' first appearance or by device.
    pub ranges: Vec<DeviceRange>,
}

/// One file of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRef {
    /// Plain file name: letters, digits, `.`, `-`, `_`, not starting with a dot.
    pub name: String,
    /// What rows it holds.
    pub kind: FileKind,
    /// BLAKE3 of its bytes, 64 hex digits.
    #[serde(with = "hex32")]
    pub blake3: Hash32,
    /// Length in bytes.
    pub bytes: u64,
    /// Number of rows.
    pub rows: u64,
    /// Smallest device number in it.
    pub device_min: u32,
    /// Largest device number in it.
    pub device_max: u32,
    /// Earliest time stamp, microseconds since 1970 UTC.
    pub ts_min_us: i64,
    /// Latest time stamp, microseconds since 1970 UTC.
    pub ts_max_us: i64,
}

/// What rows a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// One row per sample.
    Scalar,
    /// One row per series.
    Wave,
    /// One row per frame, with its bytes.
    Frames,
}

/// A contiguous run of sequence numbers of one boot of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRange {
    /// Device number.
    pub device: u32,
    /// Boot id, 16 hex digits.
    #[serde(with = "hex8")]
    pub boot: [u8; 8],
    /// First sequence number.
    pub first: u64,
    /// Last sequence number.
    pub last: u64,
    /// First 16 bytes of the BLAKE3 of the last frame, 32 hex digits.
    #[serde(with = "hex16")]
    pub last_digest: [u8; 16],
}

/// Why bytes are not a manifest.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Longer than [`MANIFEST_BYTES_MAX`].
    #[error("manifest has {bytes} bytes, more than {MANIFEST_BYTES_MAX}")]
    TooLong {
        /// Length found.
        bytes: usize,
    },
    /// Not JSON of this form.
    #[error("manifest is not valid")]
    Json(#[from] serde_json::Error),
    /// The content is right but the spelling is not the canonical one.
    #[error("manifest is not in its canonical spelling")]
    NotCanonical,
    /// A value breaks a rule.
    #[error("manifest field {field} breaks its rule")]
    Value {
        /// The field.
        field: &'static str,
    },
}

impl BatchManifest {
    /// The canonical bytes, the ones that are stored and hashed. Fails if a value breaks a rule.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads canonical bytes; any other spelling is refused.
    pub fn parse(bytes: &[u8]) -> Result<BatchManifest, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLong { bytes: bytes.len() });
        }
        let manifest: BatchManifest = serde_json::from_slice(bytes)?;
        if manifest.to_bytes()? == bytes { Ok(manifest) } else { Err(ManifestError::NotCanonical) }
    }

    /// BLAKE3 of the canonical bytes: the `manifest` field of the batch entry.
    pub fn digest(&self) -> Result<Hash32, ManifestError> {
        Ok(*blake3::hash(&self.to_bytes()?).as_bytes())
    }

    /// [`BatchManifest::digest`] as 64 hex digits.
    pub fn id(&self) -> Result<String, ManifestError> {
        Ok(hex::encode(self.digest()?))
    }

    /// Root of the tree over the device ranges, so that one range can be shown without the others.
    pub fn ranges_root(&self) -> Hash32 {
        let key = range_key();
        let leaves: Vec<Hash32> = self.ranges.iter().map(|range| range.leaf(&key)).collect();
        merkle::root::<merkle::Blake3Frames>(&leaves)
    }

    /// The log entry that makes this batch exist.
    pub fn entry(&self) -> Result<Entry, ManifestError> {
        Ok(Entry::Batch {
            id: self.batch.clone(),
            frames: self.frames,
            root: self.root,
            manifest: self.digest()?,
            ranges: self.ranges_root(),
            from_us: self.from_us,
            to_us: self.to_us,
        })
    }

    fn check(&self) -> Result<(), ManifestError> {
        let rules = [
            ("v", self.v == 1),
            ("batch", self.batch.len() == BATCH_ID_HEX && text::is_lower_hex(&self.batch)),
            ("frames", self.frames > 0),
            ("wal_to", self.wal_from < self.wal_to),
            ("to_us", self.from_us <= self.to_us),
            ("files", are_unique(&self.files)),
            ("name", self.files.iter().all(|file| is_file_name(&file.name))),
            ("last", self.ranges.iter().all(|range| range.first <= range.last)),
        ];
        match rules.iter().find(|(_, holds)| !holds) {
            Some((field, _)) => Err(ManifestError::Value { field }),
            None => Ok(()),
        }
    }
}

fn are_unique(files: &[FileRef]) -> bool {
    files.iter().map(|file| &file.name).collect::<HashSet<_>>().len() == files.len()
}

/// Files of a manifest: their names are unique and stay in the directory.
pub(crate) fn are_files(files: &[FileRef]) -> bool {
    are_unique(files) && files.iter().all(|file| is_file_name(&file.name))
}

/// A name that can be joined to a directory without leaving it.
fn is_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.bytes().all(plain)
}

impl DeviceRange {
    /// Leaf in the tree of ranges: fixed-width big-endian fields under a key of its own.
    fn leaf(&self, key: &Hash32) -> Hash32 {
        let mut bytes = Vec::with_capacity(44);
        bytes.extend_from_slice(&self.device.to_be_bytes());
        bytes.extend_from_slice(&self.boot);
        bytes.extend_from_slice(&self.first.to_be_bytes());
        bytes.extend_from_slice(&self.last.to_be_bytes());
        bytes.extend_from_slice(&self.last_digest);
        *blake3::keyed_hash(key, &bytes).as_bytes()
    }
}

/// Serde for fixed-size byte arrays as lower-case hex of exactly their length.
macro_rules! hex_field {
    ($name:ident, $bytes:literal) => {
        mod $name {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            pub(super) fn serialize<S: Serializer>(bytes: &[u8; $bytes], to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&hex::encode(bytes))
            }

            pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<[u8; $bytes], D::Error> {
                let text = String::deserialize(from)?;
                let mut bytes = [0; $bytes];
                hex::decode_to_slice(&text, &mut bytes).map_err(D::Error::custom)?;
                Ok(bytes)
            }
        }
    };
}
hex_field!(hex8, 8);
hex_field!(hex16, 16);
hex_field!(hex32, 32);

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> BatchManifest {
        let file = |name: &str, kind| FileRef {
            name: name.into(),
            kind,
            blake3: [7; 32],
            bytes: 10,
            rows: 3,
            device_min: 0,
            device_max: 4,
            ts_min_us: -1,
            ts_max_us: 9,
        };
        BatchManifest {
            v: 1,
            batch: "00112233445566778899aabbccddeeff".into(),
            frames: 2,
            root: [9; 32],
            wal_from: 5,
            wal_to: 7,
            from_us: 1,
            to_us: 2,
            files: vec![
                file("a.frames.parquet", FileKind::Frames),
                file("a.scalar.parquet", FileKind::Scalar),
            ],
            ranges: vec![DeviceRange { device: 4, boot: [1; 8], first: 0, last: 1, last_digest: [2; 16] }],
        }
    }

    #[test]
    fn a_manifest_reads_back_and_its_entry_commits_to_every_field() {
        let manifest = example();
        assert_eq!(BatchManifest::parse(&manifest.to_bytes().unwrap()).unwrap(), manifest);
        let mut other = manifest.clone();
        other.ranges[0].last = 3;
        assert_ne!(other.id().unwrap(), manifest.id().unwrap());
        assert_ne!(other.ranges_root(), manifest.ranges_root());
        let Entry::Batch { manifest: digest, .. } = manifest.entry().unwrap() else { panic!("not a batch") };
        assert_eq!(hex::encode(digest), manifest.id().unwrap());
    }

    #[test]
    fn another_spelling_of_the_same_manifest_is_refused() {
        let bytes = example().to_bytes().unwrap();
        let canonical = String::from_utf8(bytes).unwrap();
        for changed in [
            canonical.replace("\"v\":1", "\"v\": 1"),
            canonical.replace("\"root\":\"09", "\"root\":\"0\\u0039"),
            canonical.replace("\"frames\":2", "\"frames\":2,\"frames\":2"),
            canonical.replace("\"frames\":2", "\"frames\":2,\"more\":1"),
            canonical.trim_end().to_owned(),
            canonical.replace("0202", "0A02"),
        ] {
            assert!(BatchManifest::parse(changed.as_bytes()).is_err(), "{changed}");
        }
    }

    #[test]
    fn file_names_cannot_leave_the_directory() {
        for name in ["../x", "/x", "a/b", "", ".hidden", "a\\b", "a\0"] {
            let mut manifest = example();
            manifest.files.truncate(1);
            manifest.files[0].name = name.into();
            assert!(matches!(manifest.to_bytes(), Err(ManifestError::Value { field: "name" })), "{name:?}");
        }
    }
}
