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

#[cfg(test)]
mod tests {
    use schemas_identity::SecretKey;
    use schemas_identity::statement::{
        Body, Enrol, Maker, RevokeKey, Rotate, Statement, proof_of_possession, sign,
    };

    use super::*;

    const ORIGIN: &str = "example.org/log";

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }

    fn apply(register: &mut Register, body: &Body, by: u8, index: u64) {
        let compact = sign(body, ORIGIN, 0, [0; 16], &key(by));
        register.apply(&Statement::parse(&compact, ORIGIN).unwrap(), index).unwrap();
    }

    /// Operator 1, maker 2, device 3.
    fn register() -> Register {
        let mut register = Register::new(ORIGIN, vec![key(1).public().did()]);
        let party = key(2).public().did();
        apply(&mut register, &Body::Maker(Maker { party, title: String::new(), from: None, to: None }), 1, 0);
        let pop = proof_of_possession(ORIGIN, &party, &key(3));
        let device_key = key(3).public().did();
        apply(
            &mut register,
            &Body::Enrol(Enrol { device_key, model: "M".into(), signals: vec![], pop }),
            2,
            1,
        );
        register
    }

    // An enrolled key is found with its device; a kid that nobody enrolled is KEY_UNKNOWN.
    #[test]
    fn known_and_unknown() {
        let register = register();
        let kid = key(3).public().short_id();
        let gated = key_for(&register, kid).unwrap();
        assert_eq!((gated.device, gated.name, gated.key), (DeviceNumber(0), kid, key(3).public()));
        assert_eq!(gated.standing, KeyStanding::Good);
        assert_eq!(key_for(&register, key(4).public().short_id()), Err(Code::KeyUnknown));
    }

    // After a rotation both keys lead to the same device and name, each with its own key; a revoked one says so.
    #[test]
    fn rotated_and_revoked() {
        let mut register = register();
        let (old, new) = (key(3).public(), key(4).public());
        let pop = proof_of_possession(ORIGIN, &key(2).public().did(), &key(4));
        apply(&mut register, &Body::Rotate(Rotate { old: old.did(), new: new.did(), pop }), 2, 2);
        for public in [old, new] {
            let gated = key_for(&register, public.short_id()).unwrap();
            assert_eq!((gated.device, gated.name, gated.key), (DeviceNumber(0), old.short_id(), public));
            assert!(!gated.standing.is_revoked());
        }
        let revoke = RevokeKey { key: old.did(), compromised_from: Some(5) };
        apply(&mut register, &Body::RevokeKey(revoke), 2, 3);
        let gated = key_for(&register, old.short_id()).unwrap();
        assert_eq!(gated.standing, KeyStanding::Revoked { compromised_from_us: Some(5) });
        assert!(!key_for(&register, new.short_id()).unwrap().standing.is_revoked());
    }
}
