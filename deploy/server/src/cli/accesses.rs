//! `vitalog access-report`: who read me, why, when, which signals, how many rows; and who was refused. It reads the whole
//! report, counts the running numbers itself, and says in words what is not there.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use schemas_fhir::terms::MEDIA_TYPE;
use schemas_identity::time::format_rfc3339_us;
use schemas_identity::token::Scope;
use serde_json::{Value, json};

use super::{ClientOptions, key, say, say_json};
use crate::Exit;

/// Accesses asked for at once; the server's own limit.
const PAGE: u64 = 200;
/// Most pages read: four million accesses.
const PAGES_MAX: u64 = 20_000;
/// Where the report is.
const PATH: &str = "/v1/me/accesses";

#[derive(Debug, Args)]
pub(crate) struct AccessReportArguments {
    /// The patient's private key.
    #[arg(long)]
    key: PathBuf,
    /// How to print it; `fhir` is a FHIR R4 Bundle of AuditEvent.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each access and what is to be said of the whole.
    Text,
    /// One JSON object, as `--json`.
    Json,
    /// A FHIR R4 Bundle.
    Fhir,
}

/// The whole report and what was counted in it.
#[derive(Debug, Default)]
struct Whole {
    accesses: Vec<Value>,
    newest: u64,
    /// Numbers from 1 to the newest without an access, as inclusive ranges: counted here, not taken from the server.
    missing: Vec<(u64, u64)>,
    /// Records of anybody that the log names and the server lost.
    lost: u64,
    /// Accesses without an end.
    unfinished: usize,
    /// Accesses released before a grant was taken back.
    withdrawn: usize,
}

pub(crate) fn run(arguments: &AccessReportArguments) -> anyhow::Result<Exit> {
    let key = key::read(&arguments.key)?;
    let server = &arguments.client.server;
    let token = server.own_token(&key, "PATRQT", Scope::Sql)?;
    let page = |path: &str, accept: &str| {
        let answer = server.get_as(path, &token, accept)?;
        if answer.status == 200 { Ok(answer.body) } else { Err(answer.refusal()) }
    };
    if arguments.format == Format::Fhir {
        let bundle = whole_bundle(&|path| page(path, MEDIA_TYPE))?;
        say_json(&bundle);
        let says_incomplete = bundle["entry"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|entry| entry["search"]["mode"] == "outcome");
        return Ok(if says_incomplete { Exit::Refused } else { Exit::Done });
    }
    let whole = whole_report(&|path| page(path, "application/json"))?;
    if arguments.client.json || arguments.format == Format::Json {
        say_json(&whole.to_json());
    } else {
        whole.accesses.iter().for_each(|access| say(line(access)));
        whole.words().iter().for_each(say);
    }
    Ok(if whole.is_complete() { Exit::Done } else { Exit::Refused })
}

/// Reads page after page until there is no next one.
fn whole_report(page: &dyn Fn(&str) -> anyhow::Result<Value>) -> anyhow::Result<Whole> {
    let (mut accesses, mut after) = (Vec::new(), 0);
    for _ in 0..PAGES_MAX {
        let mut body = page(&format!("{PATH}?after={after}&limit={PAGE}"))?;
        accesses.append(body["accesses"].as_array_mut().context("the report has no list of accesses")?);
        match body["next"].as_u64() {
            // A page that does not lead on would be read for ever.
            Some(next) if next > after => after = next,
            Some(_) => bail!("the report's next page lies before this one"),
            None => return Ok(Whole::count(accesses, &body)),
        }
    }
    bail!("the report has more than {PAGES_MAX} pages")
}

/// The same as bundles, joined into one.
fn whole_bundle(page: &dyn Fn(&str) -> anyhow::Result<Value>) -> anyhow::Result<Value> {
    let mut path = format!("{PATH}?after=0&limit={PAGE}");
    let mut entries: Vec<Value> = Vec::new();
    for _ in 0..PAGES_MAX {
        let mut bundle = page(&path)?;
        if let Some(more) = bundle["entry"].as_array_mut() {
            // Each page says what is missing of the whole; once is enough.
            entries.retain(|entry| entry["search"]["mode"] != "outcome");
            entries.append(more);
        }
        let links = bundle["link"].as_array().cloned().unwrap_or_default();
        let next = links.iter().find(|link| link["relation"] == "next").and_then(|link| link["url"].as_str());
        let Some(next) = next else {
            bundle["link"] = json!([{"relation": "self", "url": PATH}]);
            if !entries.is_empty() {
                bundle["entry"] = entries.into();
            }
            return Ok(bundle);
        };
        if !next.starts_with(PATH) {
            bail!("the bundle's next page is elsewhere");
        }
        next.clone_into(&mut path);
    }
    bail!("the report has more than {PAGES_MAX} pages")
}

impl Whole {
    fn count(accesses: Vec<Value>, last_page: &Value) -> Whole {
        let mut numbers: Vec<u64> = accesses.iter().filter_map(|access| access["number"].as_u64()).collect();
        numbers.sort_unstable();
        let newest = last_page["newest"].as_u64().unwrap_or(0).max(numbers.last().copied().unwrap_or(0));
        let is = |access: &&Value, outcome: &str| access["outcome"] == outcome;
        Whole {
            missing: holes(&numbers, newest),
            newest,
            lost: last_page["lost"].as_u64().unwrap_or(0),
            unfinished: accesses.iter().filter(|access| is(access, "assume-all-was-read")).count(),
            withdrawn: accesses.iter().filter(|access| !access["withdrawn"].is_null()).count(),
            accesses,
        }
    }

    fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.lost == 0
    }

    fn to_json(&self) -> Value {
        json!({
            "accesses": self.accesses, "newest": self.newest, "missing": self.missing, "lost": self.lost,
            "unfinished": self.unfinished, "released_before_withdrawal": self.withdrawn,
            "complete": self.is_complete(),
        })
    }

    /// What is to be said of the whole, a sentence a line.
    fn words(&self) -> Vec<String> {
        let gone: u64 = self.missing.iter().map(|(from, to)| to - from + 1).sum();
        let mut words =
            vec![format!("{} accesses listed, numbered 1 to {}", self.accesses.len(), self.newest)];
        if self.unfinished > 0 {
            words.push(format!(
                "{} without a recorded end: assume that all they could see was read",
                self.unfinished
            ));
        }
        if self.withdrawn > 0 {
            words.push(format!(
                "{} released before withdrawal: what left then is not called back by taking the grant back",
                self.withdrawn
            ));
        }
        if gone > 0 {
            let ranges: Vec<String> = self.missing.iter().map(|(from, to)| format!("{from}..{to}")).collect();
            words.push(format!(
                "RECORDS ARE MISSING: {gone} of your accesses have no record ({})",
                ranges.join(", ")
            ));
        }
        if self.lost > 0 {
            words.push(format!(
                "RECORDS ARE MISSING: the log names {} more, of anybody; whether they concern you cannot be told",
                self.lost
            ));
        }
        if self.is_complete() {
            words.push("no number is missing".to_owned());
        }
        words
    }
}

/// Numbers from 1 to the newest that are not there, as inclusive ranges; `numbers` is sorted.
fn holes(numbers: &[u64], newest: u64) -> Vec<(u64, u64)> {
    let (mut holes, mut expected) = (Vec::new(), 1);
    for number in numbers {
        if *number > expected {
            holes.push((expected, number - 1));
        }
        expected = expected.max(number + 1);
    }
    if expected <= newest {
        holes.push((expected, newest));
    }
    holes
}

/// Who vouched for a recipient without a key, and as what.
fn vouched(vouched: &Value) -> Option<String> {
    let issuer = vouched["issuer"].as_str()?;
    let roles: Vec<String> = vouched["roles"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|role| {
            format!("{} ({})", role["title"].as_str().unwrap_or("-"), role["role"].as_str().unwrap_or("-"))
        })
        .collect();
    let roles = if roles.is_empty() { "no role".to_owned() } else { roles.join(", ") };
    Some(format!("  as {roles} by word of {issuer}"))
}

/// One access as a line.
fn line(access: &Value) -> String {
    let plain = |name: &str| match &access[name] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<&str>>().join(","),
        other => other.to_string(),
    };
    let time = |name: &str| access[name].as_i64().map_or_else(|| "-".to_owned(), format_rfc3339_us);
    let mut line = format!(
        "no {}  {}  {}  purpose {}  study {}  signals {}  data {} to {}  rows {}  {}",
        plain("number"),
        time("started_us"),
        plain("recipient"),
        plain("purpose"),
        plain("study"),
        plain("signals"),
        time("from_us"),
        time("to_us"),
        plain("rows"),
        plain("outcome"),
    );
    if let Some(reason) = access["reason"].as_str() {
        line.push_str(&format!(" ({reason})"));
    }
    if let Some(vouched) = vouched(&access["vouched"]) {
        line.push_str(&vouched);
    }
    if let Some(repeats) = access["repeats"].as_u64().filter(|repeats| *repeats > 1) {
        line.push_str(&format!("  asked {repeats} times"));
    }
    if access["ended_us"].is_null() && !access["repeat_until_us"].is_null() {
        line.push_str(&format!("  may be repeated until {}", time("repeat_until_us")));
    }
    if let Some(index) = access["withdrawn"]["log_index"].as_u64() {
        line.push_str(&format!("  released before withdrawal (log index {index})"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(number: u64, outcome: &str) -> Value {
        json!({"number": number, "outcome": outcome, "started_us": 1_767_225_600_000_000_i64,
               "recipient": "did:key:z6Mk", "purpose": "HRESCH", "study": null, "signals": ["eda", "ppg"],
               "from_us": null, "to_us": 1_767_225_600_000_000_i64, "rows": 5, "withdrawn": null})
    }

    /// A server with these accesses, `per_page` to a page.
    fn served(accesses: Vec<Value>, newest: u64, lost: u64) -> impl Fn(&str) -> anyhow::Result<Value> {
        move |path: &str| {
            let after: usize = path.split(['=', '&']).nth(1).unwrap().parse().unwrap();
            let page: Vec<Value> = accesses.iter().skip(after).take(2).cloned().collect();
            let next = (after + 2 < accesses.len()).then_some(after + 2);
            Ok(json!({"accesses": page, "newest": newest, "missing": [], "lost": lost, "next": next}))
        }
    }

    /// Guarantee: all pages are read, and a hole in the numbers is found by counting, whatever the server says of it: at the
    /// beginning, in the middle and at the end.
    #[test]
    fn holes_are_counted_here() {
        let numbered = |numbers: &[u64]| numbers.iter().map(|number| access(*number, "released")).collect();
        let check = |numbers: &[u64], newest: u64, expected: &[(u64, u64)]| {
            let whole = whole_report(&served(numbered(numbers), newest, 0)).unwrap();
            assert_eq!(
                (whole.accesses.len(), whole.missing.as_slice()),
                (numbers.len(), expected),
                "{numbers:?}"
            );
            assert_eq!(whole.is_complete(), expected.is_empty());
        };
        check(&[], 0, &[]);
        check(&[1, 2, 3, 4, 5], 5, &[]);
        check(&[2, 3, 6], 6, &[(1, 1), (4, 5)]);
        check(&[1, 2], 4, &[(3, 4)]);
        check(&[1, 3, 2], 2, &[]);
    }

    /// Guarantee: what is missing, without an end or released before a withdrawal is said in words and numbers.
    #[test]
    fn said_in_words() {
        let mut before = access(1, "released");
        before["withdrawn"] = json!({"statement": "ab", "log_index": 9});
        before["repeats"] = json!(180);
        let mut polling = access(2, "assume-all-was-read");
        polling["repeat_until_us"] = json!(1_767_226_500_000_000_i64);
        assert!(line(&polling).ends_with("assume-all-was-read  may be repeated until 2026-01-01T00:15:00Z"));
        let accesses = vec![before, polling, access(5, "released")];
        let whole = whole_report(&served(accesses, 5, 2)).unwrap();
        let words = whole.words().join("\n");
        for expected in [
            "3 accesses listed, numbered 1 to 5",
            "1 without a recorded end: assume that all they could see was read",
            "1 released before withdrawal",
            "RECORDS ARE MISSING: 2 of your accesses have no record (3..4)",
            "RECORDS ARE MISSING: the log names 2 more",
        ] {
            assert!(words.contains(expected), "{expected} in {words}");
        }
        assert!(!words.contains("no number is missing"));
        assert_eq!(whole.to_json()["complete"], false);
        let fine = whole_report(&served(vec![access(1, "released")], 1, 0)).unwrap();
        assert!(fine.words().join("\n").ends_with("no number is missing"));
        assert_eq!(
            line(&whole.accesses[0]),
            "no 1  2026-01-01T00:00:00Z  did:key:z6Mk  purpose HRESCH  study -  signals eda,ppg  data - to \
             2026-01-01T00:00:00Z  rows 5  released  asked 180 times  released before withdrawal (log index 9)"
        );
    }

    /// Guarantee: pages of bundles become one, which says once what is missing.
    #[test]
    fn bundles_are_joined() {
        let entry = |mode: &str| json!({"resource": {}, "search": {"mode": mode}});
        let page = |path: &str| {
            let is_first = path.contains("after=0&");
            let next = json!({"relation": "next", "url": "/v1/me/accesses?after=2&limit=2"});
            let links = if is_first { json!([{"relation": "self", "url": path}, next]) } else { json!([]) };
            Ok(
                json!({"type": "searchset", "total": 2, "link": links, "entry": [entry("match"), entry("outcome")]}),
            )
        };
        let bundle = whole_bundle(&page).unwrap();
        let modes: Vec<&str> = bundle["entry"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["search"]["mode"].as_str().unwrap())
            .collect();
        assert_eq!(modes, ["match", "match", "outcome"]);
        assert_eq!(bundle["link"].as_array().unwrap().len(), 1);
    }
}
