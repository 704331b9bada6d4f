//! People whom an identity provider vouches for: their groups are their token's, their statements are none.

use std::sync::Arc;

use schemas_identity::statement::{GranteeKind, Role};
use schemas_identity::token::Vouched;
use schemas_identity::{Body, Did};

use super::world::World;
use crate::{Decision, Point, Reason, Request, Resolution, Use, compile, decide, named_subjects};

/// Somebody without a key.
fn nobody() -> Did {
    let mut first = 2;
    // Bytes that count up: some are points.
    let mut bytes = || {
        first += 1;
        [first; 32]
    };
    Did::of_nobody(&mut bytes).unwrap()
}

fn vouched(roles: &[&str], studies: &[&str]) -> Option<Arc<Vouched>> {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let issuer = "https://id.example".to_owned();
    Some(Arc::new(Vouched { issuer, roles: set(roles), studies: set(studies), purposes: set(&["HRESCH"]) }))
}

/// Anna wears a watch and grants `kind value`; the role and study exist and list whoever `listed` names.
fn world(kind: GranteeKind, value: &str, listed: &[&str]) -> World {
    let mut world = World::new();
    world.enrol("watch");
    world.bind("anna", "watch", None, None);
    world.role("ward", listed, &["HRESCH"], Some(10));
    world.study("sleep", listed, (&["HRESCH"], &[]), Some(10));
    let body = world.body("anna", kind, value);
    world.must("anna", Body::Grant(body));
    world
}

fn reason(
    world: &mut World,
    principal: Did,
    vouched: Option<Arc<Vouched>>,
    study: Option<&str>,
) -> Option<Reason> {
    let request = Request {
        principal,
        vouched,
        purpose: "HRESCH".into(),
        study: study.map(str::to_owned),
        resolution: Resolution::Raw,
        use_: Use::Rows,
        now_us: 5,
    };
    let at = Point { subject: world.did("anna"), device: world.device("watch"), signal: 1, ts_us: 0 };
    let decision = decide(&world.state, &world.register, &request, &at);
    let spans = compile(&world.state, &world.register, &request);
    assert_eq!(decision.is_permit(), !spans.is_empty());
    match decision {
        Decision::Permit { .. } => None,
        Decision::Deny { reason } => Some(reason),
    }
}

/// Guarantee (F7): a grant to a role or study speaks to somebody vouched for if and only if the token says so now. Being in
/// the operator's list does not help who is no longer in the claim, and a list does not matter to who is.
#[test]
fn groups_are_the_tokens() {
    let mut ward = world(GranteeKind::Role, "ward", &[]);
    let somebody = nobody();
    assert_eq!(reason(&mut ward, somebody, vouched(&["ward"], &[]), None), None);
    assert_eq!(reason(&mut ward, somebody, vouched(&[], &[]), None), Some(Reason::NoGrant));
    assert_eq!(reason(&mut ward, somebody, vouched(&["other"], &["ward"]), None), Some(Reason::NoGrant));
    assert_eq!(reason(&mut ward, somebody, None, None), Some(Reason::NoGrant));
    // Listed by the operator, as a person with a key would be; the claim is gone.
    let mut listed = world(GranteeKind::Role, "ward", &["rita"]);
    let rita = listed.did("rita");
    assert_eq!(reason(&mut listed, rita, None, None), None);
    assert_eq!(reason(&mut listed, rita, vouched(&[], &[]), None), Some(Reason::NoGrant));
    let mut study = world(GranteeKind::Study, "sleep", &["rita"]);
    assert_eq!(reason(&mut study, somebody, vouched(&[], &["sleep"]), Some("sleep")), None);
    assert_eq!(reason(&mut study, rita, vouched(&["sleep"], &[]), Some("sleep")), Some(Reason::NotAMember));
    assert_eq!(reason(&mut study, somebody, vouched(&[], &["sleep"]), None), Some(Reason::NoGrant));
}

/// Guarantee (F7): a role that the operator ended or narrowed is of no use, whatever the token says; one that was never
/// made neither.
#[test]
fn a_role_is_still_the_operators() {
    let mut ward = world(GranteeKind::Role, "ward", &[]);
    let role = |purposes: &[&str], to| Role {
        role: "ward".into(),
        title: String::new(),
        members: vec![],
        purposes: purposes.iter().map(|purpose| (*purpose).to_owned()).collect(),
        from: None,
        to,
    };
    let ask = || vouched(&["ward"], &[]);
    ward.must("operator", Body::Role(role(&["TREAT"], None)));
    assert_eq!(reason(&mut ward, nobody(), ask(), None), Some(Reason::PurposeNotOfGroup));
    ward.must("operator", Body::Role(role(&[], Some(5))));
    assert_eq!(reason(&mut ward, nobody(), ask(), None), Some(Reason::NotInForce));
    ward.must("operator", Body::Role(role(&[], None)));
    assert_eq!(reason(&mut ward, nobody(), ask(), None), None);
    let mut never = world(GranteeKind::Role, "never made", &[]);
    assert_eq!(reason(&mut never, nobody(), vouched(&["never made"], &[]), None), Some(Reason::NoGrant));
}

/// Guarantee: a deny to a role closes for somebody vouched for if the token or the operator's list says that they have it;
/// a grant to their own name opens, a deny to it closes, and they are nobody's subject.
#[test]
fn denies_are_wider_and_names_work() {
    let mut ward = world(GranteeKind::Role, "ward", &["rita"]);
    let rita = ward.did("rita");
    let deny = ward.body("anna", GranteeKind::Role, "ward");
    ward.must("anna", Body::Deny(deny));
    for (who, claims) in [(nobody(), vouched(&["ward"], &[])), (rita, vouched(&[], &[]))] {
        assert!(matches!(reason(&mut ward, who, claims, None), Some(Reason::Denied { .. })));
    }
    let mut named = world(GranteeKind::Party, "rita", &[]);
    let mut grant = named.body("anna", GranteeKind::Party, "rita");
    grant.grantee.value = nobody().to_string();
    named.must("anna", Body::Grant(grant.clone()));
    assert_eq!(reason(&mut named, nobody(), vouched(&[], &[]), None), None);
    grant.prev = None;
    named.must("anna", Body::Deny(grant));
    assert!(matches!(
        reason(&mut named, nobody(), vouched(&["ward"], &[]), None),
        Some(Reason::Denied { .. })
    ));
    let request = Request {
        principal: nobody(),
        vouched: vouched(&["ward"], &[]),
        purpose: "HRESCH".into(),
        study: None,
        resolution: Resolution::Raw,
        use_: Use::Rows,
        now_us: 5,
    };
    assert!(!named_subjects(&named.state, &named.register, &request).contains(&nobody()));
}
