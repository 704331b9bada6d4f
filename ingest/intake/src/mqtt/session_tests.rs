//! The protocol, packet by packet, without a socket.

use std::sync::Arc;

use super::*;

const LIMITS: Limits = Limits {
    packet_bytes_max: 1_000,
    receive_max: 2,
    subscriptions_max: 2,
    keep_alive_s_max: 600,
    topic_alias_max: 2,
};
const MINE: ShortId = ShortId([1; 8]);
const OTHER: ShortId = ShortId([2; 8]);

fn hello(version: Version) -> Hello {
    Hello {
        version,
        client_id: "watch".into(),
        clean: true,
        session_expiry_s: 0,
        keep_alive_s: 60,
        username: Some("u".into()),
        password: None,
        has_will: false,
        wants_auth_exchange: false,
        reasons_wanted: true,
        packet_bytes_max: None,
        receive_max: 1,
    }
}

fn fresh() -> Session {
    Session::new(LIMITS, "assigned-1".into())
}

fn admit(allowed: Allowed) -> Result<Admitted, ()> {
    Ok(Admitted { allowed, resumed: None, session_expiry_s: 0 })
}

fn open(version: Version) -> Session {
    let mut session = fresh();
    session.on(Inbound::Connect(Box::new(hello(version))));
    let only = Allowed::Only(Arc::new([MINE].into_iter().collect()));
    assert_eq!(session.admitted(admit(only)).len(), 1);
    session
}

fn publish(topic: &str, pkid: Option<u16>) -> Inbound {
    let payload = Bytes::from_static(b"x");
    Inbound::Publish(Publish { topic: topic.into(), pkid, retain: false, alias: None, payload })
}

fn mine(pkid: Option<u16>) -> Inbound {
    publish(&format!("v1/d/{MINE}/frames"), pkid)
}

fn take() -> Action {
    Action::Take { device: MINE, payload: Bytes::from_static(b"x") }
}

fn puback(pkid: u16, ack: Ack) -> Action {
    Action::Send(Outbound::PubAck { pkid, ack, hint: None })
}

fn filter(path: String) -> Filter {
    Filter { path, at_least_once: true, latest: Latest::Always }
}

/// A client without an id gets one, keep-alive 0 gets the longest, and both are told.
#[test]
fn connect_is_answered_with_what_holds() {
    let mut session = fresh();
    let mut nameless = hello(Version::V5);
    nameless.client_id.clear();
    nameless.keep_alive_s = 0;
    nameless.has_will = true;
    let asked = session.on(Inbound::Connect(Box::new(nameless)));
    let ask = Asked {
        client_id: "assigned-1".into(),
        username: Some("u".into()),
        password: None,
        clean: true,
        session_expiry_s: 0,
    };
    assert_eq!(asked, [Action::WillIgnored, Action::Authenticate(Box::new(ask))]);
    let welcome = Welcome {
        session_present: false,
        session_expiry_s: 0,
        topic_alias_max: 2,
        receive_max: 2,
        packet_bytes_max: 1_000,
        keep_alive_s: Some(600),
        assigned_client_id: Some("assigned-1".into()),
    };
    assert_eq!(session.admitted(admit(Allowed::All)), [Action::Send(Outbound::ConnAck(Box::new(welcome)))]);
    assert_eq!(session.keep_alive_s(), 600);
}

/// A refused client is told and let go; nothing else is looked at.
#[test]
fn refusals_of_connect() {
    let mut session = fresh();
    session.on(Inbound::Connect(Box::new(hello(Version::V4))));
    assert_eq!(session.admitted(Err(())), refuse(Refusal::Credentials));
    assert!(!session.is_open());

    let mut kept = hello(Version::V4);
    kept.client_id.clear();
    kept.clean = false;
    assert_eq!(fresh().on(Inbound::Connect(Box::new(kept))), refuse(Refusal::ClientId));

    let mut long = hello(Version::V5);
    long.client_id = "x".repeat(NAME_BYTES_MAX + 1);
    assert_eq!(fresh().on(Inbound::Connect(Box::new(long))), refuse(Refusal::ClientId));

    let mut exchange = hello(Version::V5);
    exchange.wants_auth_exchange = true;
    assert_eq!(fresh().on(Inbound::Connect(Box::new(exchange))), refuse(Refusal::AuthMethod));
    assert!(matches!(fresh().on(Inbound::PingReq)[..], [Action::End(End::Protocol(_))]));
}

/// Nothing is acknowledged before it is decided, and then in order of arrival, QoS 0 in between or not.
#[test]
fn pubacks_come_after_the_verdict_and_in_order() {
    let mut session = open(Version::V5);
    assert_eq!(session.on(mine(Some(1))), [take()]);
    assert_eq!(session.on(mine(None)), [take()]);
    assert_eq!(session.on(mine(Some(2))), [take()]);
    assert_eq!(session.decided(Ack::Accepted, None), [puback(1, Ack::Accepted)]);
    assert_eq!(session.decided(Ack::Accepted, None), []);
    assert_eq!(session.decided(Ack::Format, None), [puback(2, Ack::Format)]);
}

/// A refusal at the door does not overtake the publish before it.
#[test]
fn a_refusal_waits_for_its_turn() {
    let mut session = open(Version::V5);
    session.on(mine(Some(1)));
    assert_eq!(session.on(publish(&format!("v1/d/{OTHER}/frames"), Some(2))), []);
    let both = [puback(1, Ack::Accepted), puback(2, Ack::NotAuthorized)];
    assert_eq!(session.decided(Ack::Accepted, None), both);
    assert_eq!(session.on(publish("elsewhere", Some(3))), [puback(3, Ack::Topic)]);
}

/// Where a refusal has no words (3.1.1, QoS 0) the connection ends: an acknowledgement would say "stored".
#[test]
fn wordless_refusals_end_the_connection() {
    let foreign = format!("v1/d/{OTHER}/frames");
    for (version, pkid) in [(Version::V4, Some(1)), (Version::V4, None), (Version::V5, None)] {
        assert_eq!(open(version).on(publish(&foreign, pkid)), [Action::End(End::NotAuthorized)]);
        assert_eq!(open(version).on(publish("elsewhere", pkid)), [Action::End(End::Topic)]);
    }
}

/// What CONNACK forbade is refused with its own reason.
#[test]
fn declared_limits_hold() {
    let mut session = open(Version::V5);
    session.on(mine(Some(1)));
    session.on(mine(Some(2)));
    assert_eq!(session.on(mine(Some(3))), [Action::End(End::ReceiveMax)]);

    let with = |retain, alias| {
        Inbound::Publish(Publish {
            topic: format!("v1/d/{MINE}/frames"),
            pkid: Some(1),
            retain,
            alias,
            payload: Bytes::new(),
        })
    };
    assert_eq!(open(Version::V5).on(with(true, None)), [Action::End(End::Retain)]);
    for alias in [0, 3] {
        assert_eq!(open(Version::V5).on(with(false, Some(alias))), [Action::End(End::TopicAlias)]);
    }
    assert!(matches!(open(Version::V4).on(with(true, None))[..], [Action::Take { .. }]));
    let with_id = Inbound::Subscribe { pkid: 1, filters: Vec::new(), has_id: true };
    assert_eq!(open(Version::V5).on(with_id), [Action::End(End::SubscriptionId)]);
}

/// 3.1.1 has no receive maximum; the rim stops reading instead.
#[test]
fn receive_maximum_is_of_version_5() {
    let mut session = open(Version::V4);
    for pkid in 1..=10 {
        assert_eq!(session.on(mine(Some(pkid))), [take()]);
    }
}

/// Exactly one's own verdict topics may be subscribed to; each filter has its own answer.
#[test]
fn only_own_verdicts_are_subscribed() {
    let mut session = open(Version::V5);
    let filters = vec![
        filter(format!("v1/d/{MINE}/verdict")),
        filter(format!("v1/d/{OTHER}/verdict")),
        filter("v1/d/+/verdict".into()),
        filter("#".into()),
        filter(format!("$share/g/v1/d/{MINE}/verdict")),
        filter(format!("v1/d/{MINE}/frames")),
    ];
    let codes = vec![
        SubCode::AtLeastOnce,
        SubCode::NotAuthorized,
        SubCode::Wildcard,
        SubCode::Wildcard,
        SubCode::Shared,
        SubCode::NotAuthorized,
    ];
    assert_eq!(
        session.on(Inbound::Subscribe { pkid: 9, filters, has_id: false }),
        [
            Action::Send(Outbound::SubAck { pkid: 9, codes }),
            Action::Subscribe { device: MINE, at_least_once: true, send_latest: true }
        ]
    );
    let filters = vec![format!("v1/d/{MINE}/verdict"), "never".into()];
    assert_eq!(
        session.on(Inbound::Unsubscribe { pkid: 10, filters }),
        [
            Action::Unsubscribe { device: MINE },
            Action::Send(Outbound::UnsubAck { pkid: 10, existed: vec![true, false] })
        ]
    );
    assert!(session.verdict(MINE, Standing::default()).is_none(), "nothing is sent after unsubscribing");
}

/// Retain handling decides whether the latest verdict is sent.
#[test]
fn retain_handling_is_obeyed() {
    let mut session = open(Version::V5);
    let mut sends_latest = |latest| {
        let filters = vec![Filter { path: format!("v1/d/{MINE}/verdict"), at_least_once: false, latest }];
        match session.on(Inbound::Subscribe { pkid: 1, filters, has_id: false }).pop() {
            Some(Action::Subscribe { send_latest, .. }) => send_latest,
            other => panic!("{other:?}"),
        }
    };
    assert!(!sends_latest(Latest::Never));
    assert!(!sends_latest(Latest::IfNew));
    assert!(sends_latest(Latest::Always));
}

/// Subscriptions of one connection are bounded, renewing one is not counted again.
#[test]
fn subscriptions_are_bounded() {
    let mut session = fresh();
    session.on(Inbound::Connect(Box::new(hello(Version::V5))));
    session.admitted(admit(Allowed::All));
    let mut code = |device: u8| {
        let filters = vec![filter(format!("v1/d/{}/verdict", ShortId([device; 8])))];
        match &session.on(Inbound::Subscribe { pkid: 1, filters, has_id: false })[..] {
            [Action::Send(Outbound::SubAck { codes, .. }), ..] => codes[0],
            other => panic!("{other:?}"),
        }
    };
    let codes = [code(1), code(2), code(2), code(3)];
    assert_eq!(codes, [SubCode::AtLeastOnce, SubCode::AtLeastOnce, SubCode::AtLeastOnce, SubCode::Quota]);
}

/// A client that does not acknowledge its verdicts gets no more than it said it can take.
#[test]
fn verdicts_respect_the_clients_receive_maximum() {
    let mut session = open(Version::V5);
    assert!(session.may_send_verdict());
    session.on(Inbound::Subscribe {
        pkid: 1,
        filters: vec![filter(format!("v1/d/{MINE}/verdict"))],
        has_id: false,
    });
    let Some(Outbound::Publish { pkid: Some(pkid), topic, .. }) = session.verdict(MINE, Standing::default())
    else {
        panic!("a QoS 1 message")
    };
    assert_eq!(topic, format!("v1/d/{MINE}/verdict"));
    assert!(!session.may_send_verdict());
    assert_eq!(session.on(Inbound::PubAck { pkid: pkid + 1 }), [], "an unknown id changes nothing");
    assert!(!session.may_send_verdict());
    session.on(Inbound::PubAck { pkid });
    assert!(session.may_send_verdict());
}

/// Packet ids go round without 0 and without one still in use.
#[test]
fn packet_ids_go_round() {
    let mut session = open(Version::V4);
    let State::Open(open) = &mut session.state else { panic!() };
    open.next_pkid = u16::MAX - 1;
    open.unacked_verdicts.insert(1, (MINE, Standing::default()));
    assert_eq!([open.take_pkid(), open.take_pkid()], [u16::MAX, 2]);
}

/// Every end that a v5 client can be told has a reason of 0x80 or above.
#[test]
fn reasons_are_errors() {
    let ends =
        [End::Malformed("x"), End::Pressure, End::Shutdown, End::TakenOver, End::QosUnsupported, End::Slow];
    let codes: Vec<u8> = ends.iter().filter_map(|end| end.disconnect()).map(|(code, _)| code as u8).collect();
    assert_eq!(codes, [0x81, 0x97, 0x8b, 0x8e, 0x9b, 0x97]);
    assert_eq!(End::Client.disconnect(), None);
}

/// An alias stands for the topic it was set to, until it is set anew; one never set ends the connection.
#[test]
fn aliases_stand_for_topics() {
    let aliased = |topic: String, alias| {
        let payload = Bytes::from_static(b"x");
        Inbound::Publish(Publish { topic, pkid: Some(1), retain: false, alias: Some(alias), payload })
    };
    let mut session = open(Version::V5);
    assert_eq!(session.on(aliased(format!("v1/d/{MINE}/frames"), 1)), [take()]);
    assert_eq!(session.on(aliased(String::new(), 1)), [take()]);
    session.decided(Ack::Accepted, None);
    session.decided(Ack::Accepted, None);
    assert_eq!(session.on(aliased(format!("v1/d/{OTHER}/frames"), 1)), [puback(1, Ack::NotAuthorized)]);
    assert_eq!(session.on(aliased(String::new(), 1)), [puback(1, Ack::NotAuthorized)]);
    assert_eq!(session.on(aliased("elsewhere".into(), 2)), [puback(1, Ack::Topic)]);
    assert_eq!(session.on(aliased(String::new(), 2)), [puback(1, Ack::Topic)]);
    assert_eq!(open(Version::V5).on(aliased(String::new(), 1)), [Action::End(End::TopicAlias)]);
}

fn resumed(allowed: Allowed) -> (Session, Vec<Action>) {
    let mut session = fresh();
    let returning = Hello { clean: false, session_expiry_s: 50, ..hello(Version::V5) };
    session.on(Inbound::Connect(Box::new(returning)));
    let resumed = Some([(MINE, true), (OTHER, false)].into());
    let actions = session.admitted(Ok(Admitted { allowed, resumed, session_expiry_s: 50 }));
    (session, actions)
}

/// A resumed session goes on with its subscriptions, but not with those its identity has lost meanwhile.
#[test]
fn a_resumed_session_keeps_what_is_still_allowed() {
    let only = Allowed::Only(Arc::new([MINE].into_iter().collect()));
    let (mut session, actions) = resumed(only);
    let [Action::Send(Outbound::ConnAck(welcome)), Action::Unsubscribe { device: OTHER }] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert!(welcome.session_present && welcome.session_expiry_s == 50);
    assert!(session.verdict(MINE, Standing::default()).is_some());
    assert!(session.verdict(OTHER, Standing::default()).is_none());
    assert_eq!(
        session.take_unacked(),
        [(MINE, Standing::default())],
        "said again when it comes back once more"
    );
}

/// DISCONNECT may shorten the session but neither begin nor lengthen one.
#[test]
fn disconnect_may_shorten_the_session() {
    for (told, left) in [(None, 50), (Some(0), 0), (Some(20), 20), (Some(500), 50)] {
        let (mut session, _) = resumed(Allowed::All);
        let bye = Inbound::Disconnect { session_expiry_s: told };
        assert_eq!(session.on(bye), [Action::End(End::Client)]);
        assert_eq!(session.session_expiry_s(), left);
    }
    let bye = Inbound::Disconnect { session_expiry_s: Some(1) };
    assert!(matches!(open(Version::V5).on(bye)[..], [Action::End(End::Protocol(_))]));
}
