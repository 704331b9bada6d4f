//! Who is measured: our backends and the libraries that a reader would compare them with.
//!
//! Each has what a careful caller would give it: keys parsed once where its interface allows that, our backends under
//! watch as in production. ed25519-simd 0.1.0 is missing: it refuses to compile unless the whole binary is built for
//! AVX-512, and that binary would not start on other machines.

use std::collections::HashMap;

use aws_lc_rs::signature::ParsedPublicKey;
use ed25519_dalek::{Signature, VerifyingKey, verify_batch};
use ed25519_zebra::VerificationKeyBytes;
use ingest_verify::watch::Signed;
use ingest_verify::{Kind, Options, Watched};
use schemas_identity::PublicKey;

/// Room for the large tables of 65,536 devices, and for as many bytes of hot ones.
const TABLE_BYTES_MAX: usize = 4 << 30;
/// Uses of a key after which it gets a larger table: sooner than usual, as no device sends only so often.
const PROMOTE_AFTER: u32 = 8;
/// Uses of a key after which our backends have the largest table it can have.
const TABLE_USES: usize = 2 * PROMOTE_AFTER as usize + 4;
/// ed25519-dalek's `verify_strict`, the first thing all others are compared with.
pub const STRICT: &str = "dalek-strict";
/// ring, the second.
pub const RING: &str = "ring";

/// One implementation.
pub trait Peer: Send {
    /// As in tables; ends in `-whole-call` if its verdict is about all signatures of a call together.
    fn name(&self) -> &str;

    /// Uses of each key before it works at its usual speed.
    fn warm_up_uses(&self) -> usize {
        1
    }

    /// Clears `verdicts` and writes one per signature.
    fn verify_each(&mut self, signed: &[Signed<'_>], verdicts: &mut Vec<bool>);
}

/// Whether the peer of this name has one verdict for all of a call: a bad neighbour refuses everybody.
#[must_use]
pub fn is_whole_call(name: &str) -> bool {
    name.ends_with("-whole-call")
}

/// The verdicts that a peer must give for one call.
#[must_use]
pub fn expected(peer: &dyn Peer, each: &[bool]) -> Vec<bool> {
    if is_whole_call(peer.name()) { vec![each.iter().all(|good| *good); each.len()] } else { each.to_vec() }
}

/// Of our backends in every measurement.
pub(crate) fn options() -> Options {
    Options {
        table_bytes_max: TABLE_BYTES_MAX,
        large_after: PROMOTE_AFTER,
        hot_after: PROMOTE_AFTER,
        ..Options::default()
    }
}

/// All that run on this machine, ours first; `keys` are those that will occur.
#[must_use]
pub fn all(keys: &[PublicKey]) -> Vec<Box<dyn Peer>> {
    let options = options();
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    for kind in Kind::all() {
        if let Some(watched) = Watched::new(kind, options) {
            peers.push(Box::new(Ours { name: format!("vitalog-{}", kind.name()), watched }));
        }
    }
    let each = |name, verify: fn(&Signed<'_>) -> bool| Box::new(Each { name, verify });
    peers.push(each("vitalog-reference", |one| one.key.verify(one.message, one.signature)));
    peers.push(Box::new(Parsed { name: STRICT, keys: parse(keys, dalek_key), verify: dalek_strict }));
    peers.push(Box::new(DalekBatch { keys: parse(keys, dalek_key) }));
    peers.push(each(RING, ring));
    peers.push(Box::new(Parsed { name: "aws-lc-parsed", keys: parse(keys, aws_key), verify: aws }));
    peers.push(Box::new(ZebraBatch));
    peers
}

/// A backend under watch, with the product's rates of samples and re-checks.
struct Ours {
    name: String,
    watched: Watched,
}

impl Peer for Ours {
    fn name(&self) -> &str {
        &self.name
    }

    fn warm_up_uses(&self) -> usize {
        TABLE_USES
    }

    fn verify_each(&mut self, signed: &[Signed<'_>], verdicts: &mut Vec<bool>) {
        self.watched.verify_each(signed, verdicts);
    }
}

/// One after the other, keys as bytes.
struct Each {
    name: &'static str,
    verify: fn(&Signed<'_>) -> bool,
}

impl Peer for Each {
    fn name(&self) -> &str {
        self.name
    }

    fn verify_each(&mut self, signed: &[Signed<'_>], verdicts: &mut Vec<bool>) {
        verdicts.clear();
        verdicts.extend(signed.iter().map(self.verify));
    }
}

fn ring(one: &Signed<'_>) -> bool {
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, one.key.as_bytes());
    key.verify(one.message, one.signature).is_ok()
}

type Keys<K> = HashMap<PublicKey, K>;

fn parse<K>(keys: &[PublicKey], parse_one: fn(&PublicKey) -> Option<K>) -> Keys<K> {
    keys.iter().filter_map(|key| Some((*key, parse_one(key)?))).collect()
}

/// One after the other, keys parsed before; a key that was not announced is refused.
struct Parsed<K> {
    name: &'static str,
    keys: Keys<K>,
    verify: fn(&K, &Signed<'_>) -> bool,
}

impl<K: Send> Peer for Parsed<K> {
    fn name(&self) -> &str {
        self.name
    }

    fn verify_each(&mut self, signed: &[Signed<'_>], verdicts: &mut Vec<bool>) {
        verdicts.clear();
        for one in signed {
            verdicts.push(self.keys.get(one.key).is_some_and(|key| (self.verify)(key, one)));
        }
    }
}

fn dalek_key(key: &PublicKey) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(key.as_bytes()).ok()
}

fn dalek_strict(key: &VerifyingKey, one: &Signed<'_>) -> bool {
    key.verify_strict(one.message, &Signature::from_bytes(one.signature)).is_ok()
}

fn aws_key(key: &PublicKey) -> Option<ParsedPublicKey> {
    ParsedPublicKey::new(&aws_lc_rs::signature::ED25519, key.as_bytes()).ok()
}

fn aws(key: &ParsedPublicKey, one: &Signed<'_>) -> bool {
    key.verify_sig(one.message, one.signature).is_ok()
}

/// `verify_batch`: its verdict may depend on a frame's neighbours, so it is here as a figure and nowhere as a judge.
struct DalekBatch {
    keys: Keys<VerifyingKey>,
}

impl Peer for DalekBatch {
    fn name(&self) -> &str {
        "dalek-batch-whole-call"
    }

    fn verify_each(&mut self, signed: &[Signed<'_>], verdicts: &mut Vec<bool>) {
        let messages: Vec<&[u8]> = signed.iter().map(|one| one.message).collect();
        let signatures: Vec<Signature> =
            signed.iter().map(|one| Signature::from_bytes(one.signature)).collect();
        let keys: Vec<VerifyingKey> =
            signed.iter().filter_map(|one| self.keys.get(one.key).copied()).collect();
        verdicts.clear();
        verdicts.resize(signed.len(), verify_batch(&messages, &signatures, &keys).is_ok());
    }
}

/// ZIP-215 rules: it accepts signatures that `enrolled-strict` refuses, though none of these workloads.
struct ZebraBatch;

impl Peer for ZebraBatch {
    fn name(&self) -> &str {
        "zebra-batch-whole-call"
    }

    fn verify_each(&mut self, signed: &[Signed<'_>], verdicts: &mut Vec<bool>) {
        let mut batch = ed25519_zebra::batch::Verifier::new();
        for one in signed {
            let key = VerificationKeyBytes::from(*one.key.as_bytes());
            batch.queue((key, ed25519_zebra::Signature::from_bytes(one.signature), one.message));
        }
        verdicts.clear();
        verdicts.resize(signed.len(), batch.verify(rand::rng()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::measure::warm_up;
    use crate::workload::{Shape, Workload};

    // Scenario: small calls, some with a bad s, R or message. Guarantee: no figure is of somebody who judges wrongly.
    #[test]
    fn every_peer_judges_rightly() {
        let shape = Shape { devices: 12, message_bytes: 100, bad_per_mille: 100 };
        let workload = Workload::new(1, shape, 240);
        let signed = workload.signed();
        for mut peer in all(workload.keys()) {
            for per_call in [1, 7, 64] {
                let (mut verdicts, mut accepted) = (Vec::new(), 0);
                for (call, each) in signed.chunks(per_call).zip(workload.expected().chunks(per_call)) {
                    peer.verify_each(call, &mut verdicts);
                    assert_eq!(verdicts, expected(&*peer, each), "{} {per_call}", peer.name());
                    accepted += verdicts.iter().filter(|good| **good).count();
                }
                assert_eq!(accepted > 0, per_call < 64 || !is_whole_call(peer.name()), "{}", peer.name());
            }
        }
    }

    // Scenario: our backends after their warm-up. Guarantee: no table is built or enlarged while the clock runs.
    #[test]
    fn warm_backends_have_hot_tables() {
        let workload = Workload::new(1, Shape { devices: 12, message_bytes: 100, bad_per_mille: 0 }, 64);
        for kind in Kind::all() {
            let watched = Watched::new(kind, options()).unwrap();
            let mut ours = Ours { name: String::new(), watched };
            warm_up(&mut ours, &workload, 64).unwrap();
            let tables = ours.watched.stats().tables;
            assert_eq!((tables.small, tables.large, tables.hot), (0, 0, 12));
        }
    }

    // Guarantee: names tell peers apart, and those that ratios refer to exist.
    #[test]
    fn names_are_unique() {
        let peers = all(&[]);
        let names: HashSet<&str> = peers.iter().map(|peer| peer.name()).collect();
        assert_eq!(names.len(), peers.len());
        assert!(names.contains(STRICT) && names.contains(RING));
    }
}
