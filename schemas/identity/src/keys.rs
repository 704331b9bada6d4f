//! Ed25519 keys: the key rule that every key passes once, and the signature rule `enrolled-strict`.
//!
//! Key rule: 32 bytes decompress, re-encoding gives the same bytes, not small order, torsion free.
//! Signature rule: 64 bytes, s < L, k = SHA-512(R || A || M) mod L, accept iff compress(sB - kA) equals R byte for byte
//! and R is not the identity. For keys that passed the key rule this is exactly ed25519-dalek's `verify_strict`, which is
//! used here; `verify_batch` never decides anything (its verdict depends on a frame's neighbours).

use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::{Did, ShortId};

/// Attempts to find a point: all of them fail once in 2^128.
const NOBODY_TRIES_MAX: usize = 128;

/// Why 32 bytes may not become a key of this system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// Not 32 bytes.
    #[error("a key has 32 bytes, not {0}")]
    Length(usize),
    /// No point of the curve.
    #[error("the bytes are no point of the curve")]
    NotAPoint,
    /// A second spelling of a point.
    #[error("the bytes are not the canonical encoding of their point")]
    NonCanonical,
    /// One of the eight points of small order: signatures under it prove nothing.
    #[error("the point has small order")]
    SmallOrder,
    /// Outside the prime-order subgroup: implementations disagree about its signatures.
    #[error("the point has a torsion component")]
    Torsion,
}

/// A private key file that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a PKCS#8 PEM file with an Ed25519 private key")]
pub struct PemError;

/// A public key that passed the key rule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", self.did())
    }
}

impl PublicKey {
    /// Applies the key rule.
    pub fn admit(bytes: &[u8]) -> Result<PublicKey, KeyRefusal> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| KeyRefusal::Length(bytes.len()))?;
        let point = CompressedEdwardsY(bytes).decompress().ok_or(KeyRefusal::NotAPoint)?;
        if point.compress().to_bytes() != bytes {
            return Err(KeyRefusal::NonCanonical);
        }
        if point.is_small_order() {
            return Err(KeyRefusal::SmallOrder);
        }
        if !point.is_torsion_free() {
            return Err(KeyRefusal::Torsion);
        }
        Ok(PublicKey(bytes))
    }

    /// A key that is nobody's, by the first of these bytes that is a point: moved into the prime-order group, so that it
    /// passes the key rule. `None` if none of the first 128 blocks is one (half of all bytes are).
    ///
    /// The point is found, not computed from a number: if the bytes come from a hash, finding its private key is the
    /// discrete logarithm problem, also for whoever chose what was hashed. Nothing verifies under it that anybody can make.
    pub fn of_nobody(mut bytes: impl FnMut() -> [u8; 32]) -> Option<PublicKey> {
        for _ in 0..NOBODY_TRIES_MAX {
            let Some(point) = CompressedEdwardsY(bytes()).decompress() else { continue };
            if let Ok(key) = PublicKey::admit(&point.mul_by_cofactor().compress().to_bytes()) {
                return Some(key);
            }
        }
        None
    }

    /// The 32 raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key's name as a party.
    pub fn did(&self) -> Did {
        Did::new(*self)
    }

    /// The key's name as a device.
    pub fn short_id(&self) -> ShortId {
        let hash = blake3::hash(&self.0);
        let mut short = [0u8; 8];
        short.copy_from_slice(&hash.as_bytes()[..8]);
        ShortId(short)
    }

    /// The signature rule `enrolled-strict`.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        // The bytes decompressed at admission, so this cannot fail; if it could, the answer is no.
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else { return false };
        key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

/// A private key; wiped from memory when dropped, never printed.
pub struct SecretKey(SigningKey);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretKey(of {})", self.public().did())
    }
}

impl SecretKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Result<SecretKey, getrandom::Error> {
        let mut seed = Zeroizing::new([0u8; 32]);
        getrandom::fill(seed.as_mut())?;
        Ok(SecretKey::from_seed(&seed))
    }

    /// The key of a 32-byte seed (RFC 8032, 5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> SecretKey {
        SecretKey(SigningKey::from_bytes(seed))
    }

    /// Reads PKCS#8 PEM, with or without the public key inside (RFC 8410, RFC 5958).
    pub fn from_pem(text: &str) -> Result<SecretKey, PemError> {
        SigningKey::from_pkcs8_pem(text.trim_start()).map(SecretKey).map_err(|_| PemError)
    }

    /// Writes PKCS#8 PEM version 1, which every library reads (some refuse version 2 with its public key).
    pub fn to_pem(&self) -> Zeroizing<String> {
        let pair = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        // Encoding 32 fixed bytes cannot fail; an empty file would be refused on reading.
        pair.to_pkcs8_pem(LineEnding::LF).unwrap_or_default()
    }

    /// Its public half, which passes the key rule by construction.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs (RFC 8032, deterministic).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

#[cfg(test)]
mod tests;
