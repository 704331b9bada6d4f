//! Notes against the examples of the specification and of Go's `x/mod/sumdb/note`, and against hostile text.

use schemas_identity::SecretKey;

use super::*;

/// Example from the documentation of Go's `golang.org/x/mod/sumdb/note`.
const FOREIGN_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const FOREIGN_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\n\
    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

#[test]
fn a_note_signed_by_another_implementation_opens() {
    let key: NoteKey = FOREIGN_KEY.parse().unwrap();
    assert_eq!(key.to_string(), FOREIGN_KEY);
    let note = open_note(FOREIGN_NOTE, &key).unwrap();
    assert!(note.text.ends_with("problem is.\n"));
    let changed = FOREIGN_NOTE.replace("answer", "anSwer");
    assert_eq!(
        open_note(&changed, &key).unwrap_err(),
        NoteError::BadSignature { name: "PeterNeumann".into() }
    );
}

#[test]
fn the_verifier_key_of_a_public_log_reads_and_a_wrong_id_is_refused() {
    let vkey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
    assert_eq!(vkey.parse::<NoteKey>().unwrap().to_string(), vkey);
    for broken in [
        "sum.golang.org+033de0af+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
        "sum.golang.orh+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
        "sum.golang.org+033DE0AE+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
        "sum.golang.org+033de0ae",
        "+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
    ] {
        assert!(broken.parse::<NoteKey>().is_err(), "{broken}");
    }
}

#[test]
fn what_is_signed_opens_and_every_changed_bit_is_refused() {
    let secret = SecretKey::from_seed(&[1; 32]);
    let key = NoteKey::log("example.com/log", secret.public()).unwrap();
    let note = sign_note("one\n\ntwo\n", "example.com/log", &secret).unwrap();
    assert_eq!(open_note(&note, &key).unwrap().text, "one\n\ntwo\n");
    for at in 0..note.len() {
        for bit in 0..8 {
            let mut changed = note.clone().into_bytes();
            changed[at] ^= 1 << bit;
            let opened = std::str::from_utf8(&changed).is_ok_and(|note| open_note(note, &key).is_ok());
            assert!(!opened, "byte {at} bit {bit}");
        }
    }
}

#[test]
fn malformed_notes_are_refused_by_name() {
    let line = "\u{2014} a AAAAAAA=\n";
    let check =
        |note: &str, expected: NoteError| assert_eq!(Note::parse(note).unwrap_err(), expected, "{note:?}");
    check("", NoteError::Shape);
    check("text\n", NoteError::Shape);
    check(&format!("text{line}"), NoteError::Shape);
    check("text\n\n", NoteError::Shape);
    check(&format!("text\n\n{}", line.trim_end()), NoteError::Shape);
    check(&format!("te\u{7}xt\n\n{line}"), NoteError::Control { code: 7 });
    check(&format!("text\r\n\n{line}"), NoteError::Control { code: 13 });
    check("text\n\n- a AAAAAAA=\n", NoteError::SignatureLine { number: 1 });
    check(&format!("text\n\n{line}{line}\u{2014} a b AAAAAAA=\n"), NoteError::SignatureLine { number: 3 });
    check("text\n\n\u{2014} a AAAAAA==\n", NoteError::SignatureLine { number: 1 });
    check("text\n\n\u{2014} a+b AAAAAAA=\n", NoteError::SignatureLine { number: 1 });
    check("text\n\n\u{2014} a AAAAAAB=\n", NoteError::SignatureLine { number: 1 });
    check(&format!("text\n\n{}", line.repeat(65)), NoteError::TooManySignatures);
    check(&"x".repeat(NOTE_BYTES_MAX + 1), NoteError::TooLong { bytes: NOTE_BYTES_MAX + 1 });
    assert!(Note::parse(&format!("text\n\n{}", line.repeat(16))).is_ok());
}

#[test]
fn signatures_of_strangers_are_passed_over_and_one_s_own_second_line_is_not() {
    let secret = SecretKey::from_seed(&[2; 32]);
    let key = NoteKey::log("me", secret.public()).unwrap();
    let note = sign_note("text\n", "me", &secret).unwrap();
    let with_stranger = format!("{note}\u{2014} stranger AAAAAAA=\n\u{2014} me AAAAAAA=\n");
    assert!(open_note(&with_stranger, &key).is_ok());
    let doubled = format!("{note}{}", &note["text\n\n".len()..]);
    assert_eq!(open_note(&doubled, &key).unwrap_err(), NoteError::BadSignature { name: "me".into() });
    let other = NoteKey::log("other", secret.public()).unwrap();
    assert_eq!(open_note(&note, &other).unwrap_err(), NoteError::Unsigned { name: "other".into() });
}
