//! Which bearer tokens may be used: the one function that every door asks, what the owner of a key is shown of them,
//! and revocation that outlives a crash.
//!
//! A token is signed by its owner, so this side sees it first when it is used. [`Tokens::admit`] checks it, refuses it
//! if its key is dead or it was revoked, and notes the use. [`Tokens::revoke`] writes and syncs before it answers.
//!
//! A token may also be an identity provider's (`query-oidc`). Its holder has no key: any of their tokens lists and revokes the
//! others, and an operator ends them all by a `revoke-key` statement that names the party.
//!
//! What it is not: a session store (a token is good by its signature, not by being listed here), a judge of what a token
//! may see (`query-consents`), or a thread: whoever serves calls [`Tokens::keep`] each second or so. No token text and no
//! signature is kept. Nothing here reads a clock.
//!
//! | file | holds |
//! |---|---|
//! | `admit` | the check, by every door |
//! | `seen` | tokens that were used, as their owners are shown them |
//! | `revoke` | revocation, and its bounds |
//! | `journal` | the file: layout, torn tails, damage |
//!
//! | limit | value | beyond it |
//! |---|---|---|
//! | text of a token ([`TOKEN_BYTES_MAX`]) | 4 KiB, a provider's 16 KiB | refused unread |
//! | tokens listed of a key ([`SEEN_OF_KEY_MAX`]) | 128 | the first seen leaves the list |
//! | tokens listed in all ([`SEEN_MAX`]) | 32,768 | the first seen leaves the list; revocations never do |
//! | single revocations of a key ([`REVOKED_OF_KEY_MAX`]) | 256 | refused: revoke all at once instead |
//! | revocations in all ([`REVOKED_MAX`]) | 65,536 | refused: revoke the key by a statement instead |
//! | of these by keys nobody vouched for ([`REVOKED_BY_STRANGERS_MAX`]) | 32,768 | refused, as above |
//!
//! A revocation is kept for as long as any token it may concern can live (24 hours and the clocks' skew, twice).

mod admit;
mod journal;
mod revoke;
mod seen;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use query_consents::{Consents, Ending};
use query_oidc::Providers;
use schemas_identity::Did;
use schemas_identity::token::CLOCK_SKEW_SECONDS_MAX;
use thiserror::Error;

pub use admit::{NotAdmitted, TOKEN_BYTES_MAX};
pub use revoke::{REVOKED_BY_STRANGERS_MAX, REVOKED_MAX, REVOKED_OF_KEY_MAX, RevokeError, Target};
pub use seen::{SEEN_MAX, SEEN_OF_KEY_MAX, Seen};

use journal::{Journal, Line};
use revoke::KEEP_S;
use seen::SeenList;

/// The file of revocations cannot be used.
#[derive(Debug, Error)]
pub enum TokensError {
    /// It cannot be read or replaced.
    #[error("the file of revoked tokens: {0}")]
    Io(#[from] std::io::Error),
}

/// Tokens in use and tokens revoked. Share it in an `Arc`.
pub struct Tokens {
    origin: Arc<str>,
    consents: Arc<Consents>,
    providers: Providers,
    seen: Mutex<SeenList>,
    /// Whoever revokes or writes holds it, so that the file and what is in force say the same.
    journal: Mutex<Journal>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// One token as its owner is shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key it was signed with.
    pub iss: Did,
    /// Its id.
    pub jti: String,
    /// What it says and when it was used; nothing for a revoked one that was never used here.
    pub seen: Option<Seen>,
    /// Whether it was revoked.
    pub is_revoked: bool,
}

/// What an owner is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Their tokens, the last used first.
    pub tokens: Vec<Listed>,
    /// Up to which second (since 1970) everything issued is over, if it is.
    pub revoked_until_s: Option<i64>,
}

impl Tokens {
    /// Opens the file in `directory` (made if missing) and puts its revocations in force.
    ///
    /// A torn tail is cut: what was not written whole was not answered. Damage anywhere else may have lost a
    /// revocation, and which cannot be known: the damaged file is put aside and every token issued up to now is refused.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(
        directory: &Path,
        origin: &str,
        consents: Arc<Consents>,
        now_s: i64,
    ) -> Result<Tokens, TokensError> {
        let (journal, opened) = Journal::open(directory, now_s)?;
        let mut seen = SeenList::default();
        for line in opened.lines {
            match line.into_kept() {
                journal::Kept::Ending(ending) => consents.ended().end(&ending),
                journal::Kept::Seen(token) => seen.remember(token),
            }
        }
        let tokens = Tokens {
            origin: origin.into(),
            consents,
            providers: Providers::default(),
            seen: Mutex::new(seen),
            journal: Mutex::new(journal),
        };
        if let Some(problem) = opened.damage {
            tracing::error!(
                problem,
                "the file of revoked tokens is damaged: every token issued so far is refused"
            );
            let until_s = now_s.saturating_add(CLOCK_SKEW_SECONDS_MAX);
            let everybody = Ending::Everybody { until_s, forget_s: until_s.saturating_add(KEEP_S) };
            tokens.consents.ended().end(&everybody);
        }
        tokens.forget(now_s);
        let mut journal = tokens.journal.lock();
        tokens.rewrite(&mut journal)?;
        drop(journal);
        Ok(tokens)
    }

    /// The same, with identity providers whose tokens are taken too.
    #[must_use]
    pub fn trusting(self, providers: Providers) -> Tokens {
        Tokens { providers, ..self }
    }

    /// These providers, for whoever keeps their keys fresh.
    pub fn providers(&self) -> &Providers {
        &self.providers
    }

    /// Housekeeping: forgets what is over, writes uses that came since, shortens the file. Call it each second or so
    /// from where waiting for the disk is no harm.
    ///
    /// # Errors
    /// If the file cannot be written; everything in memory stays in force, and the next call tries again.
    pub fn keep(&self, now_s: i64) -> Result<(), TokensError> {
        self.forget(now_s);
        let mut journal = self.journal.lock();
        let fresh = self.seen.lock().take_unwritten();
        let live = self.seen.lock().len() + self.consents.ended().len();
        if journal.is_broken() || journal.is_long(live) {
            return Ok(self.rewrite(&mut journal)?);
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let lines: Vec<Line> = fresh.iter().map(Line::from).collect();
        Ok(journal.append(&lines)?)
    }

    /// Tokens of the person or party behind a key, whichever of their keys signed them.
    pub fn list(&self, party: &Did) -> Listing {
        let ended = self.consents.ended();
        let mut listing = Listing { tokens: Vec::new(), revoked_until_s: None };
        for iss in self.keys_of(party) {
            let seen = self.seen.lock().of(&iss);
            let mut unseen = ended.ids(&iss);
            unseen.retain(|jti| !seen.iter().any(|seen| seen.token.jti == *jti));
            listing.revoked_until_s = listing.revoked_until_s.max(ended.issued_until_s(&iss));
            for seen in seen {
                let is_revoked = ended.is_ended(&seen.token);
                listing.tokens.push(Listed {
                    iss,
                    jti: seen.token.jti.clone(),
                    seen: Some(seen),
                    is_revoked,
                });
            }
            for jti in unseen {
                listing.tokens.push(Listed { iss, jti, seen: None, is_revoked: true });
            }
        }
        listing.tokens.sort_by_key(|listed| {
            let last_s = listed.seen.as_ref().map(|seen| seen.last_s);
            (std::cmp::Reverse(last_s), listed.jti.clone())
        });
        listing
    }

    /// The key itself, and every other key of the same person that was seen or revoked anything.
    fn keys_of(&self, party: &Did) -> Vec<Did> {
        let register = self.consents.register();
        let person = register.subject_of(party);
        let mut keys = self.seen.lock().keys();
        keys.extend(self.consents.ended().keys());
        keys.push(*party);
        keys.retain(|key| register.subject_of(key) == person);
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn forget(&self, now_s: i64) {
        self.seen.lock().forget(now_s);
        self.consents.ended().forget(now_s);
    }

    /// Replaces the file by one that holds what is known now, and nothing else.
    fn rewrite(&self, journal: &mut Journal) -> std::io::Result<()> {
        let mut lines: Vec<Line> = self.consents.ended().all().iter().map(Line::from).collect();
        let mut seen = self.seen.lock();
        lines.extend(seen.all().map(Line::from));
        seen.take_unwritten();
        drop(seen);
        journal.rewrite(&lines)
    }
}
