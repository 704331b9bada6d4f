//! The house rules as tests: arrows between crates, names, file headers, file and function sizes, unsafe files.
//! Not a style guide: what rustfmt and clippy already enforce is not repeated here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace_root;

/// A file longer than this, tests not counted, is two files.
const FILE_LINES_MAX: usize = 800;
/// A function longer than this must be in the golden list, and may not grow there.
const FUNCTION_LINES_MAX: usize = 70;
const ROOMS: [&str; 6] = ["schemas", "ingest", "query", "bench", "deploy", "tests"];
const FUNCTIONS_GOLDEN: &str = "tests/golden/long_functions.txt";
const UNSAFE_GOLDEN: &str = "tests/golden/unsafe_files.txt";

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("readable directory") {
        let path = entry.expect("readable entry").path();
        let name = path.file_name().expect("named").to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                rust_files(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

pub(crate) fn sources() -> Vec<(String, String)> {
    let root = workspace_root();
    let mut found = Vec::new();
    for room in ROOMS {
        rust_files(&root.join(room), &mut found);
    }
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("UTF-8 source");
            (path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned(), text)
        })
        .collect()
}

/// Lines before the unit tests of a file; a file of tests has none.
fn shipped_lines(path: &str, text: &str) -> usize {
    if path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs") {
        return 0;
    }
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count()
}

struct Member {
    name: String,
    path: String,
    shipped: BTreeSet<String>,
}

fn members() -> Vec<Member> {
    let root = workspace_root();
    let manifest: toml::Table =
        fs::read_to_string(root.join("Cargo.toml")).expect("manifest").parse().expect("valid manifest");
    let paths = manifest["workspace"]["members"].as_array().expect("members").clone();
    paths
        .iter()
        .map(|path| {
            let path = path.as_str().expect("text").to_owned();
            let text = fs::read_to_string(root.join(&path).join("Cargo.toml")).expect("crate manifest");
            let table: toml::Table = text.parse().expect("valid crate manifest");
            let shipped = table
                .get("dependencies")
                .and_then(|dependencies| dependencies.as_table())
                .map(|dependencies| dependencies.keys().cloned().collect())
                .unwrap_or_default();
            Member { name: table["package"]["name"].as_str().expect("text").to_owned(), path, shipped }
        })
        .collect()
}

/// Which rooms a crate of a room may depend on.
fn may_know(room: &str) -> &'static [&'static str] {
    match room {
        "schemas" => &["schemas"],
        "ingest" => &["schemas", "ingest"],
        "query" => &["schemas", "query"],
        _ => &["schemas", "ingest", "query", "bench", "deploy"],
    }
}

/// Inside a room, the only crates that may know their neighbours.
fn neighbours(name: &str) -> &'static [&'static str] {
    match name {
        "ingest-pipeline" => &[
            "ingest-intake",
            "ingest-verify",
            "ingest-devices",
            "ingest-wal",
            "ingest-quarantine",
            "ingest-lake",
        ],
        "query-doors" | "query-dashboard" => {
            &["query-engine", "query-consents", "query-tokens", "query-audit"]
        }
        "query-tokens" => &["query-consents", "query-oidc"],
        "query-engine" => &["query-consents", "query-audit"],
        _ => &[],
    }
}

/// Guarantee: a crate's name is its path, so grep and the file tree agree.
#[test]
fn crate_names_are_their_paths() {
    for member in members() {
        assert_eq!(member.name, member.path.replace('/', "-"), "crate at {}", member.path);
    }
}

/// Guarantee: ingest never sees query, schemas see nobody, and inside a room only the named crates know others.
#[test]
fn arrows_point_down() {
    let members = members();
    let room_of: BTreeMap<String, String> = members
        .iter()
        .map(|member| (member.name.clone(), member.path.split('/').next().expect("room").to_owned()))
        .collect();
    let mut wrong = Vec::new();
    for member in &members {
        let room = &room_of[&member.name];
        for dependency in &member.shipped {
            let Some(other) = room_of.get(dependency) else { continue };
            let inside = room == other && (room == "ingest" || room == "query");
            let allowed = if inside {
                neighbours(&member.name).contains(&dependency.as_str())
            } else {
                may_know(room).contains(&other.as_str())
            };
            if !allowed {
                wrong.push(format!("{} -> {}", member.name, dependency));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point the wrong way: {wrong:?}");
}

/// Guarantee: schemas stay agreements: no runtime, no web server, no clock behind them.
#[test]
fn schemas_do_no_io() {
    const BANNED: [&str; 6] = ["tokio", "axum", "datafusion", "parquet", "ureq", "rumqttc"];
    for member in members().iter().filter(|member| member.path.starts_with("schemas/")) {
        for banned in BANNED {
            assert!(!member.shipped.contains(banned), "{} must not depend on {banned}", member.name);
        }
    }
}

/// Guarantee: every file says at its top what it is.
#[test]
fn every_file_opens_with_its_purpose() {
    let silent: Vec<String> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "files that do not open with `//!`: {silent:?}");
}

/// Guarantee: no file grows into a second building.
#[test]
fn files_stay_short() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter_map(|(path, text)| {
            let lines = shipped_lines(&path, &text);
            (lines > FILE_LINES_MAX).then(|| format!("{path}: {lines}"))
        })
        .collect();
    assert!(long.is_empty(), "files over {FILE_LINES_MAX} lines: {long:?}");
}

/// Guarantee: sources are ASCII, so no character can look like another.
#[test]
fn sources_are_ascii() {
    let odd: Vec<String> = sources()
        .into_iter()
        .filter_map(|(path, text)| {
            let line = text.lines().position(|line| !line.is_ascii())?;
            Some(format!("{path}:{}", line + 1))
        })
        .collect();
    assert!(odd.is_empty(), "files with characters outside ASCII: {odd:?}");
}

fn is_function_start(line: &str) -> bool {
    let mut words = line.trim_start();
    for prefix in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe ", "extern \"C\" "] {
        words = words.strip_prefix(prefix).unwrap_or(words);
    }
    words.starts_with("fn ")
}

/// Length of each function of a rustfmt-formatted file: from its `fn` line to the brace at the same indent.
fn function_lengths(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        if !is_function_start(line) {
            continue;
        }
        // A signature without a body (in a trait), or a body on the same line, is no function to measure.
        let opening = lines[start..].iter().find(|later| later.ends_with(['{', ';', '}']));
        if opening.is_none_or(|opening| !opening.ends_with('{')) {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let Some(length) = lines[start..].iter().position(|later| **later == closing) else { continue };
        let name = line.split("fn ").nth(1).unwrap_or("").split(['(', '<']).next().unwrap_or("").to_owned();
        found.push((name, length + 1));
    }
    found
}

/// Guarantee: a function past 70 lines is listed, and the list only shrinks.
#[test]
fn functions_stay_short() {
    let golden = fs::read_to_string(workspace_root().join(FUNCTIONS_GOLDEN)).unwrap_or_default();
    let allowed: BTreeMap<&str, usize> = golden
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, lines)| (name, lines.parse().expect("a number of lines")))
        .collect();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (name, lines) in function_lengths(&text) {
            let key = format!("{path} {name}");
            if lines > FUNCTION_LINES_MAX && allowed.get(key.as_str()).is_none_or(|limit| lines > *limit) {
                wrong.push(format!("{key} {lines}"));
            }
        }
    }
    assert!(wrong.is_empty(), "functions over {FUNCTION_LINES_MAX} lines: {wrong:#?}");
}

/// Guarantee: unsafe code stands only in the files of the golden list.
#[test]
fn unsafe_stands_where_the_list_says() {
    let golden = fs::read_to_string(workspace_root().join(UNSAFE_GOLDEN)).unwrap_or_default();
    let listed: BTreeSet<&str> = golden.lines().filter(|line| !line.starts_with('#')).collect();
    let marker = ["unsafe", " {"].concat();
    let function = ["unsafe", " fn"].concat();
    let found: Vec<String> = sources()
        .into_iter()
        .filter(|(path, text)| {
            (text.contains(&marker) || text.contains(&function)) && !listed.contains(path.as_str())
        })
        .map(|(path, _)| path)
        .collect();
    assert!(found.is_empty(), "unsafe outside the golden list: {found:?}");
}

/// Guarantee: the top level shows only the product.
#[test]
fn top_level_is_the_house() {
    let allowed: BTreeSet<&str> =
        ["Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "target"].into_iter().chain(ROOMS).collect();
    for entry in fs::read_dir(workspace_root()).expect("root") {
        let name = entry.expect("entry").file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || allowed.contains(name.as_str()), "not part of the house: {name}");
    }
}

/// Guarantee: formatting is the formatter's.
#[test]
fn formatted() {
    let status = std::process::Command::new(env!("CARGO"))
        .args(["fmt", "--all", "--check"])
        .current_dir(workspace_root())
        .stdout(std::process::Stdio::null())
        .status()
        .expect("cargo fmt runs");
    assert!(status.success(), "run `cargo fmt --all`");
}
