//! Tokens against thieves, crashes, torn and damaged files, and people who fill lists.

mod provided;

use std::fs;
use std::sync::Arc;

use proptest::prelude::*;
use query_consents::{Ask, Consents, Refusal};
use schemas_identity::statement::{RevokeKey, Role, Rotate, proof_of_possession, sign};
use schemas_identity::token::{Scope, Token, issue};
use schemas_identity::{Body, Did, SecretKey, Statement};
use tempfile::TempDir;

use super::*;

const ORIGIN: &str = "example.org/log";
const NOW_S: i64 = 1_800_000_000;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn did(seed: u8) -> Did {
    key(seed).public().did()
}

fn token(seed: u8, jti: &str) -> Token {
    Token {
        iss: did(seed),
        jti: jti.into(),
        purpose: "HRESCH".into(),
        study: Some("sleep".into()),
        vouched: None,
        scope: Scope::Sql,
        iat_s: NOW_S,
        exp_s: NOW_S + 3_600,
    }
}

fn text(seed: u8, jti: &str) -> String {
    issue(&token(seed, jti), ORIGIN, &key(seed))
}

/// A deployment with one operator (key 1), whose process can die and come back.
struct World {
    dir: TempDir,
    consents: Arc<Consents>,
    tokens: Tokens,
}

impl World {
    fn new() -> World {
        let dir = TempDir::new().unwrap();
        let (consents, tokens) = World::start(&dir, NOW_S);
        World { dir, consents, tokens }
    }

    fn start(dir: &TempDir, now_s: i64) -> (Arc<Consents>, Tokens) {
        let consents = Arc::new(Consents::new(ORIGIN, vec![did(1)], &[7; 32]));
        let tokens = Tokens::open(&dir.path().join("tokens"), ORIGIN, consents.clone(), now_s).unwrap();
        (consents, tokens)
    }

    /// The process is gone without a word, and another one opens what it left.
    fn killed(&mut self, now_s: i64) {
        (self.consents, self.tokens) = World::start(&self.dir, now_s);
    }

    fn journal(&self) -> std::path::PathBuf {
        self.dir.path().join("tokens/journal")
    }

    fn admitted(&self, seed: u8, jti: &str) -> bool {
        self.tokens.admit(&text(seed, jti), NOW_S).is_ok()
    }

    fn say(&self, signer: u8, body: &Body) {
        let epoch = self.consents.epoch() + 1;
        let compact = sign(body, ORIGIN, NOW_S, u128::from(epoch).to_le_bytes(), &key(signer));
        self.consents.apply(&Statement::parse(&compact, ORIGIN).unwrap(), epoch, epoch).unwrap();
    }
}

/// Guarantee: a revoked token is refused, one of another id or another key is not, and a kill changes nothing about it.
#[test]
fn a_revocation_outlives_a_kill() {
    let mut world = World::new();
    assert!(world.admitted(2, "a") && world.admitted(2, "b") && world.admitted(3, "a"));
    world.tokens.revoke(&token(2, "b"), Target::One("a"), NOW_S).unwrap();
    for _ in 0..3 {
        assert_eq!(world.tokens.admit(&text(2, "a"), NOW_S), Err(NotAdmitted::Revoked));
        assert!(world.admitted(2, "b") && world.admitted(3, "a"));
        world.killed(NOW_S);
    }
    // One that was never used here, too.
    world.tokens.revoke(&token(2, "b"), Target::One("stolen"), NOW_S).unwrap();
    world.killed(NOW_S);
    assert!(!world.admitted(2, "stolen") && world.admitted(3, "stolen"));
}

/// Guarantee: whoever stays with a token that was admitted is told when it ends: by time, by revocation, with its key.
#[test]
fn a_token_holds_until_it_ends() {
    let world = World::new();
    let [stays, lost] = ["stays", "lost"].map(|jti| world.tokens.admit(&text(2, jti), NOW_S).unwrap());
    let hold = |now_s| [&stays, &lost].map(|token| world.tokens.holds(token, now_s));
    assert_eq!([hold(NOW_S), hold(stays.exp_s - 1), hold(stays.exp_s)], [[true; 2], [true; 2], [false; 2]]);
    world.tokens.revoke(&stays, Target::One("lost"), NOW_S).unwrap();
    assert_eq!(hold(NOW_S), [true, false]);
    world.say(2, &Body::RevokeKey(RevokeKey { key: did(2), compromised_from: None }));
    assert_eq!(hold(NOW_S), [false; 2]);
}

/// Guarantee: revoking all ends what is there, those of clocks that are ahead included, and nothing issued later.
#[test]
fn all_until_now() {
    let mut world = World::new();
    let ahead = Token { iat_s: NOW_S + 50, exp_s: NOW_S + 600, ..token(2, "ahead") };
    world.tokens.admit(&issue(&ahead, ORIGIN, &key(2)), NOW_S).unwrap();
    world.tokens.revoke(&token(2, "a"), Target::All, NOW_S).unwrap();
    world.killed(NOW_S);
    let later = Token { iat_s: NOW_S + 51, exp_s: NOW_S + 600, ..token(2, "later") };
    assert!(!world.admitted(2, "a") && !world.admitted(2, "never seen"));
    assert!(world.tokens.admit(&issue(&ahead, ORIGIN, &key(2)), NOW_S + 51).is_err());
    assert!(world.tokens.admit(&issue(&later, ORIGIN, &key(2)), NOW_S + 51).is_ok());
    assert!(world.admitted(3, "a"));
    assert_eq!(world.tokens.list(&did(2)).revoked_until_s, Some(NOW_S + 50));
}

/// Guarantee: a query that runs on a revoked token is not current, and a request that was let in before the revocation
/// gets no warrant after it; other tokens of the same party go on.
#[test]
fn running_queries_end() {
    let world = World::new();
    let (mine, other) = (token(2, "a"), token(2, "b"));
    let ask = |token: &Token| {
        let token = Token { study: None, ..token.clone() };
        world.consents.warrant(Ask::rows(&token, NOW_S * 1_000_000))
    };
    let (running, beside) = (ask(&mine).unwrap(), ask(&other).unwrap());
    let derived = running.for_use(running.request().use_, running.request().resolution);
    assert!(running.is_current() && beside.is_current() && derived.is_current());
    world.tokens.revoke(&other, Target::One("a"), NOW_S).unwrap();
    assert!(!running.is_current() && !derived.is_current() && beside.is_current());
    assert_eq!(ask(&mine).unwrap_err(), Refusal::TokenRevoked);
    // A statement in between cuts a new snapshot; that changes nothing.
    let role = Role {
        role: "r".into(),
        title: String::new(),
        members: vec![],
        purposes: vec![],
        from: None,
        to: None,
    };
    world.say(1, &Body::Role(role));
    assert!(!running.is_current() && beside.is_current());
    assert_eq!(ask(&mine).unwrap_err(), Refusal::TokenRevoked);
    world.tokens.revoke(&other, Target::All, NOW_S).unwrap();
    assert!(!beside.is_current());
}

/// Guarantee: owners see their own tokens and nobody else's, with uses, by every key that was theirs; a revoked id is
/// listed even if it was never used.
#[test]
fn the_list_is_the_owners() {
    let mut world = World::new();
    world.tokens.admit(&text(2, "a"), NOW_S).unwrap();
    world.tokens.admit(&text(2, "a"), NOW_S + 100).unwrap();
    world.tokens.admit(&text(3, "theirs"), NOW_S).unwrap();
    world.tokens.keep(NOW_S + 100).unwrap();
    world.killed(NOW_S + 100);
    world.tokens.revoke(&token(2, "a"), Target::One("unused"), NOW_S + 100).unwrap();
    let listed = world.tokens.list(&did(2)).tokens;
    let shown: Vec<_> = listed.iter().map(|one| (one.jti.as_str(), one.is_revoked)).collect();
    assert_eq!(shown, [("a", false), ("unused", true)]);
    let seen = listed[0].seen.as_ref().unwrap();
    assert_eq!((seen.first_s, seen.last_s, &seen.token), (NOW_S, NOW_S + 100, &token(2, "a")));
    // The person moves to another key: the old one's tokens are dead, and still shown.
    let pop = proof_of_possession(ORIGIN, &did(2), &key(4));
    world.say(2, &Body::Rotate(Rotate { old: did(2), new: did(4), pop }));
    assert_eq!(world.tokens.admit(&text(2, "a"), NOW_S), Err(NotAdmitted::KeyRevoked));
    assert_eq!(world.tokens.list(&did(4)).tokens.len(), 2);
    assert_eq!(world.tokens.list(&did(3)).tokens.len(), 1);
}

/// Guarantee: forged, foreign, early, late and oversized tokens are refused, and leave no trace to be listed or filled.
#[test]
fn hostile_tokens_leave_no_trace() {
    let world = World::new();
    let good = text(2, "a");
    let (head, signature) = good.rsplit_once('.').unwrap();
    let body = good.split('.').nth(1).unwrap();
    let other = text(3, "a");
    let cases = [
        String::new(),
        "..".into(),
        format!("{head}."),
        format!("{head}.{}", other.rsplit('.').next().unwrap()),
        format!("{}.{body}.{signature}", other.split('.').next().unwrap()),
        format!("{good}."),
        format!("{good} "),
        format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX)),
        issue(&token(2, "a"), "other.example/log", &key(2)),
        issue(&token(3, "a"), ORIGIN, &key(2)),
        issue(&Token { iat_s: NOW_S - 10, exp_s: NOW_S, ..token(2, "a") }, ORIGIN, &key(2)),
        issue(&Token { iat_s: NOW_S + 61, ..token(2, "a") }, ORIGIN, &key(2)),
        issue(&Token { exp_s: NOW_S + 86_401, ..token(2, "a") }, ORIGIN, &key(2)),
        issue(&Token { exp_s: i64::MAX, iat_s: i64::MIN, ..token(2, "a") }, ORIGIN, &key(2)),
        issue(&token(2, ""), ORIGIN, &key(2)),
        issue(&token(2, &"j".repeat(65)), ORIGIN, &key(2)),
    ];
    for case in cases {
        assert!(world.tokens.admit(&case, NOW_S).is_err(), "{case}");
    }
    assert!(world.tokens.list(&did(2)).tokens.is_empty() && world.tokens.list(&did(3)).tokens.is_empty());
    assert!(world.tokens.admit(&good, NOW_S).is_ok());
}

proptest! {
    /// Guarantee: no change of one byte of a token's text makes a token that is admitted, other than the very same one.
    #[test]
    fn one_byte_changed(at in 0_usize..10_000, byte in prop_oneof![4 => b'A'..=b'z', 1 => any::<u8>()]) {
        let world = World::new();
        let good = text(2, "a");
        let mut bytes = good.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(changed) = String::from_utf8(bytes) {
            prop_assert_eq!(world.tokens.admit(&changed, NOW_S).is_ok(), changed == good);
        }
    }

    /// Guarantee: wherever a crash cuts the file, what was there before the last line still holds, and nothing is damage.
    #[test]
    fn torn_tails(cut in 1_usize..200) {
        let mut world = World::new();
        world.tokens.revoke(&token(2, "a"), Target::One("first"), NOW_S).unwrap();
        let kept = fs::metadata(world.journal()).unwrap().len() as usize;
        world.tokens.revoke(&token(2, "a"), Target::One("second"), NOW_S).unwrap();
        let bytes = fs::read(world.journal()).unwrap();
        let left = bytes.len().saturating_sub(cut).max(kept);
        fs::write(world.journal(), &bytes[..left]).unwrap();
        world.killed(NOW_S);
        prop_assert!(!world.admitted(2, "first"));
        prop_assert!(world.admitted(2, "second"));
        prop_assert!(world.admitted(3, "x"));
    }

    /// Guarantee: a changed byte anywhere never brings a revoked token back: all issued so far are refused instead.
    #[test]
    fn damage_fails_closed(at in 0_usize..10_000, byte in any::<u8>()) {
        let mut world = World::new();
        for jti in ["a", "b", "c"] {
            world.tokens.revoke(&token(2, "z"), Target::One(jti), NOW_S).unwrap();
        }
        let mut bytes = fs::read(world.journal()).unwrap();
        // The very last byte is the end of the last line: without it the line is a torn one.
        let at = at % (bytes.len() - 1);
        bytes[at] = byte;
        fs::write(world.journal(), &bytes).unwrap();
        world.killed(NOW_S);
        for jti in ["a", "b", "c"] {
            prop_assert!(!world.admitted(2, jti));
        }
        world.killed(NOW_S);
        prop_assert!(!world.admitted(2, "a"));
        let later = Token { iat_s: NOW_S + 61, exp_s: NOW_S + 600, ..token(2, "later") };
        prop_assert!(world.tokens.admit(&issue(&later, ORIGIN, &key(2)), NOW_S + 61).is_ok());
    }
}

/// Guarantee: the list of a key and single revocations of a key are bounded; the oldest use is forgotten, no revocation is,
/// and all at once stays possible.
#[test]
fn bounds_of_a_key() {
    let world = World::new();
    world.tokens.revoke(&token(2, "0"), Target::One("first"), NOW_S).unwrap();
    for number in 0..SEEN_OF_KEY_MAX + 10 {
        world.admitted(2, &number.to_string());
    }
    let listed = world.tokens.list(&did(2)).tokens;
    assert_eq!(listed.len(), SEEN_OF_KEY_MAX + 1);
    assert!(!listed.iter().any(|one| one.jti == "9") && listed.iter().any(|one| one.jti == "10"));
    assert!(!world.admitted(2, "first"));
    for number in 1..REVOKED_OF_KEY_MAX {
        world.tokens.revoke(&token(2, "0"), Target::One(&format!("r{number}")), NOW_S).unwrap();
    }
    let over = world.tokens.revoke(&token(2, "0"), Target::One("over"), NOW_S);
    assert!(matches!(over, Err(RevokeError::TooMany)), "{over:?}");
    // Said twice is not twice.
    world.tokens.revoke(&token(2, "0"), Target::One("r1"), NOW_S).unwrap();
    world.tokens.revoke(&token(2, "0"), Target::All, NOW_S).unwrap();
    assert!(!world.admitted(2, "over") && !world.admitted(2, "first"));
    for wrong in ["", &"j".repeat(65)] {
        let refused = world.tokens.revoke(&token(2, "0"), Target::One(wrong), NOW_S);
        assert!(matches!(refused, Err(RevokeError::NoSuchId { .. })));
    }
}

/// Guarantee: strangers who revoke under a million keys of their own do not keep a member of a role from revoking, and the
/// room as a whole has an end.
#[test]
fn bounds_of_all() {
    let world = World::new();
    let role = Role {
        role: "clinician".into(),
        title: String::new(),
        members: vec![did(2)],
        purposes: vec![],
        from: None,
        to: None,
    };
    world.say(1, &Body::Role(role));
    let fill = |count: usize, from: usize| {
        for number in from..count {
            let ending = Ending::One { iss: did(9), jti: number.to_string(), forget_s: NOW_S + 10 };
            world.consents.ended().end(&ending);
        }
    };
    fill(REVOKED_BY_STRANGERS_MAX, 0);
    for target in [Target::One("a"), Target::All] {
        let refused = world.tokens.revoke(&token(3, "z"), target, NOW_S);
        assert!(matches!(refused, Err(RevokeError::Full { .. })), "{refused:?}");
        world.tokens.revoke(&token(2, "z"), target, NOW_S).unwrap();
    }
    fill(REVOKED_MAX, REVOKED_BY_STRANGERS_MAX);
    let refused = world.tokens.revoke(&token(2, "z"), Target::One("b"), NOW_S);
    assert!(matches!(refused, Err(RevokeError::Full { .. })), "{refused:?}");
    // What is over makes room.
    world.tokens.keep(NOW_S + 11).unwrap();
    world.tokens.revoke(&token(3, "z"), Target::One("b"), NOW_S + 11).unwrap();
}

/// Guarantee: the listing stays within its bound over all keys, and forgets what is over.
#[test]
fn the_list_of_all_is_bounded() {
    let owners: Vec<Did> = (0_u16..300)
        .map(|number| {
            let mut seed = [0; 32];
            seed[..2].copy_from_slice(&number.to_le_bytes());
            SecretKey::from_seed(&seed).public().did()
        })
        .collect();
    let mut seen = SeenList::default();
    for round in 0..SEEN_OF_KEY_MAX {
        for iss in &owners {
            let exp_s = NOW_S + i64::try_from(round % 2).unwrap();
            seen.note(&Token { iss: *iss, exp_s, ..token(2, &round.to_string()) }, NOW_S);
            assert!(seen.len() <= SEEN_MAX);
        }
    }
    assert_eq!((seen.len(), seen.take_unwritten().len()), (SEEN_MAX, SEEN_MAX));
    let last = seen.of(&owners[299]);
    assert!(last.iter().any(|one| one.token.jti == "127") && !last.iter().any(|one| one.token.jti == "0"));
    seen.forget(NOW_S + 61);
    assert!(seen.len() < SEEN_MAX && seen.len() > SEEN_MAX / 3);
    seen.forget(NOW_S + 62);
    assert!(seen.len() == 0 && seen.keys().is_empty());
}

/// Guarantee: the file does not grow with use: it is written anew when most of it is over, and then holds what is live.
#[test]
fn the_file_is_shortened() {
    let mut world = World::new();
    world.tokens.revoke(&token(2, "z"), Target::One("a"), NOW_S).unwrap();
    for jti in 0..50 {
        world.tokens.admit(&text(2, &jti.to_string()), NOW_S).unwrap();
    }
    for round in 0..200 {
        // A use a minute is written, so the rounds are minutes apart.
        for jti in 0..50 {
            world.tokens.seen.lock().note(&token(2, &jti.to_string()), NOW_S + round * 60);
        }
        world.tokens.keep(NOW_S).unwrap();
    }
    let lines = fs::read_to_string(world.journal()).unwrap().lines().count();
    assert!(lines < 4_096 + 2 * 51 + 60, "{lines} lines");
    world.killed(NOW_S);
    assert_eq!(world.tokens.list(&did(2)).tokens.len(), 51);
    assert!(!world.admitted(2, "a"));
    let lines = fs::read_to_string(world.journal()).unwrap().lines().count();
    assert_eq!(lines, 1 + 51);
}

/// Guarantee: when the file cannot be written, the revocation is refused as not durable and is in force all the same; it
/// becomes durable with the next write that works.
#[test]
fn a_failing_disk() {
    let mut world = World::new();
    let (path, aside) = (world.dir.path().join("tokens"), world.dir.path().join("aside"));
    world.tokens.journal.lock().rewrite(&[]).unwrap();
    fs::rename(&path, &aside).unwrap();
    fs::write(&path, "a file where the folder was").unwrap();
    assert!(world.tokens.journal.lock().rewrite(&[]).is_err());
    let failed = world.tokens.revoke(&token(2, "z"), Target::One("a"), NOW_S);
    assert!(matches!(failed, Err(RevokeError::NotDurable(_))), "{failed:?}");
    assert!(!world.admitted(2, "a"));
    fs::remove_file(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    world.tokens.keep(NOW_S).unwrap();
    world.killed(NOW_S);
    assert!(!world.admitted(2, "a"));
}
