//! Compares the account's transaction count on the chain with the journaled transactions.
//!
//! Must hold: a single reading of the count proves nothing, since endpoints lag behind one another and
//! some lie. A discrepancy ([`Odd`]) is believed only after it has lasted.

use super::tx::{State, Transaction};

/// What needs attention first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// No transaction is pending: the count is the next nonce.
    Done,
    /// This transaction must be carried to its end.
    Unfinished(Transaction),
    /// A discrepancy, which may only be an endpoint's lag.
    Odd(Odd),
}

/// A discrepancy between the count and the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Odd {
    /// The chain counts nonces that no journaled transaction used.
    Stranger {
        /// The first such nonce.
        nonce: u64,
        /// The account's transaction count.
        counted: u64,
    },
    /// A settled transaction is not counted: a reorganisation removed it.
    Gone(Transaction),
    /// The chain counts fewer transactions than are known, and the next nonce is not one of ours to resend.
    Fewer {
        /// The account's transaction count.
        counted: u64,
    },
}

/// Compares `counted` with the journal. All nonces below `known` are explained. `unfinished`, ordered
/// by nonce, are the transactions that are open, given up provisionally, or settled recently under a
/// nonce that is not counted.
pub fn survey(counted: u64, known: u64, unfinished: Vec<Transaction>) -> Finding {
    let is_ours = |nonce: &u64| unfinished.iter().any(|tx| tx.nonce == *nonce);
    if let Some(nonce) = (known..counted).find(|nonce| !is_ours(nonce)) {
        return Finding::Odd(Odd::Stranger { nonce, counted });
    }
    match unfinished.into_iter().next() {
        // A lower nonce is free. Once that is believed, the next transaction fills it.
        Some(tx) if tx.nonce > counted && counted < known => Finding::Odd(Odd::Fewer { counted }),
        Some(tx) if tx.nonce > counted && !tx.forms.is_empty() => Finding::Done,
        Some(tx) if matches!(tx.state, State::Settled(_)) => Finding::Odd(Odd::Gone(tx)),
        Some(tx) => Finding::Unfinished(tx),
        None if counted < known => Finding::Odd(Odd::Fewer { counted }),
        None => Finding::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ids::{Address, Hash};
    use crate::reputation::tx::{Form, Outcome};
    use crate::reputation::{Call, Fees};

    fn open(nonce: u64) -> Transaction {
        let form = Form {
            hash: Hash([1; 32]),
            fees: Fees::Legacy { gas_price: 1 },
            gas_limit: 1,
            signed: Timestamp::from_unix_ms(1),
            raw: vec![1],
        };
        let (contract, call) = (Address::new([9; 20]), Call::Heartbeat);
        Transaction { id: 1, contract, nonce, call, state: State::Open, forms: vec![form] }
    }

    fn settled(nonce: u64) -> Transaction {
        let hash = Hash([1; 32]);
        let outcome = Outcome { hash, block: 1, success: true, gas_used: 1, fee_wei: 1 };
        Transaction { state: State::Settled(outcome), ..open(nonce) }
    }

    #[test]
    fn what_fits_is_gone_on_with() {
        assert_eq!(survey(5, 5, vec![]), Finding::Done);
        assert_eq!(survey(5, 5, vec![open(5)]), Finding::Unfinished(open(5)), "on its way");
        assert_eq!(survey(6, 5, vec![open(5)]), Finding::Unfinished(open(5)), "in a block");
    }

    #[test]
    fn a_nonce_that_nobody_here_used_is_a_strangers() {
        let stranger = |nonce, counted| Finding::Odd(Odd::Stranger { nonce, counted });
        assert_eq!(survey(7, 5, vec![]), stranger(5, 7));
        assert_eq!(survey(7, 5, vec![open(5)]), stranger(6, 7));
    }

    #[test]
    fn what_the_chain_took_back_is_sent_again() {
        assert_eq!(survey(5, 6, vec![settled(5)]), Finding::Odd(Odd::Gone(settled(5))));
    }

    #[test]
    fn a_gap_is_filled_once_the_lower_count_is_believed() {
        let fewer = Finding::Odd(Odd::Fewer { counted: 5 });
        assert_eq!(survey(5, 7, vec![]), fewer);
        assert_eq!(survey(5, 7, vec![settled(6)]), fewer, "a stranger's 5 is gone, and our 6");
        assert_eq!(survey(5, 5, vec![settled(6)]), Finding::Done, "believed: 5 is ours to use");
        assert_eq!(survey(6, 6, vec![settled(6)]), Finding::Odd(Odd::Gone(settled(6))));
        assert_eq!(survey(5, 5, vec![open(1000)]), Finding::Done, "after a lie about the count");
        let unsigned = Transaction { forms: vec![], ..open(1000) };
        assert_eq!(survey(5, 5, vec![unsigned.clone()]), Finding::Unfinished(unsigned));
    }
}
