//! The fold: chains, replays, freezes, erasure, limits.

use schemas_identity::statement::{Devices, GranteeKind, RevokeBody, RevokeTarget};
use schemas_identity::{Body, StatementId};

use super::world::World;
use crate::state::IN_FORCE_MAX;
use crate::{Decision, Point, Reason, Refusal, Request, Resolution, Use, decide};

fn worn() -> World {
    let mut world = World::new();
    world.enrol("watch");
    world.bind("anna", "watch", None, None);
    world
}

fn answer(world: &mut World, who: &str, purpose: &str) -> Decision {
    let request = Request {
        principal: world.did(who),
        vouched: None,
        purpose: purpose.into(),
        study: None,
        resolution: Resolution::Raw,
        use_: Use::Rows,
        now_us: 0,
    };
    let at = Point { subject: world.did("anna"), device: world.device("watch"), signal: 1, ts_us: 0 };
    decide(&world.state, &world.register, &request, &at)
}

fn reason(world: &mut World, who: &str) -> Option<Reason> {
    match answer(world, who, "HRESCH") {
        Decision::Permit { .. } => None,
        Decision::Deny { reason } => Some(reason),
    }
}

fn grant(world: &mut World) -> StatementId {
    let body = world.body("anna", GranteeKind::Party, "rita");
    world.must("anna", Body::Grant(body))
}

/// A grant with a stale `prev` is a conflict and changes nothing; deny and revoke are taken whatever `prev` says.
#[test]
fn stale_prev() {
    let mut world = worn();
    let first = world.body("anna", GranteeKind::Party, "rita");
    let head = world.must("anna", Body::Grant(first.clone()));
    let refused = world.say("anna", Body::Grant(first.clone()));
    assert_eq!(refused, Err(Refusal::StalePrev { head: Some(head) }));
    assert!(refused.unwrap_err().is_conflict());
    let invented = crate::tests::world::World::new().must("maker", erase_body());
    let mut ahead = world.body("ben", GranteeKind::Party, "rita");
    ahead.prev = Some(invented);
    assert_eq!(world.say("ben", Body::Grant(ahead)), Err(Refusal::StalePrev { head: None }));
    let anna = world.did("anna");
    assert_eq!(world.state.head(&anna), Some(head));
    let deny = world.must("anna", Body::Deny(first));
    assert_eq!(world.state.head(&anna), Some(deny));
    let revoke = RevokeBody { subject: None, grant: RevokeTarget::All, prev: None };
    let revoke = world.must("anna", Body::Revoke(revoke));
    assert_eq!(world.state.head(&anna), Some(revoke));
}

fn erase_body() -> Body {
    Body::Erase(schemas_identity::statement::Erase { scope: "all".into() })
}

/// No statement is taken twice: an old `revoke *` played again does not end newer grants.
#[test]
fn replays() {
    let mut world = worn();
    grant(&mut world);
    let body = Body::Revoke(RevokeBody { subject: None, grant: RevokeTarget::All, prev: None });
    let revoke = world.statement("anna", 0, &body);
    world.take(&revoke).unwrap();
    grant(&mut world);
    assert_eq!(world.take(&revoke), Err(Refusal::Replayed { id: revoke.id }));
    assert_eq!(reason(&mut world, "rita"), None);
}

/// A revocation ends one grant or all, by the subject only; naming a stranger's grant says the same as naming none.
#[test]
fn revocations() {
    let mut world = worn();
    let id = grant(&mut world);
    assert_eq!(world.revoke("ben", RevokeTarget::One(id)), Err(Refusal::UnknownGrant { id }));
    assert_eq!(reason(&mut world, "rita"), None);
    let by = world.revoke("anna", RevokeTarget::One(id)).unwrap();
    assert_eq!(reason(&mut world, "rita"), Some(Reason::Revoked { by }));
    world.revoke("anna", RevokeTarget::One(id)).unwrap();
    grant(&mut world);
    assert_eq!(reason(&mut world, "rita"), None);
    let by = world.revoke("anna", RevokeTarget::All).unwrap();
    assert_eq!(reason(&mut world, "rita"), Some(Reason::Revoked { by }));
}

/// `revoke *` never opens anything: denies stay. Withdrawing a deny by its id needs a current `prev`.
#[test]
fn denies_outlive_revoke_all() {
    let mut world = worn();
    let body = world.body("anna", GranteeKind::Party, "rita");
    let deny = world.must("anna", Body::Deny(body));
    world.revoke("anna", RevokeTarget::All).unwrap();
    grant(&mut world);
    assert_eq!(reason(&mut world, "rita"), Some(Reason::Denied { by: deny }));
    let stale = RevokeBody { subject: None, grant: RevokeTarget::One(deny), prev: None };
    assert!(matches!(world.say("anna", Body::Revoke(stale)), Err(Refusal::StalePrev { .. })));
    world.revoke("anna", RevokeTarget::One(deny)).unwrap();
    assert_eq!(reason(&mut world, "rita"), None);
}

/// A freeze stops everybody, the subject too, until the subject signs anything; only operator or registrar may freeze.
#[test]
fn freezes() {
    let mut world = worn();
    let id = grant(&mut world);
    let statement = world.freeze("operator", "anna").unwrap();
    assert_eq!(reason(&mut world, "rita"), Some(Reason::Frozen { statement }));
    assert_eq!(reason(&mut world, "anna"), Some(Reason::Frozen { statement }));
    let mut body = world.body("anna", GranteeKind::Party, "someone");
    body.purposes = vec!["TREAT".into()];
    world.must("anna", Body::Deny(body));
    assert_eq!((reason(&mut world, "rita"), reason(&mut world, "anna")), (None, None));
    let did = world.did("anna");
    let body = Body::Freeze(schemas_identity::statement::Freeze { subject: did, reason: "x".into() });
    let forged = world.statement("ben", 0, &body);
    assert!(matches!(world.state.check(&world.register, &forged), Err(Refusal::NotAuthorised { .. })));
    world.freeze("operator", "anna").unwrap();
    world.revoke("anna", RevokeTarget::One(id)).unwrap();
    assert_eq!(reason(&mut world, "anna"), None);
}

/// After an erasure nobody sees anything, and nothing can be granted; deny and revoke are still taken.
#[test]
fn erasure() {
    let mut world = worn();
    grant(&mut world);
    let statement = world.erase("anna").unwrap();
    for who in ["rita", "anna"] {
        assert_eq!(reason(&mut world, who), Some(Reason::Erased { statement }));
    }
    let body = world.body("anna", GranteeKind::Party, "rita");
    assert_eq!(world.say("anna", Body::Grant(body.clone())), Err(Refusal::Erased));
    world.must("anna", Body::Deny(body));
    world.revoke("anna", RevokeTarget::All).unwrap();
    assert_eq!(reason(&mut world, "anna"), Some(Reason::Erased { statement }));
}

/// A person who changed keys is the same person, as subject and as grantee; the old key sees and says nothing more.
#[test]
fn rotated_keys() {
    let mut world = worn();
    grant(&mut world);
    world.rotate("rita", "rita2");
    world.rotate("anna", "anna2");
    assert_eq!((reason(&mut world, "rita2"), reason(&mut world, "anna2")), (None, None));
    assert_eq!(reason(&mut world, "rita"), Some(Reason::DeadKey));
    assert_eq!(reason(&mut world, "anna"), Some(Reason::DeadKey));
    let by = world.revoke("anna2", RevokeTarget::All).unwrap();
    assert_eq!(reason(&mut world, "rita2"), Some(Reason::Revoked { by }));
    world.revoke_key("rita2");
    assert_eq!(reason(&mut world, "rita2"), Some(Reason::DeadKey));
}

/// Nobody grants for another, and fields outside the rules are refused with a code.
#[test]
fn invalid_statements() {
    let mut world = worn();
    let good = world.body("anna", GranteeKind::Party, "rita");
    let forged = world.statement("rita", 0, &Body::Grant(good.clone()));
    assert!(matches!(world.state.check(&world.register, &forged), Err(Refusal::NotTheSubject { .. })));
    let mut check = |code: &str, change: &dyn Fn(&mut schemas_identity::GrantBody)| {
        let mut body = good.clone();
        change(&mut body);
        let refused = world.say("anna", Body::Grant(body)).unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    };
    check("unknown-signal", &|body| body.signals = vec!["heart_rate".into(), "mood".into()]);
    check("invalid", &|body| body.signals = vec![]);
    check("unknown-purpose", &|body| body.purposes = vec!["hresch".into()]);
    check("invalid", &|body| body.purposes = vec![]);
    check("invalid", &|body| body.resolution = "1s".into());
    check("invalid", &|body| body.export = "all".into());
    check("invalid", &|body| body.min_cohort = 4);
    check("invalid", &|body| (body.data_from, body.data_to) = (Some(5), Some(5)));
    check("invalid", &|body| (body.valid_from, body.valid_to) = (Some(6), Some(5)));
    check("invalid", &|body| body.devices = Devices::Only(vec![]));
    check("invalid", &|body| body.grantee.value = "rita".into());
    check("invalid", &|body| body.duo = vec![String::new()]);
}

/// A person has a bounded number of grants in force; revoking makes room.
#[test]
fn limits() {
    let mut world = worn();
    for _ in 0..IN_FORCE_MAX {
        grant(&mut world);
    }
    let body = world.body("anna", GranteeKind::Party, "rita");
    assert!(matches!(world.say("anna", Body::Grant(body)), Err(Refusal::TooMany { .. })));
    world.revoke("anna", RevokeTarget::All).unwrap();
    grant(&mut world);
}

/// Break-glass is for clinicians in office, four hours from the statement's time, vitals only, and never when frozen.
#[test]
fn break_glass() {
    let mut world = worn();
    world.role("clinician", &["cleo"], &[], None);
    let body = world.did("anna");
    let body = schemas_identity::statement::BreakGlass { subject: body, reason: "x".into() };
    let forged = world.statement("rita", 0, &Body::BreakGlass(body));
    assert!(matches!(world.state.check(&world.register, &forged), Err(Refusal::NotAuthorised { .. })));
    world.freeze("operator", "anna").unwrap();
    assert_eq!(world.break_glass("cleo", "anna", 0), Err(Refusal::Frozen));
    world.revoke("anna", RevokeTarget::All).unwrap();
    world.break_glass("cleo", "anna", 0).unwrap();
    assert!(answer(&mut world, "cleo", "ETREAT").is_permit());
    assert!(!answer(&mut world, "cleo", "TREAT").is_permit());
    world.role("clinician", &["other"], &[], None);
    assert!(!answer(&mut world, "cleo", "ETREAT").is_permit());
}
