//! The name of a person without a key here: the same for one person at one provider, nothing to whoever lacks the secret.
//!
//! A name of the same form as every other party's, so that records, limits, revocations and grants to one party work for it
//! as they are; [`Did::of_nobody`] says why nobody can sign in it, this deployment neither. A variant beside `Did` would have
//! had to be told apart in each of those places, and a place that forgets is a hole; here there is nothing to forget.

use schemas_identity::Did;
use zeroize::Zeroizing;

const CONTEXT: &str = "vitalog 2026 oidc party v1";

/// The key behind these names.
pub struct PartySecret(Zeroizing<[u8; 32]>);

impl PartySecret {
    /// Derives it, so that the same secret may serve elsewhere under another context.
    pub fn new(secret: &[u8; 32]) -> PartySecret {
        PartySecret(Zeroizing::new(blake3::derive_key(CONTEXT, secret)))
    }

    /// The name of `sub` at `issuer`. `None` once in 2^128.
    pub(crate) fn party(&self, issuer: &str, sub: &str) -> Option<Did> {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        // The length keeps (issuer, sub) pairs apart whatever characters they have.
        hasher.update(&(issuer.len() as u64).to_le_bytes());
        hasher.update(issuer.as_bytes());
        hasher.update(sub.as_bytes());
        let mut stream = hasher.finalize_xof();
        Did::of_nobody(|| {
            let mut block = [0; 32];
            stream.fill(&mut block);
            block
        })
    }
}

impl std::fmt::Debug for PartySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PartySecret(..)")
    }
}
