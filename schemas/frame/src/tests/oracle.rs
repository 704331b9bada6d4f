//! The `coset` crate as an oracle for the COSE layer: it is laxer about encoding, and must agree on meaning.

use coset::{
    CborSerializable, CoseSign1, CoseSign1Builder, HeaderBuilder, RegisteredLabelWithPrivate,
    TaggedCborSerializable, iana,
};

use super::key;
use crate::*;

/// What we accept, coset reads as the same frame: same kid, payload, signature and signed bytes.
#[test]
fn coset_agrees_on_what_we_accept() {
    let key = key();
    let good = hostile::sample(&key, 2);
    let mut message = Vec::new();
    let mut compared = 0;
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let Ok(frame) = Frame::parse(&bytes) else { continue };
            let cose = CoseSign1::from_tagged_slice(&bytes).unwrap();
            frame.signed_message(&mut message);
            assert_eq!(cose.tbs_data(EXTERNAL_AAD), message, "byte {at} bit {bit}");
            assert_eq!(cose.payload.as_deref(), Some(frame.payload()));
            assert_eq!(cose.signature, frame.signature());
            assert_eq!(cose.protected.header.key_id, frame.kid().0);
            compared += 1;
        }
    }
    assert!(compared > 1_000, "{compared} frames compared");
}

/// What coset makes, we accept and verify: same bytes as our own encoder.
#[test]
fn coset_makes_our_bytes() {
    let key = key();
    let builder = hostile::sample_builder(2);
    let protected = HeaderBuilder::new()
        .algorithm(iana::Algorithm::EdDSA)
        .key_id(key.public().short_id().0.to_vec())
        .build();
    let cose = CoseSign1Builder::new()
        .protected(protected)
        .payload(builder.payload())
        .create_signature(EXTERNAL_AAD, |message| key.sign(message).to_vec())
        .build();
    let bytes = cose.to_tagged_vec().unwrap();
    assert_eq!(bytes, builder.sign(&key).unwrap());
}

/// Where coset accepts a frame with our headers that we refuse, the refusal is about form, never about a frame that
/// is already in the one allowed form.
#[test]
fn refusals_are_about_form() {
    let key = key();
    for case in hostile::corpus(&key, 2, 500) {
        let Ok(cose) = CoseSign1::from_tagged_slice(&case.bytes) else { continue };
        let alg = RegisteredLabelWithPrivate::Assigned(iana::Algorithm::EdDSA);
        let ours = cose.protected.header.alg == Some(alg) && cose.protected.header.key_id.len() == 8;
        if !ours || case.expected == Some(Code::TooBig) {
            continue;
        }
        let canonical = cose.clone().to_tagged_vec().unwrap();
        let form = canonical == case.bytes && cose.unprotected.is_empty();
        let payload = cose.payload.as_deref().unwrap_or_default();
        let payload_form = coset::cbor::Value::from_slice(payload)
            .is_ok_and(|value| value.to_vec().is_ok_and(|bytes| bytes == payload));
        if Frame::parse(&case.bytes).is_ok() {
            assert!(form && payload_form, "{}", case.name);
        }
    }
}
