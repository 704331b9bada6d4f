//! What is verified: keys, messages and signatures, all from one seed, no two messages alike.
//! Not a fleet: the messages are no frames, only bytes of the asked length.

use ingest_verify::watch::Signed;
use schemas_identity::{PublicKey, SecretKey};

/// Fewest signatures of a workload: a bench that repeats few messages flatters the cache.
pub const SIGNATURES_MIN: usize = 8_192;
/// Step from a signature's device to the next one's: odd and prime, so every device has its turn.
const DEVICE_STEP: usize = 7_919;
/// Spreads bad signatures evenly: 1,000 divided by the golden ratio, nearly.
const BAD_STEP: usize = 617;

/// The size of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Keys that sign.
    pub devices: usize,
    /// Bytes of each signed message; 8 at least.
    pub message_bytes: usize,
    /// Bad signatures in 1,000.
    pub bad_per_mille: usize,
}

/// Signatures with the verdicts they must get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    keys: Vec<PublicKey>,
    message_bytes: usize,
    messages: Vec<u8>,
    signatures: Vec<[u8; 64]>,
    expected: Vec<bool>,
}

impl Workload {
    /// At least `signatures_min` of them, and one for each device.
    #[must_use]
    pub fn new(seed: u64, shape: Shape, signatures_min: usize) -> Workload {
        let secrets: Vec<SecretKey> = (0..shape.devices as u64)
            .map(|device| SecretKey::from_seed(blake3::hash(&words("key", seed, device)).as_bytes()))
            .collect();
        let count = signatures_min.max(shape.devices);
        let mut messages = vec![0; count * shape.message_bytes];
        blake3::Hasher::new().update(&words("messages", seed, 0)).finalize_xof().fill(&mut messages);
        let mut signatures = Vec::with_capacity(count);
        let mut expected = Vec::with_capacity(count);
        let mut bad = 0;
        for (index, message) in messages.chunks_exact_mut(shape.message_bytes).enumerate() {
            message[..8].copy_from_slice(&(index as u64).to_le_bytes());
            let mut signature = secrets[device_of(index, shape.devices)].sign(message);
            let is_bad = index * BAD_STEP % 1_000 < shape.bad_per_mille;
            if is_bad {
                spoil(bad, message, &mut signature);
                bad += 1;
            }
            signatures.push(signature);
            expected.push(!is_bad);
        }
        let keys = secrets.iter().map(SecretKey::public).collect();
        Workload { keys, message_bytes: shape.message_bytes, messages, signatures, expected }
    }

    /// The keys, each once.
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// All signatures, devices in turn.
    #[must_use]
    pub fn signed(&self) -> Vec<Signed<'_>> {
        let messages = self.messages.chunks_exact(self.message_bytes);
        messages
            .zip(&self.signatures)
            .enumerate()
            .map(|(index, (message, signature))| {
                let key = &self.keys[device_of(index, self.keys.len())];
                Signed { key, message, signature }
            })
            .collect()
    }

    /// The verdict of each.
    #[must_use]
    pub fn expected(&self) -> &[bool] {
        &self.expected
    }
}

fn words(purpose: &str, seed: u64, number: u64) -> Vec<u8> {
    [purpose.as_bytes(), &seed.to_le_bytes(), &number.to_le_bytes()].concat()
}

fn device_of(index: usize, devices: usize) -> usize {
    index * DEVICE_STEP % devices
}

/// Changes one bit of s, of R or of the message in turn; s stays below the order, or it would be refused for nothing.
fn spoil(number: usize, message: &mut [u8], signature: &mut [u8; 64]) {
    let (turn, bit) = (number / 3, 1 << (number / 3 % 8));
    match number % 3 {
        0 => signature[32 + turn % 16] ^= bit,
        1 => signature[turn % 32] ^= bit,
        _ => message[turn % message.len()] ^= bit,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SHAPE: Shape = Shape { devices: 16, message_bytes: 100, bad_per_mille: 100 };

    // Scenario: the same seed twice, then another. Guarantee: figures of two runs are about the same bytes.
    #[test]
    fn the_seed_decides() {
        assert_eq!(Workload::new(1, SHAPE, 64), Workload::new(1, SHAPE, 64));
        assert_ne!(Workload::new(1, SHAPE, 64), Workload::new(2, SHAPE, 64));
    }

    // Scenario: shapes with and without bad ones. Guarantee: the counts are as asked, nothing occurs twice.
    #[test]
    fn counts_are_as_asked() {
        for (devices, bad_per_mille, bad) in [(16, 0, 0), (16, 1, 1), (16, 10, 10), (1_000, 100, 100)] {
            let workload = Workload::new(1, Shape { devices, bad_per_mille, ..SHAPE }, 1_000);
            let signed = workload.signed();
            assert_eq!(signed.len(), 1_000);
            assert_eq!(workload.expected().iter().filter(|good| !**good).count(), bad, "{bad_per_mille}");
            assert_eq!(workload.keys().iter().collect::<HashSet<_>>().len(), devices);
            assert_eq!(signed.iter().map(|one| one.key).collect::<HashSet<_>>().len(), devices);
            assert_eq!(signed.iter().map(|one| one.message).collect::<HashSet<_>>().len(), signed.len());
        }
    }

    // Scenario: every verdict asked of the reference. Guarantee: what is called good is good, what is called bad is bad.
    #[test]
    fn the_reference_agrees() {
        let workload = Workload::new(1, SHAPE, 200);
        let verdicts: Vec<bool> =
            workload.signed().iter().map(|one| one.key.verify(one.message, one.signature)).collect();
        assert_eq!(verdicts, workload.expected());
    }
}
