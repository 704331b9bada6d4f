//! What makes a reading provable: tree hashes, log entries, checkpoints, proofs, policies, manifests and the evidence file.
//!
//! | file | holds |
//! |---|---|
//! | `merkle`     | the shape of RFC 6962, generic over the hash: roots, inclusion, consistency, subtrees |
//! | `compact`    | the right edge of a growing tree, in memory logarithmic in its size |
//! | `entry`      | the text a log leaf consists of, and the salted commitment inside it |
//! | `manifest`   | what a batch consists of: files, digests, per-device ranges |
//! | `set`        | which files hold several batches after compaction |
//! | `note`       | C2SP signed notes and verifier keys |
//! | `checkpoint` | C2SP checkpoints and `cosignature/v1` |
//! | `policy`     | C2SP trust policy, with the `maker` lines of this project |
//! | `proof`      | C2SP offline proofs of logging |
//! | `evidence`   | the `.evidence` file: from one frame to one checkpoint, checked offline |
//! | `answer`     | the manifest of an answer: what was asked of which state, checked offline |
//! | `tiles`      | C2SP tlog-tiles: names, contents, the audit of a whole log |
//! | `ledger`     | the traits `Ledger` and `Anchor`, with a ledger in memory |
//! | `conformance`| the suite each implementation of those traits runs (feature `conformance`) |
//!
//! What it is not: nothing here reads a file, a socket, a clock or a source of randomness.

pub mod answer;
pub mod checkpoint;
pub mod compact;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod entry;
pub mod evidence;
pub mod ledger;
pub mod manifest;
pub mod memory;
pub mod merkle;
pub mod note;
pub mod policy;
pub mod proof;
pub mod set;
mod text;
pub mod tiles;

pub use answer::AnswerManifest;
pub use checkpoint::{Checkpoint, CheckpointError, cosign_checkpoint, open_checkpoint, sign_checkpoint};
pub use compact::CompactTree;
pub use entry::{Entry, EntryError, commitment, entry_leaf};
pub use evidence::{
    AnchorRef, BatchPath, Evidence, EvidenceError, Outcome, Step, Strictness, Verification, Verified,
};
pub use ledger::{Anchor, AnchorError, Ledger, LedgerError, Receipt, Ticket};
pub use manifest::{BatchManifest, DeviceRange, FileKind, FileRef, ManifestError};
pub use memory::{MemoryAnchor, MemoryLedger};
pub use merkle::{Blake3Frames, FrameHasher, Hash32, ProofError, Sha256Rfc6962, TreeHash, frame_leaf};
pub use note::{KeyKind, NoteError, NoteKey};
pub use policy::{Policy, PolicyError, PolicyParseError};
pub use proof::{TlogProof, TlogProofError};
pub use set::{SetBatch, SetManifest, set_id};
