//! The tree maths against three judges: the recursive definition of RFC 6962, the crate `ct-merkle`, and published vectors.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;

use super::*;

/// RFC 6962, section 2.1, word for word.
fn mth<H: TreeHash>(leaves: &[Hash32]) -> Hash32 {
    match leaves {
        [] => H::empty(),
        [one] => *one,
        more => {
            let middle = split(more.len() as u64) as usize;
            H::node(&mth::<H>(&more[..middle]), &mth::<H>(&more[middle..]))
        }
    }
}

/// RFC 6962, section 2.1.1.
fn naive_path<H: TreeHash>(index: usize, leaves: &[Hash32]) -> Vec<Hash32> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let middle = split(leaves.len() as u64) as usize;
    let (mut path, other) = if index < middle {
        (naive_path::<H>(index, &leaves[..middle]), mth::<H>(&leaves[middle..]))
    } else {
        (naive_path::<H>(index - middle, &leaves[middle..]), mth::<H>(&leaves[..middle]))
    };
    path.push(other);
    path
}

/// RFC 6962, section 2.1.2.
fn naive_consistency<H: TreeHash>(old: usize, leaves: &[Hash32], known: bool) -> Vec<Hash32> {
    if old == leaves.len() {
        return if known { Vec::new() } else { vec![mth::<H>(leaves)] };
    }
    let middle = split(leaves.len() as u64) as usize;
    let (mut path, other) = if old <= middle {
        (naive_consistency::<H>(old, &leaves[..middle], known), mth::<H>(&leaves[middle..]))
    } else {
        (naive_consistency::<H>(old - middle, &leaves[middle..], false), mth::<H>(&leaves[..middle]))
    };
    path.push(other);
    path
}

fn leaves<H: TreeHash>(count: usize) -> Vec<Hash32> {
    (0..count).map(|i| H::leaf(format!("leaf {i}").as_bytes())).collect()
}

/// Every size up to 40, every index, every older size: proofs are those of the definition, and they verify.
fn check_definition<H: TreeHash>() {
    let all = leaves::<H>(40);
    for size in 1..=all.len() {
        let tree = &all[..size];
        let whole = mth::<H>(tree);
        assert_eq!(root::<H>(tree), whole);
        for index in 0..size {
            let path = inclusion_path::<H>(tree, index as u64).unwrap();
            assert_eq!(path, naive_path::<H>(index, tree));
            verify_inclusion::<H>(&tree[index], index as u64, size as u64, &path, &whole).unwrap();
        }
        for old in 1..=size {
            let path = consistency_path::<H>(tree, old as u64).unwrap();
            assert_eq!(path, naive_consistency::<H>(old, tree, true));
            let before = mth::<H>(&tree[..old]);
            verify_consistency::<H>(old as u64, size as u64, &path, &before, &whole).unwrap();
        }
    }
}

#[test]
fn proofs_are_those_of_the_definition_for_both_hashes() {
    check_definition::<Blake3Frames>();
    check_definition::<Sha256Rfc6962>();
}

#[test]
fn the_frame_tree_has_the_published_keys_and_leaf() {
    assert_eq!(LEAF_KEY, blake3::derive_key("vitalog 2026 frame leaf v1", b""));
    assert_eq!(NODE_KEY, blake3::derive_key("vitalog 2026 tree node v1", b""));
    let expected = "8881f24ec8d5adf719ab867845d89ff3640e4266482e39eabd250823fc9dec02";
    assert_eq!(hex::encode(frame_leaf(b"abc")), expected);
}

#[test]
fn every_subtree_of_every_small_tree_is_proved_and_what_is_no_subtree_is_refused() {
    type H = Sha256Rfc6962;
    let all = leaves::<H>(20);
    for size in 1..=all.len() as u64 {
        let whole = mth::<H>(&all[..size as usize]);
        for start in 0..size {
            for end in start + 1..=size {
                let path = subtree_path::<H>(&all[..size as usize], start, end);
                if !is_subtree(start, end) {
                    assert_eq!(path, Err(ProofError::Range { start, end, size }));
                    continue;
                }
                let part = mth::<H>(&all[start as usize..end as usize]);
                verify_subtree_consistency::<H>((start, end), size, &path.unwrap(), &part, &whole).unwrap();
            }
        }
    }
}

#[test]
fn another_implementation_makes_the_same_roots_and_proofs() {
    let mut theirs = MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new();
    let mut ours = Vec::new();
    for i in 0..130u32 {
        let data = i.to_be_bytes().to_vec();
        ours.push(Sha256Rfc6962::leaf(&data));
        theirs.push(data);
        assert_eq!(root::<Sha256Rfc6962>(&ours).as_slice(), theirs.root().as_bytes().as_slice());
    }
    for index in 0..130usize {
        let path = inclusion_path::<Sha256Rfc6962>(&ours, index as u64).unwrap().concat();
        assert_eq!(path, theirs.prove_inclusion(index).as_bytes());
    }
    for old in 1..130usize {
        let path = consistency_path::<Sha256Rfc6962>(&ours, old as u64).unwrap().concat();
        assert_eq!(path, theirs.prove_consistency(130 - old).as_bytes(), "from {old}");
    }
}

#[test]
fn positions_at_the_edge_of_64_bits_are_answered_and_not_looped_over() {
    let hash = [0; 32];
    for size in [1u64 << 62, 1 << 63, u64::MAX] {
        assert!(inclusion_ranges(size - 1, size).unwrap().len() <= PATH_MAX);
        assert!(subtree_ranges(0, size - 1, size).unwrap().len() <= PATH_MAX);
        for length in [0usize, 1, 63, 64, 65, 1000] {
            let path = vec![hash; length];
            assert!(verify_inclusion::<Sha256Rfc6962>(&hash, size - 1, size, &path, &hash).is_err());
            assert!(verify_consistency::<Sha256Rfc6962>(size - 1, size, &path, &hash, &hash).is_err());
        }
    }
    assert!(!is_subtree(1, u64::MAX) && is_subtree(0, u64::MAX));
}

proptest! {
    /// Whatever single thing is changed in a proof, it no longer holds.
    #[test]
    fn a_changed_inclusion_proof_fails(size in 1u64..200, pick in any::<u64>(), kind in 0..6u8, noise in any::<u64>()) {
        type H = Blake3Frames;
        let all = leaves::<H>(size as usize);
        let whole = root::<H>(&all);
        let index = pick % size;
        let mut path = inclusion_path::<H>(&all, index).unwrap();
        let (mut leaf, mut at, mut expected) = (all[index as usize], index, whole);
        match kind {
            0 => leaf[(noise % 32) as usize] ^= 1 << (noise % 8),
            1 => expected[(noise % 32) as usize] ^= 1 << (noise % 8),
            2 if !path.is_empty() => {
                let which = noise as usize % path.len();
                path[which][5] ^= 4;
            }
            3 => path.push([noise as u8; 32]),
            4 => at = (index + 1 + noise % size.max(2)) % (size + 1),
            _ => {
                prop_assume!(!path.is_empty());
                path.pop();
            }
        }
        prop_assume!((leaf, at, expected) != (all[index as usize], index, whole) || path != inclusion_path::<H>(&all, index).unwrap());
        prop_assert!(verify_inclusion::<H>(&leaf, at, size, &path, &expected).is_err());
    }

    /// A log that changed one old entry cannot show that it extends what it showed before.
    #[test]
    fn a_rewritten_history_has_no_consistency_proof(new in 2u64..120, pick in any::<u64>(), victim in any::<u64>()) {
        type H = Sha256Rfc6962;
        let old = 1 + pick % (new - 1);
        let honest = leaves::<H>(new as usize);
        let mut forged = honest.clone();
        forged[(victim % old) as usize] = H::leaf(b"something else");
        let path = consistency_path::<H>(&forged, old).unwrap();
        let before = root::<H>(&honest[..old as usize]);
        prop_assert!(verify_consistency::<H>(old, new, &path, &before, &root::<H>(&forged)).is_err());
    }

    /// Hostile proofs of any length and position are refused without a panic.
    #[test]
    fn hostile_positions_do_not_panic(a in any::<u64>(), b in any::<u64>(), c in any::<u64>(), length in 0usize..80) {
        let path = vec![[7; 32]; length];
        let _ = verify_inclusion::<Sha256Rfc6962>(&[1; 32], a, b, &path, &[2; 32]);
        let _ = verify_consistency::<Sha256Rfc6962>(a, b, &path, &[1; 32], &[2; 32]);
        let _ = verify_subtree_consistency::<Sha256Rfc6962>((a, b), c, &path, &[1; 32], &[2; 32]);
        let _ = verify_subtree_inclusion::<Sha256Rfc6962>(&[1; 32], a, (b, c), &path, &[2; 32]);
    }
}
