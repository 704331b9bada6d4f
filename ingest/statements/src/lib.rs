//! Where every signed statement enters: checked, written to the book, committed to the log, put in force, then answered.
//!
//! Order of one `submit`: signature and form (`schemas-identity`), authority (`Register`), consent rules
//! (`ConsentState`), book (fsynced, with a fresh salt), log (`statement` and `consent-epoch` in one append), folds,
//! observers, receipt. A receipt therefore means: durable, provable, in force.
//!
//! What it is not: it does not decide who may see what (`schemas-consent` does), and holds no connection.

mod audit;
mod book;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use schemas_consent::ConsentState;
use schemas_evidence::{Entry, Hash32, Ledger, LedgerError};
use schemas_identity::statement::StatementError;
use schemas_identity::{Did, Register, Statement, StatementId};

pub use audit::audit;
pub use book::BookError;
use book::{Book, Record};

/// Log entries read at a time while opening.
const ENTRIES_PER_READ: u64 = 4_096;
/// A statement may be signed this far in the future: clocks differ.
const CLOCK_SKEW_SECONDS_MAX: i64 = 600;

/// What the signer gets: the statement is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Id of the statement.
    pub id: StatementId,
    /// Its place in the log.
    pub log_index: u64,
    /// Consent epoch from which on it is in force.
    pub epoch: u64,
}

/// Why a statement was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Malformed, or for another deployment.
    #[error("{hint}")]
    Bad {
        /// Stable word.
        code: &'static str,
        /// What is wrong.
        hint: String,
    },
    /// The signer may not say this.
    #[error("{hint}")]
    Forbidden {
        /// Stable word.
        code: &'static str,
        /// What is wrong.
        hint: String,
    },
    /// It contradicts what is there; read the head and sign again.
    #[error("{hint}")]
    Conflict {
        /// Stable word.
        code: &'static str,
        /// What is wrong.
        hint: String,
    },
    /// Disk or log failed; nothing was taken, try again later.
    #[error("{hint}")]
    Unavailable {
        /// Stable word.
        code: &'static str,
        /// What is wrong.
        hint: String,
    },
}

impl Refused {
    /// Stable word, text for humans, HTTP status.
    pub fn parts(&self) -> (&'static str, &str, u16) {
        match self {
            Refused::Bad { code, hint } => (code, hint, 400),
            Refused::Forbidden { code, hint } => (code, hint, 403),
            Refused::Conflict { code, hint } => (code, hint, 409),
            Refused::Unavailable { code, hint } => (code, hint, 503),
        }
    }
}

/// Why the statements of a deployment cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The book.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The log.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A statement that was taken is not taken again: book, log and configuration contradict each other.
    #[error("statement {id} does not fold: {problem} (was the operator list or the origin changed?)")]
    Fold {
        /// The statement.
        id: String,
        /// What is wrong.
        problem: String,
    },
    /// The log has statements that the book lacks.
    #[error("the log has {0} statements that the book lacks: restore the book from a backup")]
    Missing(usize),
}

/// Called with each statement, its log index and its epoch, in order, before its receipt is given.
pub type Observer = Box<dyn Fn(&Statement, u64, u64) + Send + Sync>;

struct Inner {
    book: Book,
    register: Arc<Register>,
    consent: Arc<ConsentState>,
    taken: Vec<(Arc<Statement>, Receipt)>,
    by_id: HashMap<StatementId, usize>,
    epoch_root: Hash32,
    observers: Vec<Observer>,
}

/// All statements of a deployment.
pub struct Statements {
    origin: String,
    ledger: Arc<dyn Ledger>,
    inner: Mutex<Inner>,
}

/// Root of an epoch: the one before and the new statement's commitment, hashed. It fixes the whole history.
fn next_root(previous: &Hash32, commitment: &Hash32) -> Hash32 {
    let mut hasher = blake3::Hasher::new_derive_key("vitalog 2026 consent epoch v1");
    hasher.update(previous).update(commitment);
    *hasher.finalize().as_bytes()
}

impl Statements {
    /// Opens the book, brings book and log together, and folds everything in log order.
    pub fn open(
        directory: &Path,
        ledger: Arc<dyn Ledger>,
        origin: &str,
        operators: Vec<Did>,
    ) -> Result<Statements, OpenError> {
        let (book, records) = Book::open(directory)?;
        let logged = logged_statements(ledger.as_ref())?;
        let inner = Inner {
            book,
            register: Arc::new(Register::new(origin, operators)),
            consent: Arc::new(ConsentState::new()),
            taken: Vec::new(),
            by_id: HashMap::new(),
            epoch_root: [0; 32],
            observers: Vec::new(),
        };
        let statements = Statements { origin: origin.to_owned(), ledger, inner: Mutex::new(inner) };
        statements.replay(records, logged)?;
        Ok(statements)
    }

    fn replay(&self, records: Vec<Record>, logged: HashMap<Hash32, u64>) -> Result<(), OpenError> {
        let mut inner = self.inner.lock();
        let mut ordered = Vec::with_capacity(records.len());
        let mut unlogged = Vec::new();
        for record in records {
            match logged.get(&record.commitment()) {
                Some(index) => ordered.push((*index, record)),
                // The process died between book and log: only the last one can be like that.
                None => unlogged.push(record),
            }
        }
        if ordered.len() < logged.len() {
            return Err(OpenError::Missing(logged.len() - ordered.len()));
        }
        ordered.sort_by_key(|(index, _)| *index);
        for (index, record) in &ordered {
            self.fold(&mut inner, record, *index)?;
        }
        for record in &unlogged {
            tracing::warn!("committing a statement to the log that an interrupted run left in the book");
            let index = self.commit(&inner, record)?;
            self.fold(&mut inner, record, index)?;
        }
        Ok(())
    }

    fn fold(&self, inner: &mut Inner, record: &Record, index: u64) -> Result<(), OpenError> {
        let fold_error = |id: String, problem: String| OpenError::Fold { id, problem };
        let id = schemas_identity::statement::id_of(&record.compact).to_string();
        let statement = Statement::parse(&record.compact, &self.origin)
            .map_err(|error| fold_error(id.clone(), error.to_string()))?;
        self.take(inner, statement, record, index).map_err(|refused| fold_error(id, refused.to_string()))?;
        Ok(())
    }

    /// Appends a statement's entries; the index of the first one is the statement's.
    fn commit(&self, inner: &Inner, record: &Record) -> Result<u64, LedgerError> {
        let commitment = record.commitment();
        let epoch = inner.taken.len() as u64 + 1;
        let root = next_root(&inner.epoch_root, &commitment);
        let entries = [Entry::Statement { commitment }, Entry::ConsentEpoch { epoch, root }];
        Ok(self.ledger.append(&entries)?.first().copied().unwrap_or(0))
    }

    /// Folds a statement that is in book and log.
    fn take(
        &self,
        inner: &mut Inner,
        statement: Statement,
        record: &Record,
        index: u64,
    ) -> Result<Receipt, Refused> {
        let mut register = Register::clone(&inner.register);
        let mut consent = ConsentState::clone(&inner.consent);
        consent.apply(&inner.register, &statement, index).map_err(consent_refused)?;
        register.apply(&statement, index).map_err(register_refused)?;
        inner.register = Arc::new(register);
        inner.consent = Arc::new(consent);
        inner.epoch_root = next_root(&inner.epoch_root, &record.commitment());
        let receipt = Receipt { id: statement.id, log_index: index, epoch: inner.taken.len() as u64 + 1 };
        inner.by_id.insert(statement.id, inner.taken.len());
        for observer in &inner.observers {
            observer(&statement, index, receipt.epoch);
        }
        inner.taken.push((Arc::new(statement), receipt));
        Ok(receipt)
    }

    /// Takes a statement, or says why not. Sending the same one again gives the same receipt.
    pub fn submit(&self, compact: &str, now_us: i64) -> Result<Receipt, Refused> {
        let statement = Statement::parse(compact, &self.origin).map_err(|error| form_refused(&error))?;
        if statement.iat_s > now_us / 1_000_000 + CLOCK_SKEW_SECONDS_MAX {
            let hint = "`iat` is in the future: check the signer's clock".to_owned();
            return Err(Refused::Bad { code: "clock", hint });
        }
        let mut inner = self.inner.lock();
        if let Some(known) = inner.by_id.get(&statement.id) {
            return Ok(inner.taken[*known].1);
        }
        inner.register.check(&statement).map_err(register_refused)?;
        inner.consent.check(&inner.register, &statement).map_err(consent_refused)?;
        let unavailable = |hint: String| Refused::Unavailable { code: "unavailable", hint };
        let mut salt = [0u8; 32];
        getrandom::fill(&mut salt).map_err(|error| unavailable(error.to_string()))?;
        let record = Record { salt, compact: compact.to_owned() };
        inner.book.append(&record).map_err(|error| unavailable(error.to_string()))?;
        let index = match self.commit(&inner, &record) {
            Ok(index) => index,
            Err(error) => {
                inner.book.take_back(&record);
                return Err(unavailable(error.to_string()));
            }
        };
        self.take(&mut inner, statement, &record, index)
    }

    /// Registers an observer and shows it all statements so far, in order.
    pub fn observe(&self, observer: Observer) {
        let mut inner = self.inner.lock();
        for (statement, receipt) in &inner.taken {
            observer(statement, receipt.log_index, receipt.epoch);
        }
        inner.observers.push(observer);
    }

    /// The register now.
    pub fn register(&self) -> Arc<Register> {
        self.inner.lock().register.clone()
    }

    /// The consents now.
    pub fn consent(&self) -> Arc<ConsentState> {
        self.inner.lock().consent.clone()
    }

    /// One statement with its receipt.
    pub fn get(&self, id: &StatementId) -> Option<(Arc<Statement>, Receipt)> {
        let inner = self.inner.lock();
        inner.by_id.get(id).map(|at| inner.taken[*at].clone())
    }

    /// All statements signed by the person behind a key, oldest first.
    pub fn of(&self, party: &Did) -> Vec<(Arc<Statement>, Receipt)> {
        let inner = self.inner.lock();
        let person = inner.register.subject_of(party);
        let own = |statement: &Statement| inner.register.subject_of(&statement.signer) == person;
        inner.taken.iter().filter(|(statement, _)| own(statement)).cloned().collect()
    }

    /// A person's newest grant, deny or revoke: what the next one names as `prev`.
    pub fn head(&self, party: &Did) -> Option<StatementId> {
        let inner = self.inner.lock();
        inner.consent.head(&inner.register.subject_of(party))
    }

    /// Consent epoch: how many statements are in force.
    pub fn epoch(&self) -> u64 {
        self.inner.lock().taken.len() as u64
    }
}

fn logged_statements(ledger: &dyn Ledger) -> Result<HashMap<Hash32, u64>, LedgerError> {
    let size = ledger.size();
    let mut logged = HashMap::new();
    let mut from = 0;
    while from < size {
        let to = size.min(from + ENTRIES_PER_READ);
        for (text, index) in ledger.entries(from, to)?.iter().zip(from..) {
            if let Ok(Entry::Statement { commitment }) = Entry::parse(text) {
                logged.insert(commitment, index);
            }
        }
        from = to;
    }
    Ok(logged)
}

fn form_refused(error: &StatementError) -> Refused {
    let code = match error {
        StatementError::Jws(_) => "jws",
        StatementError::Field(_) | StatementError::Kind(_) | StatementError::Body { .. } => "form",
        StatementError::Audience(_) => "audience",
        StatementError::Signer(_) => "signer",
        StatementError::Proof(_) => "proof",
    };
    Refused::Bad { code, hint: error.to_string() }
}

fn register_refused(refusal: schemas_identity::register::Refusal) -> Refused {
    let (code, hint) = (refusal.code(), refusal.to_string());
    if refusal.is_conflict() { Refused::Conflict { code, hint } } else { Refused::Forbidden { code, hint } }
}

fn consent_refused(refusal: schemas_consent::Refusal) -> Refused {
    let (code, hint) = (refusal.code(), refusal.to_string());
    match (refusal.is_conflict(), refusal.is_forbidden()) {
        (true, _) => Refused::Conflict { code, hint },
        (_, true) => Refused::Forbidden { code, hint },
        _ => Refused::Bad { code, hint },
    }
}

#[cfg(test)]
mod tests;
