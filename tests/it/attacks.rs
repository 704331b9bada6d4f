//! The list of known attacks and the tests that close them: every row has a test that exists, or waits for a named part, and
//! those that wait only become fewer. The tests themselves stand beside what they attack.

use std::collections::BTreeSet;

use crate::process::shared;
use crate::workspace_root;

const LIST: &str = "tests/golden/attacks.txt";
/// Rows that wait for parts not built. May shrink, never grow.
const LATER_MAX: usize = 20;

/// Row and what closes it.
fn rows() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(workspace_root().join(LIST)).expect("the list");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            line.split_once(' ').map(|(row, by)| (row.to_owned(), by.to_owned())).expect("row and tests")
        })
        .collect()
}

/// Guarantee: no row of the list rests on a test that is not there, and what waits only becomes less.
#[test]
fn every_attack_has_a_test() {
    let sources: String = crate::tidy::sources().into_iter().map(|(_, text)| text).collect();
    let (mut seen, mut later) = (BTreeSet::new(), 0);
    for (row, by) in rows() {
        assert!(seen.insert(row.clone()), "{row} twice");
        if by.starts_with("later: ") {
            later += 1;
            continue;
        }
        for name in by.split(' ') {
            assert!(sources.contains(&format!("fn {name}(")), "{row}: there is no test {name}");
        }
    }
    assert!(later == LATER_MAX, "{later} rows wait; set LATER_MAX to that if they became fewer");
}

/// Guarantee: the list has the rows of the one it was made from, no more and no less.
#[test]
fn every_attack_is_listed() {
    let Some(path) = shared("attacks.md") else { return };
    let text = std::fs::read_to_string(path).expect("attacks");
    let is_row = |cell: &str| {
        let mut letters = cell.chars();
        letters.next().is_some_and(|letter| letter.is_ascii_uppercase())
            && !letters.as_str().is_empty()
            && letters.all(|digit| digit.is_ascii_digit())
    };
    let theirs: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|cell| is_row(cell))
        .map(str::to_owned)
        .collect();
    let ours: BTreeSet<String> = rows().into_iter().map(|(row, _)| row).collect();
    assert!(theirs.len() > 50, "{theirs:?}");
    assert_eq!(ours, theirs);
}
