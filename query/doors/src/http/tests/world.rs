//! One device, its wearer, one researcher, and a store of unsealed rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{
    ArrayRef, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    TimestampMicrosecondArray, UInt8Array, UInt16Array, UInt32Array,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prometheus::Registry;
use query_audit::Audit;
use query_consents::Consents;
use query_engine::{Engine, Manifests, Options, Tables, TablesError, View};
use query_oidc::claims::Path;
use query_oidc::{PartySecret, Provider, ProviderOptions, Providers, Source};
use query_tokens::Tokens;
use schemas_evidence::{Entry, Ledger, MemoryLedger};
use schemas_identity::statement::{
    Bind, Devices, Enrol, Grantee, GranteeKind, Maker, RevokeBody, RevokeTarget, Role,
};
use schemas_identity::statement::{proof_of_possession, sign, sign_with_co};
use schemas_identity::token::{Scope, Token, issue};
use schemas_identity::{Body, Did, GrantBody, SecretKey, Statement, StatementId};
use schemas_signals::columns::scalar_schema;
use serde_json::json;
use tempfile::TempDir;

use super::super::DoorState;
use crate::limits::{Limiter, Rates};
use crate::metrics::Metrics;

const ORIGIN: &str = "test.example/log";
const NOW_S: i64 = 1_767_225_600;

/// What a token says.
pub(super) struct Claims {
    pub key: u8,
    pub origin: &'static str,
    pub purpose: &'static str,
    pub study: Option<&'static str>,
    pub scope: Scope,
    pub seconds_left: i64,
    pub jti: &'static str,
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            key: 1,
            origin: ORIGIN,
            purpose: "HRESCH",
            study: None,
            scope: Scope::Sql,
            seconds_left: 600,
            jti: "t1",
        }
    }
}

/// Everything behind the door.
pub(super) struct World {
    pub state: DoorState,
    next: AtomicU64,
    pub granted: Option<StatementId>,
    /// The one log of statements and accesses.
    ledger: Arc<MemoryLedger>,
    dir: TempDir,
}

/// The identity provider.
pub(super) const ISSUER: &str = "https://id.example/realms/hospital";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

struct Store(View);

impl Tables for Store {
    fn view(&self, as_of: Option<u64>) -> Result<Arc<View>, TablesError> {
        match as_of {
            Some(size) if size != self.0.log_size => Err(TablesError::NoSnapshot(size)),
            _ => Ok(Arc::new(self.0.clone())),
        }
    }
}

fn rows(count: usize) -> RecordBatch {
    let times: ArrayRef = Arc::new(
        TimestampMicrosecondArray::from_iter_values(
            (0_i64..).take(count).map(|row| (NOW_S - 1_000) * 1_000_000 + row),
        )
        .with_timezone("UTC"),
    );
    let boots = FixedSizeBinaryArray::try_from_iter(std::iter::repeat_n([1_u8; 8], count)).unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_value(0, count)),
        Arc::new(UInt16Array::from_value(1, count)),
        Arc::clone(&times),
        Arc::new(Int64Array::from_iter_values((0_i64..).take(count).map(|row| 60 + row % 20))),
        Arc::new(UInt32Array::from_value(1, count)),
        Arc::new(UInt32Array::from_value(1, count)),
        Arc::new(Float64Array::new_null(count)),
        Arc::new(UInt8Array::new_null(count)),
        Arc::new(Int32Array::from_value(0, count)),
        times,
        Arc::new(boots),
        Arc::new(Int64Array::from_value(0, count)),
        Arc::new(UInt32Array::from_value(0, count)),
    ];
    RecordBatch::try_new(scalar_schema(), columns).unwrap()
}

impl World {
    /// Twenty readings, granted to key 1 for research.
    pub(super) fn new() -> Self {
        Self::with_rows(20)
    }

    pub(super) fn with_rows(count: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let consents = Arc::new(Consents::new(ORIGIN, vec![key(4).public().did()], &[7; 32]));
        let ledger = Arc::new(MemoryLedger::new(ORIGIN));
        let log: Arc<dyn Ledger> = ledger.clone();
        let audit = Arc::new(Audit::open(dir.path().join("audit"), log).unwrap());
        let device = key(3).public().short_id();
        let view = View {
            log_size: 3,
            files: Vec::new(),
            sources: query_engine::Sources::default(),
            tail_scalar: vec![rows(count)],
            tail_wave: Vec::new(),
            devices: Arc::new(move |number| (number.0 == 0).then_some(device)),
            numbers: Arc::new(move |id| (id == device).then_some(schemas_identity::DeviceNumber(0))),
            keep: None,
        };
        let clock: query_engine::Clock = Arc::new(|| NOW_S * 1_000_000);
        let options = Options { partitions: 2, threads: 2, clock: Arc::clone(&clock), ..Options::default() };
        let engine =
            Engine::new(options, Arc::new(Store(view)), Arc::clone(&consents), Arc::clone(&audit)).unwrap();
        let tokens = Tokens::open(&dir.path().join("tokens"), ORIGIN, consents.clone(), NOW_S).unwrap();
        let log: Arc<dyn Ledger> = ledger.clone();
        let key = MemoryLedger::test_key();
        let manifests =
            Manifests::open(dir.path().join("manifests"), 100, log, Arc::clone(&audit), key).unwrap();
        // Tests ask as fast as they can; those about limits say which.
        let no_limits = Rates { address: 0, party: 0, refused: 0 };
        let state = DoorState {
            engine: Arc::new(engine),
            consents,
            tokens: Arc::new(tokens),
            limiter: Arc::new(Limiter::new(no_limits)),
            audit,
            manifests: Arc::new(manifests),
            clock,
            metrics: Metrics::new(&Registry::new()).unwrap(),
        };
        let mut world = Self { state, next: AtomicU64::new(1), granted: None, ledger, dir };
        world.settle();
        world
    }

    /// Maker 5 enrols device 3, subject 2 wears it and grants researcher 1.
    fn settle(&mut self) {
        let party = self.did(5);
        self.say(&Body::Maker(Maker { party, title: "maker".into(), from: None, to: None }), &key(4));
        let pop = proof_of_possession(ORIGIN, &party, &key(3));
        let enrol = Enrol { device_key: self.did(3), model: "m".into(), signals: vec!["*".into()], pop };
        self.say(&Body::Enrol(enrol), &key(5));
        let bind = Bind { device: key(3).public().short_id(), from: None, to: None, co: String::new() };
        self.fold(&sign_with_co(&Body::Bind(bind), ORIGIN, NOW_S - 60, self.nonce(), &key(2), &key(3)));
        let grant = GrantBody {
            subject: self.did(2),
            grantee: Grantee { kind: GranteeKind::Party, value: self.did(1).to_string() },
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
            prev: None,
        };
        self.granted = Some(self.say(&Body::Grant(grant), &key(2)));
    }

    pub(super) fn did(&self, number: u8) -> Did {
        key(number).public().did()
    }

    fn nonce(&self) -> [u8; 16] {
        u128::from(self.next.load(Ordering::SeqCst)).to_le_bytes()
    }

    fn say(&self, body: &Body, key: &SecretKey) -> StatementId {
        self.fold(&sign(body, ORIGIN, NOW_S - 60, self.nonce(), key))
    }

    fn fold(&self, text: &str) -> StatementId {
        let statement = Statement::parse(text, ORIGIN).unwrap();
        let epoch = self.next.fetch_add(1, Ordering::SeqCst);
        let index = self.ledger.append(&[Entry::Statement { commitment: [0; 32] }]).unwrap()[0];
        self.state.consents.apply(&statement, index, epoch).unwrap();
        statement.id
    }

    pub(super) fn token(&self, claims: Claims) -> String {
        let token = Token {
            iss: self.did(claims.key),
            jti: claims.jti.into(),
            purpose: claims.purpose.into(),
            study: claims.study.map(str::to_owned),
            vouched: None,
            scope: claims.scope,
            iat_s: NOW_S - 10,
            exp_s: NOW_S + claims.seconds_left,
        };
        issue(&token, claims.origin, &key(claims.key))
    }

    /// A token of the wearer.
    pub(super) fn subject_token(&self) -> String {
        self.token(Claims { key: 2, purpose: "PATRQT", ..Claims::default() })
    }

    /// Trusts a provider that signs with key 50 and whose group `ward` is the role `clinician`, `sleepers` the study `sleep`.
    /// The wearer grants both for treatment.
    pub(super) fn with_provider(mut self) -> Self {
        let path = self.dir.path().join("keys.json");
        let point = encode(key(50).public().as_bytes());
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": point});
        std::fs::write(&path, json!({"keys": [jwk]}).to_string()).unwrap();
        let table = |value: &str, name: &str| [(value.to_owned(), name.to_owned())].into();
        let options = ProviderOptions {
            issuer: ISSUER.into(),
            audience: "vitalog".into(),
            source: Source::File(path),
            roles_claim: Path::parse("groups").unwrap(),
            roles: table("ward", "clinician"),
            studies: table("sleepers", "sleep"),
            purposes: vec!["TREAT".into()],
            age_max_s: 900,
            refresh_s: 300,
            stale_max_s: 86_400,
        };
        let metrics = query_oidc::Metrics::new(&Registry::new()).unwrap();
        let provider = Provider::new(options, Arc::new(PartySecret::new(&[7; 32])), metrics.clone());
        provider.keep(NOW_S).unwrap();
        let tokens =
            Tokens::open(&self.dir.path().join("tokens"), ORIGIN, self.state.consents.clone(), NOW_S);
        let providers = Providers::new(vec![Arc::new(provider)], metrics);
        self.state.tokens = Arc::new(tokens.unwrap().trusting(providers));
        self.role(None);
        self
    }

    /// What the operator says of the role `clinician`, which lists nobody.
    pub(super) fn role(&self, to: Option<i64>) {
        let (role, title) = ("clinician".to_owned(), "Doctor of the ward".to_owned());
        let body = Role { role, title, members: vec![], purposes: vec![], from: None, to };
        self.say(&Body::Role(body), &key(4));
    }

    /// The wearer lets a role see everything for treatment.
    pub(super) fn grant_role(&self, role: &str) {
        let grant = GrantBody {
            subject: self.did(2),
            grantee: Grantee { kind: GranteeKind::Role, value: role.to_owned() },
            signals: vec!["*".into()],
            devices: Devices::All,
            resolution: "raw".into(),
            purposes: vec!["TREAT".into()],
            duo: vec![],
            data_from: None,
            data_to: None,
            valid_from: None,
            valid_to: None,
            export: "rows".into(),
            min_cohort: 11,
            notice: None,
            prev: self.state.consents.consent().head(&self.did(2)),
        };
        self.say(&Body::Grant(grant), &key(2));
    }

    /// A token of somebody at the provider, `age_s` old.
    pub(super) fn provided(&self, sub: &str, groups: &[&str], age_s: i64) -> String {
        let iat = NOW_S - age_s;
        let claims = json!({"iss": ISSUER, "aud": "vitalog", "sub": sub, "iat": iat, "exp": iat + 86_400, "groups": groups});
        let header = json!({"alg": "EdDSA", "kid": "k"}).to_string();
        let message = format!("{}.{}", encode(header), encode(claims.to_string()));
        format!("{message}.{}", encode(key(50).sign(message.as_bytes())))
    }

    pub(super) fn revoke(&self) {
        let revoke = RevokeBody { subject: None, grant: RevokeTarget::All, prev: self.granted };
        self.say(&Body::Revoke(revoke), &key(2));
    }
}
