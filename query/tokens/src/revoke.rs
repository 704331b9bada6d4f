//! Revocation by the owner of the key: one token by its id, or all issued until now. On the disk before it is answered.
//!
//! The id of a token that was never used here can be revoked too: a stolen token should not have to be used first. Which
//! token an id belongs to is then not known, so every revocation is kept for the longest life a token may have.

use query_consents::Ending;
use schemas_identity::token::{CLOCK_SKEW_SECONDS_MAX, TOKEN_SECONDS_MAX, Token};
use schemas_identity::{Did, Register};
use thiserror::Error;

use crate::Tokens;
use crate::journal::Line;

/// Single revocations in force of one key; all at once is always possible.
pub const REVOKED_OF_KEY_MAX: usize = 256;
/// Revocations in force in all: about 20 MB at their longest.
pub const REVOKED_MAX: usize = 65_536;
/// Of these by keys that neither an operator, a maker, a device nor an identity provider ever vouched for: anybody can make a million keys, and
/// must not keep others from revoking with them.
pub const REVOKED_BY_STRANGERS_MAX: usize = REVOKED_MAX / 2;
/// How long after a revocation a token that it concerns can still be valid, seconds.
pub(crate) const KEEP_S: i64 = TOKEN_SECONDS_MAX + 2 * CLOCK_SKEW_SECONDS_MAX;
/// Longest id of a token, bytes, as tokens themselves have it.
const JTI_BYTES_MAX: usize = 64;

/// Which tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'t> {
    /// The one of this id.
    One(&'t str),
    /// All of one's own that were issued until now, those of this very second included.
    All,
}

/// Why nothing was revoked, or not durably.
#[derive(Debug, Error)]
pub enum RevokeError {
    /// No token has such an id.
    #[error("no token has an id of {bytes} bytes")]
    NoSuchId {
        /// Its length.
        bytes: usize,
    },
    /// [`REVOKED_OF_KEY_MAX`] is reached: revoke all at once.
    #[error("{REVOKED_OF_KEY_MAX} single revocations of this key are in force")]
    TooMany,
    /// [`REVOKED_MAX`] or [`REVOKED_BY_STRANGERS_MAX`] is reached: revoke the key by a statement.
    #[error("{in_force} revocations are in force")]
    Full {
        /// How many there are.
        in_force: usize,
    },
    /// It is in force but may not outlive a crash: say it again.
    #[error("the revocation is in force but not on the disk: {0}")]
    NotDurable(#[from] std::io::Error),
}

impl Tokens {
    /// Revokes tokens of the party behind `by`, an admitted token. When it returns, they are refused at every door,
    /// queries that run on them are not current, and a crash changes nothing about it. Waits for the disk.
    ///
    /// # Errors
    /// See [`RevokeError`].
    pub fn revoke(&self, by: &Token, target: Target<'_>, now_s: i64) -> Result<(), RevokeError> {
        let forget_s = now_s.saturating_add(KEEP_S);
        let endings = match target {
            Target::One(jti) => self.one(by, jti, forget_s)?,
            Target::All => self.everything(by, now_s),
        };
        let mut journal = self.journal.lock();
        self.has_room(by, &endings)?;
        // In force first: a token that its owner gave up must not live on because the disk is full.
        for ending in &endings {
            self.consents.ended().end(ending);
        }
        let lines: Vec<Line> = endings.iter().map(Line::from).collect();
        if journal.is_broken() {
            self.rewrite(&mut journal)?;
        } else {
            journal.append_synced(&lines)?;
        }
        Ok(())
    }

    /// The id under every key of the party that used it, and under the asking key.
    fn one(&self, by: &Token, jti: &str, forget_s: i64) -> Result<Vec<Ending>, RevokeError> {
        if jti.is_empty() || jti.len() > JTI_BYTES_MAX {
            return Err(RevokeError::NoSuchId { bytes: jti.len() });
        }
        let mut endings = Vec::new();
        for iss in self.keys_of(&by.iss) {
            let is_used = self.seen.lock().of(&iss).iter().any(|seen| seen.token.jti == jti);
            if is_used || iss == by.iss {
                endings.push(Ending::One { iss, jti: jti.to_owned(), forget_s });
            }
        }
        Ok(endings)
    }

    /// Up to now, or up to the last second that one of the tokens at hand names: their maker's clock may be ahead.
    fn everything(&self, by: &Token, now_s: i64) -> Vec<Ending> {
        let mut endings = Vec::new();
        for iss in self.keys_of(&by.iss) {
            let mut until_s = now_s;
            if iss == by.iss {
                until_s = until_s.max(by.iat_s);
            }
            for seen in self.seen.lock().of(&iss) {
                until_s = until_s.max(seen.token.iat_s);
            }
            endings.push(Ending::Issued { iss, until_s, forget_s: until_s.saturating_add(KEEP_S) });
        }
        endings
    }

    fn has_room(&self, by: &Token, endings: &[Ending]) -> Result<(), RevokeError> {
        let ended = self.consents.ended();
        let mut fresh = 0;
        for ending in endings {
            match ending {
                Ending::One { iss, jti, .. } => {
                    let ids = ended.ids(iss);
                    if !ids.contains(jti) {
                        fresh += 1;
                        if ids.len() >= REVOKED_OF_KEY_MAX {
                            return Err(RevokeError::TooMany);
                        }
                    }
                }
                Ending::Issued { iss, .. } => fresh += usize::from(ended.issued_until_s(iss).is_none()),
                Ending::Everybody { .. } => {}
            }
        }
        let in_force = ended.len();
        let wanted = in_force + fresh;
        if fresh == 0 || wanted <= REVOKED_BY_STRANGERS_MAX {
            return Ok(());
        }
        let is_known = by.vouched.is_some() || is_vouched_for(&self.consents.register(), &by.iss);
        if wanted > REVOKED_MAX || !is_known {
            return Err(RevokeError::Full { in_force });
        }
        Ok(())
    }
}

/// Whether somebody else than the key itself ever brought it in: an operator by role, study or maker's statement, a maker
/// by enrolling it, a device by being worn.
fn is_vouched_for(register: &Register, key: &Did) -> bool {
    let person = register.subject_of(key);
    let is_person = |did: &Did| register.subject_of(did) == person;
    register.is_operator(key)
        || register.makers().any(is_person)
        || register.roles().any(|role| role.members.iter().any(is_person))
        || register.studies().any(|study| study.members.iter().any(is_person))
        || register.devices().any(|device| {
            device.keys.iter().any(|own| own.key == *key.key())
                || register.bindings(device.number).iter().any(|binding| is_person(&binding.subject))
        })
}
