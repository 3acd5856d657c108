//! What the node may spend on transactions: `TX_FEE_MAX` each, `DAY_FEE_MAX` within 24 hours.

use super::{
    AccountState, Chain, Clock, Error, LOCAL_CHAINS, Ledger, Limits, Quote, Rules, Transaction,
    chain,
};

/// The limits of what the node may spend, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spending {
    /// The most that one transaction may cost.
    pub transaction_max_wei: u128,
    /// The most that all transactions of 24 hours may cost.
    pub day_max_wei: u128,
}

impl Spending {
    /// The owner's limits. By default far more than opBNB asks for and far less than would hurt; on
    /// a local chain, where money is free, practically no limit.
    pub fn of(chain_id: u64, set: Limits) -> Self {
        const COIN: u128 = 1_000_000_000_000_000_000;
        let (transaction, day) = if LOCAL_CHAINS.contains(&chain_id) {
            (COIN, 1000 * COIN)
        } else {
            (COIN / 1000, COIN / 100)
        };
        Self {
            transaction_max_wei: set.transaction_max_wei.unwrap_or(transaction),
            day_max_wei: set.day_max_wei.unwrap_or(day),
        }
    }
}

impl<Ch: Chain, C: Clock> Ledger<Ch, C> {
    /// Checks that the account and the day's budget can pay for the call.
    pub(super) async fn afford(&self, account: AccountState, quote: Quote) -> Result<(), Error> {
        let worst = quote.fees.worst(quote.gas_limit);
        if account.balance_wei < worst {
            let account = self.account.address;
            return Err(chain::Error::Unpaid { account }.into());
        }
        let spent = self.spent().await?;
        if spent.saturating_add(worst) > self.spending.day_max_wei {
            return Err(Error::DaySpent);
        }
        Ok(())
    }

    /// The rules, with the fee limited to what this transaction can still use of the day's budget
    /// and of the account.
    pub(super) async fn rules_for(&self, tx: &Transaction) -> Result<Rules, Error> {
        let own = tx.forms.iter().map(|form| form.fees.worst(form.gas_limit)).max().unwrap_or(0);
        let others = self.spent().await?.saturating_sub(own);
        let left = self.spending.day_max_wei.saturating_sub(others);
        let balance = self.chain.account().await?.balance_wei;
        let rules = self.pace.rules;
        Ok(Rules { fee_max_wei: rules.fee_max_wei.min(left).min(balance), ..rules })
    }
}
