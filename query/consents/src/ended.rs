//! Tokens that ended before their time: revoked one by one, or all that a key issued up to a second.
//!
//! Warrants are made and watched here, so here is the one place that says whether a token still holds. What it is not:
//! durable (`query-tokens` keeps the file, and puts into it before it puts in here), or bounded (the same crate is).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use schemas_identity::Did;
use schemas_identity::token::Token;

/// One revocation. All times are seconds since 1970; after `forget_s` none of its tokens can be valid any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// One token of a key.
    One {
        /// The key that signed it.
        iss: Did,
        /// Its id.
        jti: String,
        /// When it may be forgotten.
        forget_s: i64,
    },
    /// Every token that a key issued up to and with a second.
    Issued {
        /// The key.
        iss: Did,
        /// The last second.
        until_s: i64,
        /// When it may be forgotten.
        forget_s: i64,
    },
    /// Every token of everybody issued up to and with a second: the way out when revocations were lost.
    Everybody {
        /// The last second.
        until_s: i64,
        /// When it may be forgotten.
        forget_s: i64,
    },
}

/// Up to when issued tokens are over, and how long that matters.
#[derive(Debug, Clone, Copy)]
struct Until {
    until_s: i64,
    forget_s: i64,
}

impl Until {
    fn joined(self, before: Option<Until>) -> Until {
        let Some(before) = before else { return self };
        Until { until_s: self.until_s.max(before.until_s), forget_s: self.forget_s.max(before.forget_s) }
    }
}

/// What one key ended.
#[derive(Debug, Default)]
struct OfKey {
    one: HashMap<String, i64>,
    issued: Option<Until>,
}

#[derive(Debug, Default)]
struct Book {
    keys: HashMap<Did, OfKey>,
    everybody: Option<Until>,
    endings: usize,
}

/// All tokens that ended before their time.
#[derive(Debug, Default)]
pub struct Ended {
    /// Rises with each ending, for running queries.
    count: AtomicU64,
    book: RwLock<Book>,
}

impl Ended {
    /// Puts one in force: when it returns, no warrant is made from such a token and none made from one is current.
    pub fn end(&self, ending: &Ending) {
        let mut book = self.book.write();
        match ending {
            Ending::One { iss, jti, forget_s } => {
                let known = book.keys.entry(*iss).or_default().one.insert(jti.clone(), *forget_s);
                book.endings += usize::from(known.is_none());
            }
            Ending::Issued { iss, until_s, forget_s } => {
                let key = book.keys.entry(*iss).or_default();
                let is_new = key.issued.is_none();
                key.issued = Some(Until { until_s: *until_s, forget_s: *forget_s }.joined(key.issued));
                book.endings += usize::from(is_new);
            }
            Ending::Everybody { until_s, forget_s } => {
                let until = Until { until_s: *until_s, forget_s: *forget_s };
                book.everybody = Some(until.joined(book.everybody));
            }
        }
        drop(book);
        // After the book: whoever sees the new count finds the ending that made it.
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Whether a token ended before its time.
    pub fn is_ended(&self, token: &Token) -> bool {
        let book = self.book.read();
        let covers = |until: Option<Until>| until.is_some_and(|until| token.iat_s <= until.until_s);
        if covers(book.everybody) {
            return true;
        }
        let Some(key) = book.keys.get(&token.iss) else { return false };
        covers(key.issued) || key.one.contains_key(&token.jti)
    }

    /// Endings in force for a key's single tokens: their ids.
    pub fn ids(&self, iss: &Did) -> Vec<String> {
        let book = self.book.read();
        book.keys.get(iss).map(|key| key.one.keys().cloned().collect()).unwrap_or_default()
    }

    /// Up to which second everything a key issued is over, if it is.
    pub fn issued_until_s(&self, iss: &Did) -> Option<i64> {
        self.book.read().keys.get(iss).and_then(|key| key.issued).map(|until| until.until_s)
    }

    /// All endings, for the file.
    pub fn all(&self) -> Vec<Ending> {
        let book = self.book.read();
        let mut all = Vec::with_capacity(book.endings + 1);
        if let Some(Until { until_s, forget_s }) = book.everybody {
            all.push(Ending::Everybody { until_s, forget_s });
        }
        for (iss, key) in &book.keys {
            if let Some(Until { until_s, forget_s }) = key.issued {
                all.push(Ending::Issued { iss: *iss, until_s, forget_s });
            }
            for (jti, forget_s) in &key.one {
                all.push(Ending::One { iss: *iss, jti: jti.clone(), forget_s: *forget_s });
            }
        }
        all
    }

    /// Keys that ended anything.
    pub fn keys(&self) -> Vec<Did> {
        self.book.read().keys.keys().copied().collect()
    }

    /// How many endings are in force.
    pub fn len(&self) -> usize {
        self.book.read().endings
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets those whose tokens are all over by now.
    pub fn forget(&self, now_s: i64) {
        let mut book = self.book.write();
        let stays = |until: &Until| now_s <= until.forget_s;
        book.everybody = book.everybody.filter(stays);
        for key in book.keys.values_mut() {
            key.issued = key.issued.filter(stays);
            key.one.retain(|_, forget_s| now_s <= *forget_s);
        }
        book.keys.retain(|_, key| key.issued.is_some() || !key.one.is_empty());
        book.endings = book.keys.values().map(|key| key.one.len() + usize::from(key.issued.is_some())).sum();
    }

    /// How many endings there ever were: one atomic load.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas_identity::SecretKey;
    use schemas_identity::token::Scope;

    fn token(seed: u8, jti: &str, iat_s: i64) -> Token {
        Token {
            iss: SecretKey::from_seed(&[seed; 32]).public().did(),
            jti: jti.into(),
            purpose: "HRESCH".into(),
            study: None,
            vouched: None,
            scope: Scope::Sql,
            iat_s,
            exp_s: iat_s + 100,
        }
    }

    /// Guarantee: an ending ends what it names and nothing else, and joins with an earlier one, never narrows it.
    #[test]
    fn what_an_ending_covers() {
        let ended = Ended::default();
        let (a, b) = (token(1, "a", 10), token(2, "a", 10));
        ended.end(&Ending::One { iss: a.iss, jti: "a".into(), forget_s: 110 });
        let shown = |tokens: &[Token]| tokens.iter().map(|token| ended.is_ended(token)).collect::<Vec<_>>();
        assert_eq!(shown(&[a.clone(), token(1, "b", 10), b.clone()]), [true, false, false]);
        ended.end(&Ending::Issued { iss: b.iss, until_s: 20, forget_s: 200 });
        ended.end(&Ending::Issued { iss: b.iss, until_s: 15, forget_s: 150 });
        assert_eq!(shown(&[token(2, "c", 20), token(2, "c", 21), token(1, "b", 20)]), [true, false, false]);
        ended.end(&Ending::Everybody { until_s: 5, forget_s: 90 });
        assert_eq!(shown(&[token(9, "x", 5), token(9, "x", 6)]), [true, false]);
        assert_eq!((ended.len(), ended.all().len()), (2, 3));
    }

    /// Guarantee: an ending is forgotten after its tokens are over, not a second earlier.
    #[test]
    fn forgotten_when_over() {
        let ended = Ended::default();
        let a = token(1, "a", 10);
        ended.end(&Ending::One { iss: a.iss, jti: "a".into(), forget_s: 110 });
        ended.end(&Ending::Issued { iss: a.iss, until_s: 5, forget_s: 50 });
        ended.forget(50);
        assert_eq!(ended.issued_until_s(&a.iss), Some(5));
        ended.forget(110);
        assert!(ended.is_ended(&a));
        assert_eq!(ended.issued_until_s(&a.iss), None);
        ended.forget(111);
        assert!(!ended.is_ended(&a) && ended.is_empty() && ended.keys().is_empty());
    }
}
