//! What a transaction offers to pay, and how much gas it may use. Pure.
//!
//! What must hold: an endpoint that lies about prices can't spend the node's balance on one
//! heartbeat.

use super::Error;

/// No call of the contract, nor its deployment, comes near; an estimate above it is a lie.
const GAS_MAX: u64 = 10_000_000;

/// 5,000 gwei: far above what any chain asks for in a rush.
const FEE_PER_GAS_MAX: u128 = 5_000_000_000_000;

/// A price for each unit of gas, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fees {
    Legacy { gas_price: u128 },
    Eip1559 { max: u128, tip: u128 },
}

impl Fees {
    /// EIP-1559 where the chain's blocks have a base fee, else one gas price.
    pub(super) fn offer(base_fee: Option<u128>, gas_price: u128) -> Result<Self, Error> {
        let fees = match base_fee {
            None => Self::Legacy { gas_price },
            Some(base) => {
                // The gas price is the base fee with the tip that the endpoint proposes. Twice
                // the base fee covers its rise over five full blocks.
                let tip = gas_price.saturating_sub(base);
                Self::Eip1559 { max: base.saturating_mul(2).saturating_add(tip), tip }
            }
        };
        if fees.per_gas() > FEE_PER_GAS_MAX {
            let reason = format!("a fee of {} wei for a unit of gas", fees.per_gas());
            return Err(Error::Unexpected { reason });
        }
        Ok(fees)
    }

    /// The most that a unit of gas may cost.
    pub(super) fn per_gas(self) -> u128 {
        match self {
            Self::Legacy { gas_price } => gas_price,
            Self::Eip1559 { max, .. } => max,
        }
    }
}

/// The estimate and a fifth more: the state may change before the block.
pub(super) fn gas_limit(estimate: u64) -> Result<u64, Error> {
    let limit = estimate.saturating_add(estimate / 5);
    if limit > GAS_MAX {
        return Err(Error::Unexpected { reason: format!("an estimate of {estimate} gas") });
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offer_follows_the_chain() {
        let legacy = Fees::offer(None, 7).unwrap();
        assert_eq!(legacy, Fees::Legacy { gas_price: 7 });
        let modern = Fees::offer(Some(100), 103).unwrap();
        assert_eq!((modern, modern.per_gas()), (Fees::Eip1559 { max: 203, tip: 3 }, 203));
        // opBNB's base fee is next to nothing.
        assert_eq!(Fees::offer(Some(0), 9).unwrap(), Fees::Eip1559 { max: 9, tip: 9 });
        assert_eq!(Fees::offer(Some(9), 8).unwrap(), Fees::Eip1559 { max: 18, tip: 0 });
        assert_eq!(gas_limit(50_000).unwrap(), 60_000);
    }

    #[test]
    fn a_price_that_would_eat_the_balance_is_not_paid() {
        for (base, price) in [(None, u128::MAX), (Some(u128::MAX), 1), (Some(1), u128::MAX)] {
            assert!(Fees::offer(base, price).is_err());
        }
        assert!(gas_limit(u64::MAX).is_err());
        assert!(gas_limit(9_000_000).is_err());
    }
}
