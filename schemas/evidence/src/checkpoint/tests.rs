//! Checkpoints and cosignatures.

use super::*;

const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

#[test]
fn the_example_of_the_specification_reads_and_is_written_the_same() {
    let head = Checkpoint::from_text(EXAMPLE).unwrap();
    assert_eq!((head.origin.as_str(), head.size), ("example.com/behind-the-sofa", 20_852_163));
    assert_eq!(head.to_text(), EXAMPLE);
    let extended = format!("{EXAMPLE}more\n");
    assert_eq!(Checkpoint::from_text(&extended).unwrap().to_text(), extended);
}

#[test]
fn other_spellings_are_refused_with_the_line_named() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    let check = |text: String, line| {
        assert_eq!(Checkpoint::from_text(&text), Err(CheckpointError::Text { line }), "{text:?}");
    };
    check(format!("\n1\n{root}\n"), 1);
    check(format!("o\n01\n{root}\n"), 2);
    check(format!("o\n-1\n{root}\n"), 2);
    check(format!("o\n18446744073709551616\n{root}\n"), 2);
    check("o\n1\nAAAA\n".into(), 3);
    check("o\n1\n".into(), 3);
    check(format!("o\n1\n{root}\n\n"), 4);
    check(format!("o\n1\n{root}"), 1);
}

#[test]
fn a_checkpoint_signed_under_another_name_than_its_origin_is_refused() {
    let secret = SecretKey::from_seed(&[3; 32]);
    let note =
        note::sign_note("other.log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", "my.log", &secret)
            .unwrap();
    let key = NoteKey::log("my.log", secret.public()).unwrap();
    assert!(matches!(open_checkpoint(&note, &key), Err(CheckpointError::Origin { .. })));
    let own = sign_checkpoint("my.log", 7, &[9; 32], &secret).unwrap();
    assert_eq!(open_checkpoint(&own, &key).unwrap().size, 7);
    assert!(sign_checkpoint("two words", 7, &[9; 32], &secret).is_err());
}

#[test]
fn a_cosignature_binds_its_time_and_the_whole_text() {
    let (log, witness) = (SecretKey::from_seed(&[4; 32]), SecretKey::from_seed(&[5; 32]));
    let signed = sign_checkpoint("log", 7, &[9; 32], &log).unwrap();
    let cosigned = cosign_checkpoint(&signed, "witness", &witness, 1_679_315_147).unwrap();
    let key = NoteKey::witness("witness", witness.public()).unwrap();
    let note = Note::parse(&cosigned).unwrap();
    let signature = note.signature_by(&key).unwrap().unwrap();
    assert_eq!(verify_cosignature(&key, note.text, signature), Ok(1_679_315_147));
    assert!(verify_cosignature(&key, "log\n8\n", signature).is_err());
    for at in 0..signature.bytes.len() {
        let mut changed = signature.clone();
        changed.bytes[at] ^= 1;
        assert!(verify_cosignature(&key, note.text, &changed).is_err(), "byte {at}");
    }
    let as_log = NoteKey::log("witness", witness.public()).unwrap();
    assert!(note.signature_by(&as_log).unwrap().is_none(), "types have different key ids");
}
