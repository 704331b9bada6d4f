//! Names for subjects inside one study: stable there, useless to join with any other study.
//!
//! `p-` and 32 hex digits: the first 16 bytes of BLAKE3 keyed by the deployment's secret over study and subject. What it is
//! not: anonymity. Whoever holds the secret can recompute every name, so it never leaves the server.

use schemas_identity::Did;
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
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        // The length keeps (study, subject) pairs apart whatever characters a study's name has.
        hasher.update(&(study.len() as u64).to_le_bytes());
        hasher.update(study.as_bytes());
        hasher.update(subject.key().as_bytes());
        let mut shown = [0; PSEUDONYM_BYTES];
        hasher.finalize_xof().fill(&mut shown);
        format!("p-{}", hex::encode(shown))
    }
}

impl std::fmt::Debug for DeploymentSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeploymentSecret(..)")
    }
}
