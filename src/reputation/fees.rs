//! The price that a transaction offers, and its gas limit.
//!
//! Must hold: a replacement raises both prices of the transaction actually sent by at least an eighth,
//! or nodes refuse it. No figure from an endpoint is used unchecked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The highest gas limit. No call of the contract comes near it, nor does its deployment.
const GAS_MAX: u64 = 10_000_000;

/// The price of a unit of gas, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fees {
    /// For chains whose blocks have no base fee.
    Legacy {
        /// The price that is paid.
        gas_price: u128,
    },
    /// EIP-1559, for chains whose blocks have a base fee.
    Eip1559 {
        /// The limit of base fee and tip together (`maxFeePerGas`).
        max: u128,
        /// The limit of the block producer's share (`maxPriorityFeePerGas`).
        tip: u128,
    },
}

impl Fees {
    /// The offer at a chain's present prices: EIP-1559 if its blocks have a base fee.
    pub fn offer(base_fee: Option<u128>, gas_price: u128) -> Self {
        match base_fee {
            None => Self::Legacy { gas_price },
            Some(base) => {
                // `eth_gasPrice` is the base fee plus the tip that the endpoint proposes. Twice the
                // base fee covers its rise over five full blocks.
                let tip = gas_price.saturating_sub(base);
                Self::Eip1559 { max: base.saturating_mul(2).saturating_add(tip), tip }
            }
        }
    }

    /// The most that a unit of gas may cost.
    pub const fn per_gas(self) -> u128 {
        match self {
            Self::Legacy { gas_price } => gas_price,
            Self::Eip1559 { max, .. } => max,
        }
    }

    /// The highest cost of a transaction with this gas limit, in wei.
    pub const fn worst(self, gas_limit: u64) -> u128 {
        self.per_gas().saturating_mul(gas_limit as u128)
    }

    /// The price without the margin for a rising base fee that [`Fees::offer`] adds.
    pub(super) const fn least(self) -> u128 {
        match self {
            Self::Legacy { gas_price } => gas_price,
            Self::Eip1559 { max, tip } => max.saturating_sub(tip).div_ceil(2).saturating_add(tip),
        }
    }

    /// The cost in wei, at unchanged prices, of a transaction whose limit [`gas_limit`] computed: a
    /// sixth of that limit is margin.
    pub const fn usual(self, gas_limit: u64) -> u128 {
        self.least().saturating_mul((gas_limit - gas_limit / 6) as u128)
    }

    /// These fees with a tip of at least `least`, in wei a unit of gas.
    #[must_use]
    pub const fn with_tip(self, least: u128) -> Self {
        match self {
            Self::Legacy { gas_price } if gas_price < least => Self::Legacy { gas_price: least },
            Self::Eip1559 { max, tip } if tip < least => {
                Self::Eip1559 { max: max.saturating_add(least - tip), tip: least }
            }
            enough => enough,
        }
    }

    /// These fees, limited to `allowed` wei a unit of gas.
    pub(super) fn at_most(self, allowed: u128) -> Self {
        match self {
            Self::Legacy { gas_price } => Self::Legacy { gas_price: gas_price.min(allowed) },
            Self::Eip1559 { max, tip } => {
                Self::Eip1559 { max: max.min(allowed), tip: tip.min(allowed) }
            }
        }
    }

    /// The lowest fees that replace a transaction with these fees, or `wanted` if that is higher.
    /// The kind stays the same, since a chain does not lose its base fee.
    #[must_use]
    pub fn replaced_by(self, wanted: Self) -> Self {
        match self {
            Self::Legacy { gas_price } => {
                Self::Legacy { gas_price: bumped(gas_price).max(wanted.per_gas()) }
            }
            Self::Eip1559 { max, tip } => {
                let wanted_tip = match wanted {
                    Self::Legacy { .. } => 0,
                    Self::Eip1559 { tip, .. } => tip,
                };
                let tip = bumped(tip).max(wanted_tip);
                // Every node refuses a tip above the maximum.
                Self::Eip1559 { max: bumped(max).max(wanted.per_gas()).max(tip), tip }
            }
        }
    }
}

/// The price raised by an eighth, rounded up, and by at least 1 wei. 12.5 % is above the replacement
/// step that nodes require (geth and anvil 10 %; some blob pools require more).
fn bumped(price: u128) -> u128 {
    price.saturating_add(price.div_ceil(8)).max(price.saturating_add(1))
}

/// The estimate plus a fifth, since the state may change before the block. `None` above 10 million
/// gas, where the estimate can't be true.
pub fn gas_limit(estimate: u64) -> Option<u64> {
    let limit = estimate.saturating_add(estimate / 5);
    (limit <= GAS_MAX).then_some(limit)
}

/// The number of days that a balance lasts at one transaction of this cost an interval; `None` if
/// transactions cost nothing.
pub fn days_left(balance_wei: u128, fee_wei: u128, interval: Duration) -> Option<u128> {
    let beats = balance_wei.checked_div(fee_wei)?;
    Some(beats.saturating_mul(interval.as_millis()) / Duration::from_hours(24).as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tip_that_is_asked_for_is_offered_at_once() {
        let least = 1_000_000_000;
        let none = Fees::Eip1559 { max: 14, tip: 0 };
        assert_eq!(none.with_tip(least), Fees::Eip1559 { max: 14 + least, tip: least });
        assert_eq!(none.replaced_by(none.with_tip(least)).per_gas(), 14 + least);
        let enough = Fees::Eip1559 { max: 3 * least, tip: 2 * least };
        assert_eq!(enough.with_tip(least), enough);
        let legacy = Fees::Legacy { gas_price: 1 };
        assert_eq!(legacy.with_tip(least), Fees::Legacy { gas_price: least });
    }

    #[test]
    fn the_offer_follows_the_chain() {
        assert_eq!(Fees::offer(None, 7), Fees::Legacy { gas_price: 7 });
        assert_eq!(Fees::offer(Some(100), 103), Fees::Eip1559 { max: 203, tip: 3 });
        // opBNB's base fee is close to zero.
        assert_eq!(Fees::offer(Some(0), 9), Fees::Eip1559 { max: 9, tip: 9 });
        assert_eq!(Fees::offer(Some(9), 8), Fees::Eip1559 { max: 18, tip: 0 });
        assert_eq!(Fees::offer(Some(u128::MAX), 1).worst(u64::MAX), u128::MAX);
    }

    #[test]
    fn a_replacement_pays_an_eighth_more_than_what_was_sent_in_both_prices() {
        let sent = Fees::Eip1559 { max: 1000, tip: 8 };
        let cheap = Fees::Eip1559 { max: 10, tip: 1 };
        assert_eq!(sent.replaced_by(cheap), Fees::Eip1559 { max: 1125, tip: 9 });
        let dear = Fees::Eip1559 { max: 20_000, tip: 100 };
        assert_eq!(sent.replaced_by(dear), dear);
        let no_tip = Fees::Eip1559 { max: 3, tip: 0 };
        assert_eq!(no_tip.replaced_by(no_tip), Fees::Eip1559 { max: 4, tip: 1 });
        let legacy = Fees::Legacy { gas_price: 81 };
        assert_eq!(legacy.replaced_by(legacy), Fees::Legacy { gas_price: 92 });
    }

    #[test]
    fn an_estimate_that_can_not_be_true_is_refused() {
        assert_eq!(gas_limit(50_000), Some(60_000));
        assert_eq!(gas_limit(9_000_000), None);
        assert_eq!(gas_limit(u64::MAX), None);
    }

    #[test]
    fn the_forecast_counts_beats_at_the_last_price() {
        let five = Duration::from_mins(5);
        assert_eq!(days_left(288 * 7, 1, five), Some(7));
        assert_eq!(days_left(0, 1, five), Some(0));
        assert_eq!(days_left(1, 0, five), None, "a free chain");
    }
}
