//! The right edge of a growing tree: the roots of its perfect subtrees, biggest first, enough to append and to know the root.
//!
//! 20 M leaves need 24 hashes. What it is not: able to prove anything about old leaves.

use std::marker::PhantomData;

use crate::merkle::{Hash32, TreeHash};

/// The perfect subtrees a tree of `size` leaves consists of, one per set bit of `size`.
#[derive(Debug, Clone)]
pub struct CompactTree<H> {
    size: u64,
    nodes: Vec<Hash32>,
    hash: PhantomData<H>,
}

impl<H: TreeHash> Default for CompactTree<H> {
    fn default() -> Self {
        CompactTree { size: 0, nodes: Vec::new(), hash: PhantomData }
    }
}

impl<H: TreeHash> CompactTree<H> {
    /// Takes up a tree of `size` leaves again. `perfect(level, index)` gives the root of leaves
    /// `index << level .. (index + 1) << level`.
    pub fn load<E>(size: u64, mut perfect: impl FnMut(u8, u64) -> Result<Hash32, E>) -> Result<Self, E> {
        let mut nodes = Vec::new();
        let mut at = 0;
        for level in (0..64u8).rev() {
            if size >> level & 1 == 1 {
                nodes.push(perfect(level, at >> level)?);
                at += 1 << level;
            }
        }
        Ok(CompactTree { size, nodes, hash: PhantomData })
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root of the tree.
    pub fn root(&self) -> Hash32 {
        let mut nodes = self.nodes.iter().rev();
        let Some(last) = nodes.next() else { return H::empty() };
        nodes.fold(*last, |right, left| H::node(left, &right))
    }

    /// Appends a leaf. Each subtree it completes, itself first, is shown to `completed(level, index, root)`.
    pub fn push(&mut self, leaf: Hash32, mut completed: impl FnMut(u8, u64, &Hash32)) {
        let (mut level, mut index, mut root) = (0, self.size, leaf);
        completed(level, index, &root);
        while index & 1 == 1 {
            // One node per set bit of the size: an odd index means the left sibling is there.
            let Some(left) = self.nodes.pop() else { break };
            root = H::node(&left, &root);
            index >>= 1;
            level += 1;
            completed(level, index, &root);
        }
        self.nodes.push(root);
        self.size += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::{self, Sha256Rfc6962};

    #[test]
    fn the_edge_has_the_root_of_the_whole_tree_at_each_size_and_can_be_loaded_again() {
        let leaves: Vec<Hash32> = (0..300u32).map(|i| Sha256Rfc6962::leaf(&i.to_be_bytes())).collect();
        let mut tree = CompactTree::<Sha256Rfc6962>::default();
        for size in 0..=leaves.len() {
            let expected = merkle::root::<Sha256Rfc6962>(&leaves[..size]);
            assert_eq!(tree.root(), expected);
            let Ok(loaded) = CompactTree::<Sha256Rfc6962>::load(size as u64, |level, index| {
                let start = (index as usize) << level;
                Ok::<_, std::convert::Infallible>(merkle::root::<Sha256Rfc6962>(
                    &leaves[start..start + (1 << level)],
                ))
            });
            assert_eq!((loaded.root(), loaded.size()), (expected, size as u64));
            if let Some(leaf) = leaves.get(size) {
                tree.push(*leaf, |level, index, root| {
                    let start = (index as usize) << level;
                    assert_eq!(*root, merkle::root::<Sha256Rfc6962>(&leaves[start..start + (1 << level)]));
                });
            }
        }
    }
}
