//! A hundred thousand people with a device each, and three askers whom ten, a thousand and all of them allow to read:
//! signed statements, folded as a server folds them. Not a simulator of people: nobody changes their mind here but person 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use query_consents::{Ask, Consents, Warrant};
use schemas_identity::statement::{
    Bind, Devices, Enrol, Grantee, GranteeKind, Maker, RevokeBody, RevokeTarget, proof_of_possession, sign,
    sign_with_co,
};
use schemas_identity::token::{Scope, Token};
use schemas_identity::{Body, Did, GrantBody, SecretKey, ShortId, Statement, StatementId};

use crate::progress;

/// Name of the log all statements are for.
pub(crate) const ORIGIN: &str = "bench.example/log";
/// First instant of the recordings: 2026-01-01.
pub(crate) const T0_US: i64 = 1_767_225_600_000_000;
/// When everything is asked: two days later.
pub(crate) const NOW_US: i64 = T0_US + 2 * 86_400_000_000;

/// The people, and what they said.
pub(crate) struct Population {
    /// The index the engine asks.
    pub(crate) consents: Arc<Consents>,
    /// How many.
    pub(crate) people: u32,
    epoch: AtomicU64,
}

/// A key of one kind, always the same.
pub(crate) fn key(kind: &str, number: u32) -> SecretKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(kind.as_bytes()).update(&number.to_le_bytes());
    SecretKey::from_seed(hasher.finalize().as_bytes())
}

/// First short id of a device, the name SQL has for it.
pub(crate) fn device(number: u32) -> ShortId {
    key("device", number).public().short_id()
}

/// Who asks for a cohort of that size.
fn asker(cohort: u32) -> Did {
    key("asker", cohort).public().did()
}

impl Population {
    /// Enrols, binds and grants. A cohort of N is spread evenly over all people.
    pub(crate) fn new(people: u32, cohorts: &[u32]) -> Result<Population> {
        let operator = key("operator", 0);
        let consents = Arc::new(Consents::new(ORIGIN, vec![operator.public().did()], &[7; 32]));
        let population = Population { consents, people, epoch: AtomicU64::new(1) };
        let maker = key("maker", 0);
        let party = maker.public().did();
        let title = "maker".to_owned();
        population.say(&Body::Maker(Maker { party, title, from: None, to: None }), &operator)?;
        let bar = progress::bar("people", u64::from(people));
        for number in 0..people {
            population.join(number, &maker, cohorts)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(population)
    }

    fn join(&self, number: u32, maker: &SecretKey, cohorts: &[u32]) -> Result<()> {
        let (worn, wearer) = (key("device", number), key("person", number));
        let enrol = Enrol {
            device_key: worn.public().did(),
            model: "bench".into(),
            signals: vec!["*".into()],
            pop: proof_of_possession(ORIGIN, &maker.public().did(), &worn),
        };
        self.say(&Body::Enrol(enrol), maker)?;
        let bind =
            Body::Bind(Bind { device: worn.public().short_id(), from: None, to: None, co: String::new() });
        let text = sign_with_co(&bind, ORIGIN, NOW_US / 1_000_000 - 60, self.nonce(), &wearer, &worn);
        self.fold(&text)?;
        let mut prev = None;
        for cohort in cohorts.iter().filter(|cohort| number.is_multiple_of((self.people / **cohort).max(1))) {
            prev = Some(self.say(&grant(&wearer, asker(*cohort), prev), &wearer)?);
        }
        Ok(())
    }

    fn nonce(&self) -> [u8; 16] {
        u128::from(self.epoch.load(Ordering::SeqCst)).to_le_bytes()
    }

    fn say(&self, body: &Body, key: &SecretKey) -> Result<StatementId> {
        self.fold(&sign(body, ORIGIN, NOW_US / 1_000_000 - 60, self.nonce(), key))
    }

    fn fold(&self, text: &str) -> Result<StatementId> {
        let statement = Statement::parse(text, ORIGIN).context("a statement of this benchmark's own")?;
        let index = self.epoch.fetch_add(1, Ordering::SeqCst);
        self.consents.apply(&statement, index, index)?;
        Ok(statement.id)
    }

    /// What the asker of a cohort is allowed now.
    pub(crate) fn warrant(&self, cohort: u32) -> Result<Warrant> {
        let token = Token {
            iss: asker(cohort),
            vouched: None,
            jti: "bench".into(),
            purpose: "HRESCH".into(),
            study: None,
            scope: Scope::Sql,
            iat_s: NOW_US / 1_000_000 - 10,
            exp_s: NOW_US / 1_000_000 + 3_600,
        };
        Ok(self.consents.warrant(Ask::rows(&token, NOW_US))?)
    }

    /// A person takes everything back.
    pub(crate) fn revoke(&self, number: u32) -> Result<()> {
        let wearer = key("person", number);
        let body = RevokeBody { subject: None, grant: RevokeTarget::All, prev: None };
        self.say(&Body::Revoke(body), &wearer).map(|_| ())
    }
}

fn grant(wearer: &SecretKey, to: Did, prev: Option<StatementId>) -> Body {
    Body::Grant(GrantBody {
        subject: wearer.public().did(),
        grantee: Grantee { kind: GranteeKind::Party, value: to.to_string() },
        signals: vec!["*".into()],
        devices: Devices::All,
        resolution: "raw".into(),
        purposes: vec!["HRESCH".into()],
        duo: vec![],
        data_from: None,
        data_to: None,
        valid_from: None,
        valid_to: None,
        export: "rows".into(),
        min_cohort: 11,
        notice: None,
        prev,
    })
}
