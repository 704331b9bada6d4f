//! Policies: the file's syntax rule by rule, and the quorum by all combinations.

use schemas_identity::SecretKey;

use super::*;
use crate::checkpoint::{cosign_checkpoint, sign_checkpoint};

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn log_key() -> String {
    NoteKey::log("example.com/log", secret(1).public()).unwrap().to_string()
}

fn witness_key(n: u8) -> String {
    NoteKey::witness(&format!("w{n}.example"), secret(10 + n).public()).unwrap().to_string()
}

fn did(seed: u8) -> Did {
    secret(seed).public().did()
}

/// The example of the specification: two of three X and any of three Y.
fn example() -> String {
    let mut file = format!("# trust\nlog {} https://example.com/log\n\n", log_key());
    for n in 0..6u8 {
        let name = if n < 3 { format!("X{}", n + 1) } else { format!("Y{}", n - 2) };
        file.push_str(&format!("witness {name} {}\n", witness_key(n)));
    }
    file.push_str(" \tgroup X-witnesses 2 X1 X2\tX3 \ngroup Y-witnesses any Y1 Y2 Y3\n");
    file.push_str(&format!("group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\nmaker {}\n", did(3)));
    file
}

#[test]
fn the_example_of_the_specification_reads_and_its_own_print_reads_the_same() {
    let policy = Policy::parse(example().as_bytes()).unwrap();
    assert_eq!(Policy::parse(policy.to_text().as_bytes()).unwrap(), policy);
    assert!(policy.trusts_maker(&did(3)) && !policy.trusts_maker(&did(4)));
    assert_eq!(policy.logs().count(), 1);
}

#[test]
fn the_quorum_is_met_by_exactly_the_sets_its_groups_describe() {
    let policy = Policy::parse(example().as_bytes()).unwrap();
    let signed = sign_checkpoint("example.com/log", 5, &[7; 32], &secret(1)).unwrap();
    for set in 0..64u32 {
        let mut note = signed.clone();
        for n in (0..6u8).filter(|n| set >> n & 1 == 1) {
            note = cosign_checkpoint(&note, &format!("w{n}.example"), &secret(10 + n), 1000 + u64::from(n))
                .unwrap();
        }
        let expected = (set & 7).count_ones() >= 2 && (set >> 3) != 0;
        let opened = policy.open(&note);
        assert_eq!(opened.is_ok(), expected, "{set:06b}: {opened:?}");
        if let Ok(accepted) = opened {
            assert_eq!(accepted.witnesses.len() as u32, set.count_ones());
        }
    }
}

#[test]
fn a_known_witness_with_a_wrong_signature_refuses_the_note_even_without_a_quorum() {
    let policy = format!("log {}\nwitness W {}\nquorum none\n", log_key(), witness_key(0));
    let policy = Policy::parse(policy.as_bytes()).unwrap();
    let signed = sign_checkpoint("example.com/log", 5, &[7; 32], &secret(1)).unwrap();
    let other = sign_checkpoint("example.com/log", 6, &[7; 32], &secret(1)).unwrap();
    let cosigned = cosign_checkpoint(&other, "w0.example", &secret(10), 1).unwrap();
    let stolen_line = cosigned.lines().last().unwrap();
    assert!(policy.open(&signed).is_ok());
    assert!(policy.open(&format!("{signed}{stolen_line}\n")).is_err());
    let stranger = cosign_checkpoint(&signed, "stranger", &secret(99), 1).unwrap();
    assert_eq!(policy.open(&stranger).unwrap().unknown_signers, ["stranger"]);
}

#[test]
fn only_a_log_of_the_policy_under_its_own_name_is_believed() {
    let policy = Policy::parse(format!("log {}\nquorum none\n", log_key()).as_bytes()).unwrap();
    for (origin, seed) in [("example.com/other", 1), ("example.com/log", 2)] {
        let note = sign_checkpoint(origin, 5, &[7; 32], &secret(seed)).unwrap();
        assert_eq!(policy.open(&note), Err(PolicyError::UnknownLog { origin: origin.into() }));
    }
    let none = Policy::parse(b"quorum none\n").unwrap();
    let note = sign_checkpoint("example.com/log", 5, &[7; 32], &secret(1)).unwrap();
    assert!(matches!(none.open(&note), Err(PolicyError::UnknownLog { .. })));
}

#[test]
fn each_broken_rule_is_named_with_its_line() {
    let (log, w0, w1) = (log_key(), witness_key(0), witness_key(1));
    let check = |file: String, line: usize, expected: &dyn Fn(&PolicyProblem) -> bool| {
        let error = Policy::parse(file.as_bytes()).unwrap_err();
        assert!(error.line == line && expected(&error.problem), "{file:?} gave {error:?}");
    };
    use PolicyProblem as P;
    check(String::new(), 0, &|p| matches!(p, P::Quorum));
    check("quorum none\nquorum none\n".into(), 2, &|p| matches!(p, P::Quorum));
    check("quorum w\n".into(), 1, &|p| matches!(p, P::Undefined { .. }));
    check("trust me\n".into(), 1, &|p| matches!(p, P::Keyword { .. }));
    check("quorum none\r\n".into(), 1, &|p| matches!(p, P::Control { code: 13 }));
    check(format!("log {log}\nlog {log}\n"), 2, &|p| matches!(p, P::Duplicate { .. }));
    check(format!("log {w0}\n"), 1, &|p| matches!(p, P::KeyKind));
    check(format!("witness w {log}\n"), 1, &|p| matches!(p, P::KeyKind));
    check(format!("witness none {w0}\n"), 1, &|p| matches!(p, P::Duplicate { .. }));
    check(format!("witness a {w0}\nwitness a {w1}\n"), 2, &|p| matches!(p, P::Duplicate { .. }));
    check(format!("witness a {w0}\nwitness b {w0}\n"), 2, &|p| matches!(p, P::Duplicate { .. }));
    check(format!("witness a {w0}\ngroup g any b\n"), 2, &|p| matches!(p, P::Undefined { .. }));
    check(format!("witness a {w0}\ngroup g any none\n"), 2, &|p| matches!(p, P::Undefined { .. }));
    check(format!("witness a {w0}\ngroup g any g\n"), 2, &|p| matches!(p, P::Undefined { .. }));
    check(format!("witness a {w0}\ngroup g any a a\n"), 2, &|p| matches!(p, P::Duplicate { .. }));
    check(format!("witness a {w0}\ngroup g any a\ngroup h any a\n"), 3, &|p| {
        matches!(p, P::Duplicate { .. })
    });
    for threshold in ["0", "2", "01", "-1", "some"] {
        check(format!("witness a {w0}\ngroup g {threshold} a\n"), 2, &|p| matches!(p, P::Threshold { .. }));
    }
    check(format!("witness a {w0}\ngroup g all\n"), 2, &|p| matches!(p, P::Threshold { .. }));
    check("maker did:web:x\n".into(), 1, &|p| matches!(p, P::Maker { .. }));
    check(format!("maker {0}\nmaker {0} again\n", did(3)), 2, &|p| matches!(p, P::Duplicate { .. }));
    check("log a+b+c d e\n".into(), 1, &|p| matches!(p, P::Form { .. }));
}
