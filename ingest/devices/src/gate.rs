//! The gate: which device a kid names, which key it must have signed with, and how that key stands. Whether the signature
//! verifies is decided elsewhere; whether a frame of a revoked key is kept nevertheless, in `windows`.

use schemas_frame::Code;
use schemas_identity::{DeviceNumber, PublicKey, Register, ShortId};

/// How an enrolled key stands today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStanding {
    /// The device's present key, or one that a rotation replaced: frames made before the rotation may arrive later.
    Good,
    /// Revoked. Its frames are refused, but for those that the chain ties to a frame accepted before (see `windows`).
    Revoked {
        /// Since when the key is held to be in wrong hands, microseconds since 1970 UTC, if the revocation says so. It
        /// decides nothing here: whoever holds the key also writes the frame's clock.
        compromised_from_us: Option<i64>,
    },
}

impl KeyStanding {
    /// Whether the key is revoked.
    #[must_use]
    pub fn is_revoked(self) -> bool {
        matches!(self, KeyStanding::Revoked { .. })
    }
}

/// What the gate found for a kid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gated {
    /// The device's number.
    pub device: DeviceNumber,
    /// The short id it keeps for life, over rotations.
    pub name: ShortId,
    /// The key that the signature must verify under.
    pub key: PublicKey,
    /// How that key stands.
    pub standing: KeyStanding,
}

/// Finds the device and the key that a frame's kid names.
///
/// # Errors
/// `KEY_UNKNOWN` if no enrolled device has, or had, such a key.
pub fn key_for(register: &Register, kid: ShortId) -> Result<Gated, Code> {
    let device = register.device_by_kid(kid).ok_or(Code::KeyUnknown)?;
    for held in &device.keys {
        if held.key.short_id() != kid {
            continue;
        }
        let standing = match &held.revoked {
            None => KeyStanding::Good,
            Some(revoked) => KeyStanding::Revoked { compromised_from_us: revoked.compromised_from_us },
        };
        return Ok(Gated { device: device.number, name: device.first_id, key: held.key, standing });
    }
    Err(Code::KeyUnknown)
}
