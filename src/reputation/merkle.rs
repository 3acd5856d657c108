//! The tree of receipts that a heartbeat commits to, and the proof that a receipt is in it.
//!
//! A leaf is the hash of a receipt's digest, a node the hash of its two children in ascending
//! order; an odd node rises unchanged; a single leaf is the root. Leaves come in the order of
//! their receipts' `finishedAt`, then job id.
//!
//! What must hold: `OpenZeppelin`'s `MerkleProof.verify` accepts the same proofs (tests ask it). A
//! digest is hashed once more before it becomes a leaf, so that no inner node, which is the hash of
//! 64 bytes, passes for one.

use crate::ids::Hash;
use crate::ids::hash::keccak256;

/// A root counts its leaves in 32 bits, so that no way to it is longer.
pub const PROOF_MAX: usize = 32;

/// The leaf of a receipt with this EIP-712 digest.
pub fn leaf(digest: Hash) -> Hash {
    keccak256(&digest.0)
}

/// The root over these receipts; `None` where there are none.
pub fn root(digests: &[Hash]) -> Option<Hash> {
    let mut level = leaves(digests);
    while level.len() > 1 {
        level = parents(&level);
    }
    level.first().copied()
}

/// What leads from the receipt at `index` to the root; `None` where there is no such receipt.
pub fn proof(digests: &[Hash], index: usize) -> Option<Vec<Hash>> {
    digests.get(index)?;
    let (mut level, mut index) = (leaves(digests), index);
    let mut siblings = Vec::new();
    while level.len() > 1 {
        // An odd node has none: it rises unchanged.
        siblings.extend(level.get(index ^ 1));
        level = parents(&level);
        index /= 2;
    }
    Some(siblings)
}

/// Whether the proof leads from the receipt with this digest to the root.
pub fn verify(digest: Hash, proof: &[Hash], root: Hash) -> bool {
    proof.len() <= PROOF_MAX
        && proof.iter().fold(leaf(digest), |node, next| pair(node, *next)) == root
}

fn leaves(digests: &[Hash]) -> Vec<Hash> {
    digests.iter().copied().map(leaf).collect()
}

fn parents(level: &[Hash]) -> Vec<Hash> {
    let parent = |children: &[Hash]| match *children {
        [left, right] => pair(left, right),
        _ => children[0],
    };
    level.chunks(2).map(parent).collect()
}

fn pair(a: Hash, b: Hash) -> Hash {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&a.min(b).0);
    bytes[32..].copy_from_slice(&a.max(b).0);
    keccak256(&bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    /// Made by tests/oracle/merkle.py; contracts/test/MerkleProof.t.sol holds `OpenZeppelin`'s
    /// library to the same file.
    const VECTORS: &str = include_str!("../../contracts/test/vectors/receipts.json");

    #[derive(Deserialize)]
    struct Vectors {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        digests: Vec<Hash>,
        root: Hash,
        proofs: Vec<Vec<Hash>>,
    }

    fn digests(count: u8) -> Vec<Hash> {
        (0..count).map(|n| keccak256(&[n])).collect()
    }

    #[test]
    fn another_implementation_makes_the_same_trees() {
        let vectors: Vectors = serde_json::from_str(VECTORS).unwrap();
        assert!(!vectors.cases.is_empty());
        for case in vectors.cases {
            assert_eq!(root(&case.digests), Some(case.root));
            assert_eq!(case.proofs.len(), case.digests.len());
            for (index, expected) in case.proofs.iter().enumerate() {
                assert_eq!(proof(&case.digests, index).as_ref(), Some(expected));
                assert!(verify(case.digests[index], expected, case.root));
            }
        }
    }

    #[test]
    fn there_is_no_tree_without_receipts_and_one_is_its_own_root() {
        assert_eq!(root(&[]), None);
        assert_eq!(proof(&[], 0), None);
        let [only] = digests(1)[..] else { unreachable!() };
        assert_eq!(root(&[only]), Some(leaf(only)));
        assert_eq!(proof(&[only], 0), Some(Vec::new()));
        assert_eq!(proof(&[only], 1), None);
    }

    #[test]
    fn an_inner_node_does_not_pass_for_a_receipt() {
        let all = digests(4);
        let root = root(&all).unwrap();
        let inner = pair(leaf(all[0]), leaf(all[1]));
        let beside = pair(leaf(all[2]), leaf(all[3]));
        assert_eq!(pair(inner, beside), root);
        assert!(!verify(inner, &[beside], root));
    }

    #[test]
    fn a_proof_without_end_is_refused() {
        let siblings = vec![Hash([7; 32]); PROOF_MAX + 1];
        let climb = |proof: &[Hash]| proof.iter().fold(leaf(Hash([1; 32])), |a, b| pair(a, *b));
        assert!(verify(Hash([1; 32]), &siblings[1..], climb(&siblings[1..])));
        assert!(!verify(Hash([1; 32]), &siblings, climb(&siblings)));
    }

    proptest! {
        #[test]
        fn every_receipt_is_proved_and_no_other(count in 1_u8..70, pick: prop::sample::Index) {
            let all = digests(count);
            let (root, index) = (root(&all).unwrap(), pick.index(all.len()));
            let proof = proof(&all, index).unwrap();
            prop_assert!(proof.len() <= 7);
            prop_assert!(verify(all[index], &proof, root));
            for (other, digest) in all.iter().enumerate().filter(|(other, _)| *other != index) {
                prop_assert!(!verify(*digest, &proof, root), "{other} with {index}'s proof");
            }
            prop_assert!(!verify(keccak256(&[count]), &proof, root), "a stranger");
        }

        #[test]
        fn a_changed_bit_breaks_a_proof(count in 2_u8..40, at: prop::sample::Index, bit in 0_usize..256) {
            let all = digests(count);
            let (root, index) = (root(&all).unwrap(), at.index(all.len()));
            let mut proof = proof(&all, index).unwrap();
            let step = at.index(proof.len());
            proof[step].0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!verify(all[index], &proof, root));
        }

        #[test]
        fn another_order_or_a_missing_receipt_is_another_tree(count in 3_u8..40, at: prop::sample::Index) {
            let all = digests(count);
            let at = at.index(all.len());
            let mut fewer = all.clone();
            fewer.remove(at);
            prop_assert_ne!(root(&fewer), root(&all));
            // Siblings may be exchanged; the first and the last are none.
            let mut swapped = all.clone();
            swapped.swap(0, all.len() - 1);
            prop_assert_ne!(root(&swapped), root(&all));
        }
    }
}
