//! A small deployment for tests: people with keys, devices on bodies, statements really signed. Folds register and consent
//! together, in the order the log would have.

use std::collections::HashMap;

use schemas_identity::statement::{
    Bind, BreakGlass, Devices, Enrol, Erase, Freeze, Grantee, GranteeKind, Maker, RevokeBody, RevokeKey,
    RevokeTarget, Role, Rotate, Study, proof_of_possession, sign, sign_with_co,
};
use schemas_identity::{
    Body, DeviceNumber, Did, GrantBody, Register, SecretKey, ShortId, Statement, StatementId,
};

use crate::{ConsentState, Refusal};

pub(super) const ORIGIN: &str = "example.org/log";

pub(super) struct World {
    pub(super) register: Register,
    pub(super) state: ConsentState,
    seeds: HashMap<String, u8>,
    devices: HashMap<String, DeviceNumber>,
    said: u64,
}

impl World {
    /// An operator and a maker.
    pub(super) fn new() -> World {
        let mut world = World {
            register: Register::new(ORIGIN, vec![]),
            state: ConsentState::new(),
            seeds: HashMap::new(),
            devices: HashMap::new(),
            said: 0,
        };
        world.register = Register::new(ORIGIN, vec![world.did("operator")]);
        let party = world.did("maker");
        world.must("operator", Body::Maker(Maker { party, title: String::new(), from: None, to: None }));
        world
    }

    fn seed(&mut self, name: &str) -> u8 {
        let next = self.seeds.len() as u8 + 1;
        *self.seeds.entry(name.to_owned()).or_insert(next)
    }

    pub(super) fn key(&mut self, name: &str) -> SecretKey {
        SecretKey::from_seed(&[self.seed(name); 32])
    }

    pub(super) fn did(&mut self, name: &str) -> Did {
        self.key(name).public().did()
    }

    pub(super) fn short(&mut self, device: &str) -> ShortId {
        self.key(device).public().short_id()
    }

    pub(super) fn device(&self, name: &str) -> DeviceNumber {
        self.devices[name]
    }

    pub(super) fn statement(&mut self, signer: &str, iat_s: i64, body: &Body) -> Statement {
        self.said += 1;
        let nonce = u128::from(self.said).to_le_bytes();
        let key = self.key(signer);
        Statement::parse(&sign(body, ORIGIN, iat_s, nonce, &key), ORIGIN).unwrap()
    }

    pub(super) fn take(&mut self, statement: &Statement) -> Result<StatementId, Refusal> {
        self.register.check(statement).unwrap();
        let checked = self.state.check(&self.register, statement);
        let applied = self.state.apply(&self.register, statement, self.said);
        assert_eq!(checked, applied, "check and apply agree");
        applied?;
        self.register.apply(statement, self.said).unwrap();
        Ok(statement.id)
    }

    pub(super) fn say(&mut self, signer: &str, body: Body) -> Result<StatementId, Refusal> {
        let statement = self.statement(signer, 0, &body);
        self.take(&statement)
    }

    pub(super) fn must(&mut self, signer: &str, body: Body) -> StatementId {
        self.say(signer, body).unwrap()
    }

    pub(super) fn enrol(&mut self, device: &str) {
        let (maker, key) = (self.did("maker"), self.key(device));
        let pop = proof_of_possession(ORIGIN, &maker, &key);
        let body = Enrol { device_key: key.public().did(), model: "M".into(), signals: vec![], pop };
        self.must("maker", Body::Enrol(body));
        let number = self.register.device_by_kid(key.public().short_id()).unwrap().number;
        self.devices.insert(device.to_owned(), number);
    }

    pub(super) fn bind(&mut self, subject: &str, device: &str, from: Option<i64>, to: Option<i64>) {
        self.said += 1;
        let body = Body::Bind(Bind { device: self.short(device), from, to, co: String::new() });
        let (subject, co) = (self.key(subject), self.key(device));
        let nonce = u128::from(self.said).to_le_bytes();
        let compact = sign_with_co(&body, ORIGIN, 0, nonce, &subject, &co);
        let statement = Statement::parse(&compact, ORIGIN).unwrap();
        self.take(&statement).unwrap();
    }

    pub(super) fn role(&mut self, role: &str, members: &[&str], purposes: &[&str], to: Option<i64>) {
        let body = Role {
            role: role.into(),
            title: String::new(),
            members: members.iter().map(|name| self.did(name)).collect(),
            purposes: owned(purposes),
            from: None,
            to,
        };
        self.must("operator", Body::Role(body));
    }

    pub(super) fn study(
        &mut self,
        study: &str,
        members: &[&str],
        (purposes, duo): (&[&str], &[&str]),
        to: Option<i64>,
    ) {
        let body = Study {
            study: study.into(),
            title: String::new(),
            members: members.iter().map(|name| self.did(name)).collect(),
            purposes: owned(purposes),
            duo: owned(duo),
            terms: vec![],
            from: None,
            to,
        };
        self.must("operator", Body::Study(body));
    }

    /// A grant of everything for `HRESCH` to one grantee, chained to the subject's head.
    pub(super) fn body(&mut self, subject: &str, kind: GranteeKind, value: &str) -> GrantBody {
        let value = if kind == GranteeKind::Party { self.did(value).to_string() } else { value.to_owned() };
        let did = self.did(subject);
        let subject = self.register.subject_of(&did);
        GrantBody {
            subject,
            grantee: Grantee { kind, value },
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
            prev: self.state.head(&subject),
        }
    }

    pub(super) fn revoke(&mut self, subject: &str, grant: RevokeTarget) -> Result<StatementId, Refusal> {
        let did = self.did(subject);
        let prev = self.state.head(&self.register.subject_of(&did));
        self.say(subject, Body::Revoke(RevokeBody { subject: None, grant, prev }))
    }

    pub(super) fn freeze(&mut self, by: &str, subject: &str) -> Result<StatementId, Refusal> {
        let subject = self.did(subject);
        self.say(by, Body::Freeze(Freeze { subject, reason: "lost key".into() }))
    }

    pub(super) fn break_glass(
        &mut self,
        by: &str,
        subject: &str,
        iat_s: i64,
    ) -> Result<StatementId, Refusal> {
        let subject = self.did(subject);
        let body = Body::BreakGlass(BreakGlass { subject, reason: "unconscious".into() });
        let statement = self.statement(by, iat_s, &body);
        self.take(&statement)
    }

    pub(super) fn erase(&mut self, subject: &str) -> Result<StatementId, Refusal> {
        self.say(subject, Body::Erase(Erase { scope: "all".into() }))
    }

    pub(super) fn rotate(&mut self, old: &str, new: &str) {
        let (old_did, new_key) = (self.did(old), self.key(new));
        let pop = proof_of_possession(ORIGIN, &old_did, &new_key);
        self.must(old, Body::Rotate(Rotate { old: old_did, new: new_key.public().did(), pop }));
    }

    pub(super) fn revoke_key(&mut self, by: &str) {
        let key = self.did(by);
        self.must(by, Body::RevokeKey(RevokeKey { key, compromised_from: None }));
    }
}

pub(super) fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
