//! A dead man's switch: a service elsewhere that is told each minute that this one is there, and raises the alarm when
//! it isn't told.
//!
//! Must hold: it is told only while what it stands for works; its URL, which may be a secret, stands in no log.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::clock::Clock;
use crate::http::{self, Client, Url};
use crate::report::{BoxError, causes};
use crate::supervise::Failure;

/// How often it is told.
const EVERY: Duration = Duration::from_mins(1);

/// How long it may take to answer.
const WITHIN: Duration = Duration::from_secs(10);

/// A switch that is told. Clones share it.
#[derive(Clone)]
pub struct Switch {
    setting: &'static str,
    url: Url,
    client: Client,
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch").field("setting", &self.setting).finish_non_exhaustive()
    }
}

impl Switch {
    /// The switch at this URL, which `setting` names.
    pub fn new(setting: &'static str, url: Url) -> Result<Self, BoxError> {
        let client = http::client().timeout(WITHIN).build().map_err(http::boxed)?;
        Ok(Self { setting, url, client })
    }

    /// Tells it until it is aborted, each time that `works` has nothing to say against it.
    pub async fn run<C, W, F>(self, clock: C, works: W) -> Result<(), Failure>
    where
        C: Clock,
        W: Fn() -> F,
        F: Future<Output = Result<(), BoxError>>,
    {
        let mut is_warned = false;
        loop {
            let told = match works().await {
                Ok(()) => self.tell().await,
                Err(err) => Err(causes(err.as_ref())),
            };
            match told {
                Ok(()) => is_warned = false,
                Err(why) if !is_warned => {
                    is_warned = true;
                    tracing::warn!(
                        "{} was not told that this program is there: {why}",
                        self.setting
                    );
                }
                Err(_) => {}
            }
            clock.sleep(EVERY).await;
        }
    }

    async fn tell(&self) -> Result<(), String> {
        let sent = self.client.get(self.url.clone()).send().await;
        let answer = sent.map_err(|err| causes(http::boxed(err).as_ref()))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answers {status}")) }
    }
}
