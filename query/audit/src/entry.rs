//! What the engine and the doors hand in. Plain values: nothing here is written as it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas_identity::token::Vouched;
use schemas_identity::{Did, Register};
use schemas_signals::SignalSet;

/// Who says that a recipient without a key is who they are, and as what they asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Voucher {
    /// The identity provider.
    pub issuer: String,
    /// Roles that its token gave: name and title as the operator had them then.
    pub roles: Vec<(String, String)>,
}

impl Voucher {
    /// What a token's provider vouches for, with the titles of roles that there are.
    pub fn of(vouched: &Vouched, register: &Register) -> Voucher {
        let known = vouched.roles.iter().filter_map(|name| register.role(name));
        let roles = known.map(|role| (role.role.clone(), role.title.clone())).collect();
        Voucher { issuer: vouched.issuer.clone(), roles }
    }
}

/// Somebody is about to read.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Who receives the data.
    pub recipient: Did,
    /// Who vouches for them, if they have no key of their own.
    pub voucher: Option<Voucher>,
    /// The token's id.
    pub token_id: String,
    /// The stated purpose.
    pub purpose: String,
    /// In which study's name.
    pub study: Option<String>,
    /// The SQL as sent. Kept are its text without literals and a salted hash of the whole.
    pub sql: String,
    /// Of whom what may be read: an upper bound, one entry per subject.
    pub scope: Arc<[Scope]>,
    /// Subjects who said something to the recipient but of whom nothing may be read.
    pub withheld: Vec<Did>,
    /// The consent epoch.
    pub epoch: u64,
    /// The log size the data is read as of.
    pub log_size: u64,
    /// When, microseconds since 1970 UTC.
    pub started_us: i64,
}

impl Intent {
    /// Whether each subject of the scope stands there once, in order.
    pub(crate) fn is_ascending(&self) -> bool {
        self.scope.is_sorted_by(|one, next| one.subject < next.subject)
    }

    /// The scope by rising subject; as it is, if it is so already.
    pub(crate) fn ascending(&self) -> Arc<[Scope]> {
        if self.is_ascending() {
            return Arc::clone(&self.scope);
        }
        let mut scope = self.scope.to_vec();
        scope.sort_unstable_by_key(|scope| scope.subject);
        scope.into()
    }
}

/// What a query may read of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// Whose data.
    pub subject: Did,
    /// Which signals.
    pub signals: SignalSet,
    /// From this sample time; `i64::MIN` is open.
    pub from_us: i64,
    /// Before this sample time; `i64::MAX` is open.
    pub to_us: i64,
}

impl Scope {
    /// Becomes the smallest scope that contains another one of the same subject, too.
    pub fn widen(&mut self, other: &Scope) {
        self.signals = self.signals.union(other.signals);
        self.from_us = self.from_us.min(other.from_us);
        self.to_us = self.to_us.max(other.to_us);
    }
}

/// A read has ended.
#[derive(Debug, Clone)]
pub struct Completion {
    /// How.
    pub outcome: Outcome,
    /// Rows read of each subject, exactly. Subjects of the scope that are left out had none.
    pub rows: BTreeMap<Did, u64>,
    /// Rows of the result.
    pub result_rows: u64,
    /// Bytes of the result.
    pub bytes: u64,
    /// When, microseconds since 1970 UTC.
    pub ended_us: i64,
}

/// How a read ended. Whatever it was, rows counted may have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// All of the result was handed over.
    Released,
    /// It failed.
    Error,
    /// The recipient went away.
    Cancelled,
    /// Consent changed while it ran.
    Revoked,
}

impl Outcome {
    pub(crate) const ALL: [Outcome; 4] =
        [Outcome::Released, Outcome::Error, Outcome::Cancelled, Outcome::Revoked];

    /// Its word in records and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Released => "released",
            Outcome::Error => "error",
            Outcome::Cancelled => "cancelled",
            Outcome::Revoked => "revoked",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Outcome> {
        Outcome::ALL.into_iter().find(|known| known.as_str() == text)
    }
}

/// Somebody asked and got nothing. A bad token is not recorded here: it cannot be attributed.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Who asked.
    pub recipient: Did,
    /// Who vouches for them, if they have no key of their own.
    pub voucher: Option<Voucher>,
    /// The token's id.
    pub token_id: String,
    /// The stated purpose.
    pub purpose: String,
    /// In which study's name.
    pub study: Option<String>,
    /// The SQL as sent, or what was asked for instead.
    pub sql: String,
    /// Whose data was asked for, as far as that is known: those who shall read of it.
    pub subjects: Vec<Did>,
    /// A short code: why.
    pub reason: String,
    /// The consent epoch.
    pub epoch: u64,
    /// When, microseconds since 1970 UTC.
    pub at_us: i64,
}
