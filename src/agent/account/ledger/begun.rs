//! Finishes the transactions that were begun before, so that something new can be sent.
//!
//! Invariants: an anomaly is acted on only after it has lasted, because endpoints lag behind one
//! another; while it lasts, nothing is sent.

use super::{DAY, Ending, Error, Ledger};
use crate::agent::key::sole::Conflict;
use crate::chain::{AccountState, Chain};
use crate::clock::{Clock, Timestamp};
use crate::reputation::survey::{Finding, Odd, survey};
use crate::reputation::tx::{State, Transaction};

/// A reorganisation takes back no older transaction; a chain that does has been started anew.
const REORGANISED_MAX: std::time::Duration = std::time::Duration::from_hours(1);

impl<Ch: Chain, C: Clock> Ledger<Ch, C> {
    /// Returns the account's state once no transaction is unfinished.
    pub(super) async fn settle_all(&self) -> Result<AccountState, Error> {
        let mut odd: Option<(Odd, Timestamp)> = None;
        loop {
            self.sole.clear(&self.clock).await;
            let (account, finding) = self.look_around().await?;
            let now = self.clock.now();
            if self.sole.alarm(now).is_some() {
                continue;
            }
            match finding {
                Finding::Done => return Ok(account),
                Finding::Unfinished(tx) => {
                    odd = None;
                    self.go_on(account, tx).await?;
                }
                Finding::Odd(seen) => {
                    let (known, since) = odd.take().unwrap_or_else(|| (seen.clone(), now));
                    // A clock that was set back restarts the wait.
                    let since = if known == seen && since <= now { since } else { now };
                    if now.since(since) >= self.pace.rules.displace_after {
                        self.believe(seen).await?;
                    } else {
                        odd = Some((seen, since));
                        self.clock.sleep(self.pace.poll).await;
                    }
                }
            }
        }
    }

    async fn look_around(&self) -> Result<(AccountState, Finding), Error> {
        let account = self.chain.account().await?;
        let known = self.journal.account(self.account, account.nonce).await?;
        let now = self.clock.now();
        // Also after a restart, which does not make the other program go away.
        let seen = known.foreign.filter(|at| *at <= now && now.since(*at) < self.sole.quiet());
        if let Some(at) = seen.filter(|_| self.sole.alarm(now).is_none()) {
            let nonce = known.nonce.saturating_sub(1);
            self.sole.conflict(at, Conflict::ForeignTransaction { nonce });
        }
        let since = earlier(now, REORGANISED_MAX);
        let unfinished = self.journal.unfinished(self.account, account.nonce, since).await?;
        let mut finding = survey(account.nonce, known.nonce, unfinished);
        if let Finding::Odd(Odd::Gone(tx)) = &finding
            && self.included(tx).await?.is_some()
        {
            // The count came from an endpoint that lags behind the one with the receipt.
            finding = Finding::Odd(Odd::Fewer { counted: account.nonce });
        }
        if finding == Finding::Done
            && let Some(tx) = self.journal.last_settled(self.account, since).await?
            && tx.nonce < account.nonce
            && self.included(&tx).await?.is_none()
        {
            // It was taken back and its nonce used by another: the count alone does not show that.
            finding = Finding::Odd(Odd::Gone(tx));
        }
        Ok((account, finding))
    }

    /// Acts on an anomaly that has lasted.
    async fn believe(&self, odd: Odd) -> Result<(), Error> {
        match odd {
            Odd::Stranger { nonce, counted } => self.accept(nonce, counted).await,
            Odd::Gone(tx) => {
                let nonce = tx.nonce;
                // `drive` sends it again, or gives it up if another transaction has its nonce.
                tracing::warn!(nonce, "the chain took transaction {nonce} back: begun anew");
                self.journal.reopen(tx.id).await?;
                self.drive(tx).await.map(drop)
            }
            Odd::Fewer { counted } => {
                tracing::warn!(
                    counted,
                    "the chain counts {counted} transactions of this key, fewer than were sent: \
                     going on from there"
                );
                Ok(self.journal.lower(self.account, counted).await?)
            }
        }
    }

    async fn go_on(&self, account: AccountState, tx: Transaction) -> Result<(), Error> {
        let (now, nonce) = (self.clock.now(), tx.nonce);
        if tx.forms.is_empty() {
            // Nothing was ever signed for it, so it can't be in any block.
            return Ok(self.journal.abandon(tx.id, now).await?);
        }
        if tx.state == State::Displaced {
            if let Some(outcome) = self.included(&tx).await? {
                // Its receipt was late: nobody else had used the nonce.
                return Ok(self.journal.record_mined(self.account, &tx, outcome, now).await?);
            }
            if account.nonce > nonce {
                return Ok(self.journal.abandon(tx.id, now).await?);
            }
            self.journal.reopen(tx.id).await?;
        }
        tracing::info!(nonce, "going on with transaction {nonce}");
        match self.drive(tx).await? {
            Ending::Settled(_) | Ending::Displaced => Ok(()),
        }
    }

    /// Records that somebody else used `nonce` and that all below `next` are used; pauses sending
    /// for the quiet time.
    pub(super) async fn accept(&self, nonce: u64, next: u64) -> Result<(), Error> {
        let now = self.clock.now();
        self.journal.accept(self.account, next, now).await?;
        self.sole.conflict(now, Conflict::ForeignTransaction { nonce });
        Ok(())
    }

    /// What the account's transactions cost in the last 24 hours, in wei.
    pub(super) async fn spent(&self) -> Result<u128, Error> {
        Ok(self.journal.spent(self.account, earlier(self.clock.now(), DAY)).await?)
    }
}

fn earlier(now: Timestamp, by: std::time::Duration) -> Timestamp {
    let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_unix_ms(now.unix_ms().saturating_sub(by_ms))
}
