//! The consent side of the fixture, made of signed statements as in life.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use query_audit::Audit;
use query_consents::{Ask, Consents, Warrant};
use schemas_identity::statement::{
    Bind, Devices, Enrol, Grantee, GranteeKind, Maker, RevokeBody, RevokeTarget,
};
use schemas_identity::statement::{proof_of_possession, sign, sign_with_co};
use schemas_identity::token::{Scope, Token};
use schemas_identity::{Body, Did, GrantBody, SecretKey, ShortId, Statement, StatementId};

use super::fixture::{HIDDEN, PEOPLE, ROWS, SECOND, T0};

const ORIGIN: &str = "test.example/log";
/// The moment of asking, microseconds.
const NOW: i64 = T0 + 86_400 * SECOND;

/// Who asks, and what they were allowed.
pub(crate) struct World {
    pub consents: Arc<Consents>,
    pub audit: Arc<Audit>,
    _dir: tempfile::TempDir,
    next: AtomicU64,
    heads: Vec<Option<StatementId>>,
}

fn key(kind: u8, number: u32) -> SecretKey {
    let mut seed = [kind; 32];
    seed[1..5].copy_from_slice(&number.to_le_bytes());
    SecretKey::from_seed(&seed)
}

/// The wearer of a device.
pub(crate) fn person(number: u32) -> Did {
    key(1, number).public().did()
}

/// First short id of a device.
pub(crate) fn device(number: u32) -> ShortId {
    // Asked for by every statement; deriving a key takes longer than planning one.
    static KNOWN: LazyLock<Vec<ShortId>> =
        LazyLock::new(|| (0..16).map(|number| key(2, number).public().short_id()).collect());
    KNOWN.get(number as usize).copied().unwrap_or_else(|| key(2, number).public().short_id())
}

/// The one who asks.
pub(crate) fn asker() -> Did {
    key(3, 0).public().did()
}

impl World {
    /// The fixture's grants, raw, for rows.
    pub(crate) fn new() -> Self {
        Self::with_grants("raw")
    }

    /// The fixture's grants at a resolution.
    pub(crate) fn with_grants(resolution: &str) -> Self {
        let mut world = Self::without_grants();
        for number in (0..PEOPLE).filter(|number| !HIDDEN.contains(number)) {
            let data_to = (number == 0).then_some(T0 + ROWS / 2 * SECOND);
            world.heads[number as usize] =
                Some(world.say(&grant(number, resolution, data_to), &key(1, number)));
        }
        world
    }

    /// Devices and wearers, and nobody granted anything.
    pub(crate) fn without_grants() -> Self {
        let operator = key(4, 0);
        let consents = Consents::new(ORIGIN, vec![operator.public().did()], &[7; 32]);
        let heads = vec![None; PEOPLE as usize];
        let (audit, dir) = super::audit();
        let world = Self { consents: Arc::new(consents), audit, _dir: dir, next: AtomicU64::new(1), heads };
        let maker = key(5, 0);
        let party = maker.public().did();
        world.say(&Body::Maker(Maker { party, title: "maker".into(), from: None, to: None }), &operator);
        for number in 0..PEOPLE {
            let device_key = key(2, number);
            let enrol = Enrol {
                device_key: device_key.public().did(),
                model: "model".into(),
                signals: vec!["*".into()],
                pop: proof_of_possession(ORIGIN, &party, &device_key),
            };
            world.say(&Body::Enrol(enrol), &maker);
            let bind = Bind { device: device(number), from: None, to: None, co: String::new() };
            let nonce = world.nonce();
            let text = sign_with_co(
                &Body::Bind(bind),
                ORIGIN,
                NOW / SECOND - 60,
                nonce,
                &key(1, number),
                &device_key,
            );
            world.fold(&text);
        }
        world
    }

    fn nonce(&self) -> [u8; 16] {
        u128::from(self.next.load(Ordering::SeqCst)).to_le_bytes()
    }

    fn say(&self, body: &Body, key: &SecretKey) -> StatementId {
        self.fold(&sign(body, ORIGIN, NOW / SECOND - 60, self.nonce(), key))
    }

    fn fold(&self, text: &str) -> StatementId {
        let statement = Statement::parse(text, ORIGIN).unwrap();
        let index = self.next.fetch_add(1, Ordering::SeqCst);
        self.consents.apply(&statement, index, index).unwrap();
        statement.id
    }

    /// What the asker is allowed now.
    pub(crate) fn warrant(&self) -> Warrant {
        let token = Token {
            iss: asker(),
            jti: "t1".into(),
            purpose: "HRESCH".into(),
            study: None,
            vouched: None,
            scope: Scope::Sql,
            iat_s: NOW / SECOND - 10,
            exp_s: NOW / SECOND + 3_600,
        };
        self.consents.warrant(Ask::rows(&token, NOW)).unwrap()
    }

    /// Person 1 changes their mind.
    pub(crate) fn revoke(&self) -> StatementId {
        let revoke = RevokeBody { subject: None, grant: RevokeTarget::All, prev: self.heads[1] };
        self.say(&Body::Revoke(revoke), &key(1, 1))
    }

    /// Person 1 allows again, after that revocation.
    pub(crate) fn grant_again(&self, revocation: StatementId) {
        let Body::Grant(body) = grant(1, "raw", None) else { unreachable!() };
        self.say(&Body::Grant(GrantBody { prev: Some(revocation), ..body }), &key(1, 1));
    }
}

/// A clock that stands still at the moment of asking, moved on by `by_us`.
pub(crate) fn clock(by_us: i64) -> crate::Clock {
    Arc::new(move || NOW + by_us)
}

fn grant(number: u32, resolution: &str, data_to: Option<i64>) -> Body {
    Body::Grant(GrantBody {
        subject: person(number),
        grantee: Grantee { kind: GranteeKind::Party, value: asker().to_string() },
        signals: vec!["*".into()],
        devices: Devices::All,
        resolution: resolution.into(),
        purposes: vec!["HRESCH".into()],
        duo: vec![],
        data_from: None,
        data_to,
        valid_from: None,
        valid_to: None,
        export: "rows".into(),
        min_cohort: 11,
        notice: None,
        prev: None,
    })
}
