//! Names for subjects, devices and boots inside one study: stable there, useless to join with any other study.
//!
//! `p-` and 32 hex digits: the first 16 bytes of BLAKE3 keyed by the deployment's secret over study and subject. What it is
//! not: anonymity. Whoever holds the secret can recompute every name, so it never leaves the server. Devices and boots keep
//! their form, 8 bytes; what they are named outside of studies would join people as well as their own names do.

use schemas_identity::{BootId, Did, ShortId};
use zeroize::Zeroizing;

const CONTEXT: &str = "vitalog 2026 study pseudonym v1";
/// Bytes of the hash that are shown: 128 bits, so that two people of one study never meet in a name.
const PSEUDONYM_BYTES: usize = 16;

/// The key behind all pseudonyms of a deployment.
#[derive(Clone)]
pub struct DeploymentSecret(Zeroizing<[u8; 32]>);

impl DeploymentSecret {
    /// Derives the pseudonym key, so that the same secret may serve elsewhere under another context.
    pub fn new(secret: &[u8; 32]) -> DeploymentSecret {
        DeploymentSecret(Zeroizing::new(blake3::derive_key(CONTEXT, secret)))
    }

    /// The subject's name in a study.
    pub(crate) fn pseudonym(&self, study: &str, subject: &Did) -> String {
        let shown: [u8; PSEUDONYM_BYTES] = self.named(study, &[subject.key().as_bytes()]);
        format!("p-{}", hex::encode(shown))
    }

    /// A device's name in the study.
    pub(crate) fn device(&self, study: &str, device: ShortId) -> ShortId {
        ShortId(self.named(study, &[b"device", device.as_bytes()]))
    }

    /// A boot's name in the study.
    pub(crate) fn boot(&self, study: &str, boot: BootId) -> BootId {
        BootId(self.named(study, &[b"boot", boot.as_bytes()]))
    }

    /// A keyed hash of what is named; no two kinds of things have parts of the same length in all.
    fn named<const BYTES: usize>(&self, study: &str, parts: &[&[u8]]) -> [u8; BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        // The length keeps (study, thing) pairs apart whatever characters a study's name has.
        hasher.update(&(study.len() as u64).to_le_bytes());
        hasher.update(study.as_bytes());
        for part in parts {
            hasher.update(part);
        }
        let mut shown = [0; BYTES];
        hasher.finalize_xof().fill(&mut shown);
        shown
    }
}

impl std::fmt::Debug for DeploymentSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeploymentSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: devices and boots have one name in a study, another in the next, and never each other's or their own.
    #[test]
    fn names_differ_from_study_to_study() {
        let secret = DeploymentSecret::new(&[7; 32]);
        let (device, boot) = (ShortId([5; 8]), BootId([5; 8]));
        assert_eq!(secret.device("a", device), secret.device("a", device));
        assert_eq!(secret.boot("a", boot), secret.boot("a", boot));
        let names = [
            device.to_string(),
            secret.device("a", device).to_string(),
            secret.device("b", device).to_string(),
            secret.device("a", ShortId([6; 8])).to_string(),
            secret.boot("a", boot).to_string(),
            secret.boot("b", boot).to_string(),
            DeploymentSecret::new(&[8; 32]).device("a", device).to_string(),
        ];
        let different: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(different.len(), names.len(), "{names:?}");
    }
}
