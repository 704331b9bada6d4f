//! The `.evidence` file: everything an outsider needs, but the policy, to check offline where one frame came from.
//!
//! ```text
//! { "v": 1,
//!   "path":      {"path": [bstr 32, ...], "size": frames in the batch, "index": leaf},
//!   "entry":     text of the batch's log entry,
//!   "frame":     the frame's bytes as the device signed them,
//!   "proof":     C2SP tlog-proof of the entry,
//!   "anchors":   [{"kind": tstr, "receipt": bstr}, ...],
//!   "enrolment": compact JWS of `enrol`, and of each later `rotate` of the device's key, one per line }
//! ```
//!
//! Deterministic CBOR (RFC 8949 section 4.2.1): keys in the order above, shortest lengths, nothing indefinite. Any other
//! encoding of the same content is refused. What it is not: trusted; `verify` holds each byte against the policy.

#[cfg(any(test, feature = "conformance"))]
pub mod sample;
mod verify;

use minicbor::{Decoder, Encoder};
use thiserror::Error;

pub use verify::{Device, EvidenceError, Outcome, Step, StepReport, Strictness, Verification, Verified};

use crate::entry::ENTRY_BYTES_MAX;
use crate::merkle::{Hash32, PATH_MAX};
use crate::policy::Policy;
use crate::proof::TLOG_PROOF_BYTES_MAX;

/// Longest evidence file in bytes.
pub const EVIDENCE_BYTES_MAX: usize = 1024 * 1024;

/// Most statements in `enrolment`: the first key and its successors.
pub const ENROLMENT_STATEMENTS_MAX: usize = 16;

/// Longest `enrolment` in bytes.
pub const ENROLMENT_BYTES_MAX: usize = ENROLMENT_STATEMENTS_MAX * (16 * 1024 + 1);

/// Most anchors.
pub const ANCHORS_MAX: usize = 16;

/// Longest receipt of an anchor in bytes.
pub const RECEIPT_BYTES_MAX: usize = 16 * 1024;

/// Longest `kind` of an anchor in bytes.
pub const ANCHOR_KIND_BYTES_MAX: usize = 64;

/// An evidence file taken apart. Nothing in it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The frame as received.
    pub frame: Vec<u8>,
    /// The `enrol` statement, then each `rotate`, one compact JWS per line, no final newline.
    pub enrolment: String,
    /// Where the frame is in its batch.
    pub path: BatchPath,
    /// Text of the batch's log entry.
    pub entry: String,
    /// C2SP tlog-proof of that entry.
    pub proof: String,
    /// What others said about the checkpoint.
    pub anchors: Vec<AnchorRef>,
}

/// A frame's place in its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPath {
    /// Leaf index of the frame.
    pub index: u64,
    /// Frames in the batch.
    pub size: u64,
    /// Inclusion path in the batch tree, leaf's sibling first.
    pub path: Vec<Hash32>,
}

/// A receipt of an anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorRef {
    /// The anchor's kind.
    pub kind: String,
    /// Its receipt.
    pub receipt: Vec<u8>,
}

/// Why bytes are not an evidence file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// Longer than [`EVIDENCE_BYTES_MAX`].
    #[error("the file has {bytes} bytes, more than {EVIDENCE_BYTES_MAX}")]
    TooLong {
        /// Length found.
        bytes: usize,
    },
    /// Not CBOR of this shape.
    #[error("not an evidence file: {expected} expected at byte {at}")]
    Shape {
        /// What should stand there.
        expected: &'static str,
        /// Byte offset.
        at: usize,
    },
    /// Another version.
    #[error("evidence version {version} is not 1")]
    Version {
        /// The version found.
        version: u64,
    },
    /// A part is longer than its limit.
    #[error("{part} is longer than {limit}")]
    Limit {
        /// The part.
        part: &'static str,
        /// Its limit, in bytes or items.
        limit: usize,
    },
    /// The same content has another, the only valid, encoding.
    #[error("not the deterministic encoding; it differs at byte {at}")]
    NotDeterministic {
        /// First byte that differs.
        at: usize,
    },
}

impl Evidence {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        self.check_limits()?;
        let bytes = self.encode();
        if bytes.len() > EVIDENCE_BYTES_MAX {
            return Err(FormatError::TooLong { bytes: bytes.len() });
        }
        Ok(bytes)
    }

    /// Takes a file apart; refuses every encoding but the deterministic one.
    pub fn parse(bytes: &[u8]) -> Result<Evidence, FormatError> {
        if bytes.len() > EVIDENCE_BYTES_MAX {
            return Err(FormatError::TooLong { bytes: bytes.len() });
        }
        let evidence = Reader { decoder: Decoder::new(bytes) }.evidence()?;
        evidence.check_limits()?;
        let again = evidence.encode();
        if again != bytes {
            let at = again.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            return Err(FormatError::NotDeterministic { at });
        }
        Ok(evidence)
    }

    /// Verifies a file against a policy, strictly; see [`Verification::run`] for the steps one by one.
    pub fn verify(bytes: &[u8], policy: &Policy) -> Result<Verified, EvidenceError> {
        Verification::run(bytes, policy, Strictness::Everything).result
    }

    fn check_limits(&self) -> Result<(), FormatError> {
        let anchors = &self.anchors;
        let limits = [
            ("frame", self.frame.len(), schemas_frame::FRAME_BYTES_MAX),
            ("enrolment", self.enrolment.len(), ENROLMENT_BYTES_MAX),
            ("path", self.path.path.len(), PATH_MAX),
            ("entry", self.entry.len(), ENTRY_BYTES_MAX),
            ("proof", self.proof.len(), TLOG_PROOF_BYTES_MAX),
            ("anchors", anchors.len(), ANCHORS_MAX),
            (
                "kind",
                anchors.iter().map(|anchor| anchor.kind.len()).max().unwrap_or(0),
                ANCHOR_KIND_BYTES_MAX,
            ),
            (
                "receipt",
                anchors.iter().map(|anchor| anchor.receipt.len()).max().unwrap_or(0),
                RECEIPT_BYTES_MAX,
            ),
        ];
        match limits.iter().find(|(_, length, limit)| length > limit) {
            Some((part, _, limit)) => Err(FormatError::Limit { part, limit: *limit }),
            None => Ok(()),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        // Writing to a Vec cannot fail.
        let _ = self.write(&mut encoder);
        encoder.into_writer()
    }

    fn write(
        &self,
        to: &mut Encoder<Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        to.map(7)?.str("v")?.u8(1)?;
        to.str("path")?.map(3)?.str("path")?.array(self.path.path.len() as u64)?;
        for hash in &self.path.path {
            to.bytes(hash)?;
        }
        to.str("size")?.u64(self.path.size)?.str("index")?.u64(self.path.index)?;
        to.str("entry")?.str(&self.entry)?;
        to.str("frame")?.bytes(&self.frame)?;
        to.str("proof")?.str(&self.proof)?;
        to.str("anchors")?.array(self.anchors.len() as u64)?;
        for anchor in &self.anchors {
            to.map(2)?.str("kind")?.str(&anchor.kind)?.str("receipt")?.bytes(&anchor.receipt)?;
        }
        to.str("enrolment")?.str(&self.enrolment)?;
        Ok(())
    }
}

/// Reads the one shape; whether the encoding is deterministic is seen by encoding again.
struct Reader<'a> {
    decoder: Decoder<'a>,
}

impl<'a> Reader<'a> {
    fn evidence(&mut self) -> Result<Evidence, FormatError> {
        self.map(7)?;
        self.key("v")?;
        let version = self.number()?;
        if version != 1 {
            return Err(FormatError::Version { version });
        }
        self.key("path")?;
        let path = self.path()?;
        self.key("entry")?;
        let entry = self.text()?.to_owned();
        self.key("frame")?;
        let frame = self.bytes()?.to_vec();
        self.key("proof")?;
        let proof = self.text()?.to_owned();
        self.key("anchors")?;
        let anchors = self.anchors()?;
        self.key("enrolment")?;
        let enrolment = self.text()?.to_owned();
        if self.decoder.position() != self.decoder.input().len() {
            return Err(self.expected("the end"));
        }
        Ok(Evidence { frame, enrolment, path, entry, proof, anchors })
    }

    fn path(&mut self) -> Result<BatchPath, FormatError> {
        self.map(3)?;
        self.key("path")?;
        let mut path = Vec::new();
        for _ in 0..self.array("path", PATH_MAX)? {
            let hash = self.bytes()?;
            path.push(hash.try_into().map_err(|_| self.expected("a hash of 32 bytes"))?);
        }
        self.key("size")?;
        let size = self.number()?;
        self.key("index")?;
        let index = self.number()?;
        Ok(BatchPath { index, size, path })
    }

    fn anchors(&mut self) -> Result<Vec<AnchorRef>, FormatError> {
        let mut anchors = Vec::new();
        for _ in 0..self.array("anchors", ANCHORS_MAX)? {
            self.map(2)?;
            self.key("kind")?;
            let kind = self.text()?.to_owned();
            self.key("receipt")?;
            anchors.push(AnchorRef { kind, receipt: self.bytes()?.to_vec() });
        }
        Ok(anchors)
    }

    fn expected(&self, expected: &'static str) -> FormatError {
        FormatError::Shape { expected, at: self.decoder.position() }
    }

    fn map(&mut self, pairs: u64) -> Result<(), FormatError> {
        match self.decoder.map() {
            Ok(Some(found)) if found == pairs => Ok(()),
            _ => Err(self.expected("a map with exactly its keys")),
        }
    }

    fn key(&mut self, key: &'static str) -> Result<(), FormatError> {
        if self.decoder.str().ok() == Some(key) { Ok(()) } else { Err(self.expected(key)) }
    }

    fn number(&mut self) -> Result<u64, FormatError> {
        self.decoder.u64().map_err(|_| self.expected("an unsigned integer"))
    }

    fn text(&mut self) -> Result<&'a str, FormatError> {
        self.decoder.str().map_err(|_| self.expected("a text string"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], FormatError> {
        self.decoder.bytes().map_err(|_| self.expected("a byte string"))
    }

    fn array(&mut self, part: &'static str, limit: usize) -> Result<u64, FormatError> {
        match self.decoder.array() {
            Ok(Some(items)) if items <= limit as u64 => Ok(items),
            Ok(Some(_)) => Err(FormatError::Limit { part, limit }),
            _ => Err(self.expected("an array of known length")),
        }
    }
}

#[cfg(test)]
mod tests;
