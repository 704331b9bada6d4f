//! The golden matrix: `golden/decisions.txt` tells a story in plain lines and lists the answer to each question.
//!
//! `VITALOG_BLESS=1 cargo test -p schemas-consent golden` rewrites the answers; whoever commits that has read them.

use std::collections::HashMap;
use std::fmt::Write as _;

use schemas_identity::statement::{Devices, GranteeKind, RevokeTarget};
use schemas_identity::time::parse_rfc3339_us;
use schemas_identity::{Body, GrantBody, StatementId};
use schemas_signals::Registry;

use super::world::{World, owned};
use crate::{Decision, Point, Request, Resolution, Use, decide};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/decisions.txt");

/// Each answer in the matrix is the answer given.
#[test]
fn golden_matrix() {
    let told = std::fs::read_to_string(PATH).unwrap();
    let answered = Story::new().run(&told);
    if std::env::var_os("VITALOG_BLESS").is_some() {
        std::fs::write(PATH, &answered).unwrap();
    }
    for (line, (told, answered)) in told.lines().zip(answered.lines()).enumerate() {
        assert_eq!(told, answered, "line {}", line + 1);
    }
}

struct Story {
    world: World,
    names: HashMap<String, StatementId>,
}

fn day(text: &str) -> i64 {
    let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { format!("{text}:00Z") };
    parse_rfc3339_us(&full).unwrap()
}

fn ends(text: &str) -> (Option<i64>, Option<i64>) {
    let (from, to) = text.split_once("..").unwrap();
    let end = |text: &str| (!text.is_empty()).then(|| day(text));
    (end(from), end(to))
}

impl Story {
    /// Anna wears watch1 until March and watch2 from then on; Ben wears watch1 from March on.
    fn new() -> Story {
        let mut world = World::new();
        for device in ["watch1", "watch2"] {
            world.enrol(device);
        }
        let march = Some(day("2026-03-01"));
        world.bind("anna", "watch1", None, march);
        world.bind("anna", "watch2", march, None);
        world.bind("ben", "watch1", march, None);
        world.role("clinician", &["cleo"], &[], None);
        world.role("nurse", &["nils"], &["TREAT"], Some(day("2026-09-01")));
        world.study("sleep", &["rita"], (&["HRESCH"], &["HMB"]), Some(day("2027-01-01")));
        Story { world, names: HashMap::new() }
    }

    fn run(&mut self, told: &str) -> String {
        let mut out = String::new();
        for line in told.lines() {
            if let Some(said) = line.strip_prefix("say ") {
                self.say(said);
                writeln!(out, "{line}").unwrap();
            } else if let Some(asked) = line.strip_prefix("| ").filter(|rest| !rest.starts_with("who ")) {
                let (question, _) = asked.split_once("->").unwrap();
                writeln!(out, "| {question}-> {}", self.answer(question)).unwrap();
            } else {
                writeln!(out, "{line}").unwrap();
            }
        }
        out
    }

    fn say(&mut self, said: &str) {
        let (said, name) = said.split_once(" as ").unwrap_or((said, ""));
        let words: Vec<&str> = said.split_whitespace().collect();
        let id = match words[..] {
            [who, "grants", ref terms @ ..] => {
                let body = self.terms(who, terms);
                self.world.must(who, Body::Grant(body))
            }
            [who, "denies", ref terms @ ..] => {
                let body = self.terms(who, terms);
                self.world.must(who, Body::Deny(body))
            }
            [who, "revokes", "everything"] => self.world.revoke(who, RevokeTarget::All).unwrap(),
            [who, "revokes", grant] => self.world.revoke(who, RevokeTarget::One(self.names[grant])).unwrap(),
            [who, "freezes", subject] => self.world.freeze(who, subject).unwrap(),
            [who, "breaks-glass-for", subject, "at", at] => {
                self.world.break_glass(who, subject, day(at) / 1_000_000).unwrap()
            }
            [who, "asks-to-be-erased"] => self.world.erase(who).unwrap(),
            _ => panic!("unclear: {said}"),
        };
        self.names.insert(name.trim().to_owned(), id);
    }

    fn terms(&mut self, who: &str, terms: &[&str]) -> GrantBody {
        let mut grantee = terms[0].split(':');
        let kind = match grantee.next().unwrap() {
            "party" => GranteeKind::Party,
            "role" => GranteeKind::Role,
            "study" => GranteeKind::Study,
            other => panic!("unclear: {other}"),
        };
        let mut body = self.world.body(who, kind, grantee.next().unwrap());
        for term in &terms[1..] {
            let (name, value) = term.split_once('=').unwrap();
            let list = || owned(&value.split(',').collect::<Vec<_>>());
            match name {
                "signals" => body.signals = list(),
                "purposes" => body.purposes = list(),
                "duo" => body.duo = list(),
                "devices" => {
                    body.devices =
                        Devices::Only(value.split(',').map(|name| self.world.short(name)).collect());
                }
                "resolution" => body.resolution = value.into(),
                "export" => body.export = value.into(),
                "data" => (body.data_from, body.data_to) = ends(value),
                "valid" => (body.valid_from, body.valid_to) = ends(value),
                other => panic!("unclear: {other}"),
            }
        }
        body
    }

    fn answer(&mut self, question: &str) -> String {
        let cells: Vec<&str> = question.split('|').map(str::trim).collect();
        let [who, purpose, study, whose, signal, device, measured, resolution, use_, asked] = cells[..]
        else {
            panic!("unclear: {question}")
        };
        let request = Request {
            principal: self.world.did(who),
            vouched: None,
            purpose: purpose.into(),
            study: (study != "-").then(|| study.to_owned()),
            resolution: Resolution::parse(resolution).unwrap(),
            use_: match use_ {
                "rows" => Use::Rows,
                "page" => Use::Page,
                "group" => Use::Aggregate,
                other => panic!("unclear: {other}"),
            },
            now_us: day(asked),
        };
        let signal = match Registry::builtin().by_name(signal) {
            Some(signal) => signal.id,
            None => 255,
        };
        let at = Point {
            subject: self.world.did(whose),
            device: self.world.device(device),
            signal,
            ts_us: day(measured),
        };
        match decide(&self.world.state, &self.world.register, &request, &at) {
            Decision::Permit { .. } => "permit".into(),
            Decision::Deny { reason } => format!("deny: {reason}"),
        }
    }
}
