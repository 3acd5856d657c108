//! Tells the hub of `HUB_URL` each half minute that the node is there, signed by the node's key
//! ([`crate::fleet::signed`]), and tells everybody else when the hub is silent.
//!
//! Must hold: one call at a time, each with a deadline; nothing of the node waits for the hub; a silence is told once,
//! and its end.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use super::events::Events;
use super::jobs::board::Board;
use super::jobs::desk::Desk;
use super::key::hello::Greeter;
use super::key::sole::Sole;
use super::link::Link;
use crate::backoff::Backoff;
use crate::chain::Key;
use crate::clock::{Clock, Timestamp};
use crate::fleet::kinds;
use crate::fleet::signed::{self, HEADER, SKEW_MAX, Seal};
use crate::http::{self, Client, Url};
use crate::ids::{Hash, Signature};
use crate::node::fitness::Unfit;
use crate::report::{BoxError, causes, one_line};
use crate::supervise::{Failure, Services};

/// How often the hub is told.
const EVERY: Duration = Duration::from_secs(30);

/// The share of that by which beats of many nodes drift apart.
const JITTER: f64 = 0.1;

/// The shortest time between two beats.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the hub may take for one beat.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long the hub may take no beat before that is told.
const PATIENCE: Duration = Duration::from_mins(3);

/// The longest model of a card in a beat, and the longest reason for which the hub takes none, in characters.
const WORDS_MAX: usize = 100;
const WHY_MAX: usize = 300;

/// What is known of the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    /// When it last took a beat.
    pub last: Option<Timestamp>,
    /// Whether it has taken none for [`PATIENCE`].
    pub is_silent: bool,
}

/// What is known of the hub; `None` without one.
pub(super) type Known = Arc<watch::Sender<Option<Heard>>>;

/// Tells the hub. One service.
struct Herald<C> {
    url: Url,
    client: Client,
    key: Arc<Key>,
    instance: Hash,
    sole: Sole,
    link: Link,
    board: Board,
    events: Events,
    known: Known,
    clock: C,
}

/// Starts the service, if there is a hub.
pub(super) fn serve<C: Clock + Clone>(
    services: &mut Services,
    retry: Backoff,
    (hub, key): (Option<Url>, &Arc<Key>),
    (desk, link, greeter): (&Desk<C>, &Link, &Greeter<C>),
    known: &Known,
) {
    let Some(url) = hub else { return };
    let herald = move |client| Herald {
        url: url.clone(),
        client,
        key: Arc::clone(key),
        instance: signed::instance(greeter.me().as_str()),
        sole: greeter.sole.clone(),
        link: link.clone(),
        board: desk.board.clone(),
        events: desk.events.clone(),
        known: Arc::clone(known),
        clock: desk.clock.clone(),
    };
    match http::client().timeout(DEADLINE).build() {
        Ok(client) => {
            let herald = Arc::new(herald(client));
            services.spawn_with("hub", retry, herald, |herald| async move { herald.run().await });
        }
        Err(err) => {
            let why = causes(http::boxed(err).as_ref());
            tracing::warn!("the hub is not told of this node: {why}");
        }
    }
}

impl<C: Clock> Herald<C> {
    async fn run(&self) -> Result<(), Failure> {
        // Who starts in another's place doesn't speak beside it. Without NATS nobody can tell.
        tokio::select! {
            () = self.sole.known_sole() => {}
            () = self.clock.sleep(EVERY) => {}
        }
        let mut ear = Ear::new(self.clock.monotonic());
        // The latest time of a beat that the hub may have taken.
        let mut taken_ms = 0;
        loop {
            let fit = self.board.unfit().is_none();
            if self.sole.is_sole() || !self.link.is_up() {
                let at_ms = next_time(taken_ms, self.clock.now());
                let told = self.tell(at_ms).await;
                if !matches!(told, Err(Missed::Refused(_))) {
                    taken_ms = at_ms;
                }
                self.heard(&mut ear, told.map_err(Missed::why));
            }
            self.clock.sleep(PAUSE).await;
            let wait = EVERY.mul_f64(1.0 - JITTER * fastrand::f64()).saturating_sub(PAUSE);
            tokio::select! {
                () = self.board.becomes_fit(!fit) => {}
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    /// Tells the hub, once.
    async fn tell(&self, at_ms: u64) -> Result<(), Missed> {
        let node = self.key.address();
        let (down, meta) = self.says();
        let body = json!({
            "node_id": node.lower_hex(), "ip": "", "meta": meta,
            "status": if down { "DOWN" } else { "UP" },
        });
        let body = body.to_string();
        let digest = signed::digest(node, self.instance, at_ms, body.as_bytes());
        let signature = Signature(self.key.sign_digest(&digest.0));
        let seal = Seal { node, instance: self.instance, at_ms, signature };
        let url = self.url.join("api/heartbeat").map_err(|err| Missed::Unknown(err.into()))?;
        let post = self.client.post(url).header(HEADER, seal.to_string());
        let post = post.header(http::header::CONTENT_TYPE, "application/json").body(body);
        let answer = http::within(DEADLINE, post.send()).await.map_err(Missed::Unknown)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let why = format!("it answers {}", http::explanation(answer, DEADLINE).await).into();
        // What the hub's disk did not take, the hub may remember.
        Err(if status.is_client_error() { Missed::Refused(why) } else { Missed::Unknown(why) })
    }

    /// Whether the node is down, and what it has and does.
    fn says(&self) -> (bool, String) {
        let (census, unfit) = (self.board.census(), self.board.unfit());
        let (offer, _) = self.board.offered();
        let cards = match offer.gpus.first() {
            Some(gpu) => format!("{}x {}", offer.gpus.len(), one_line(&gpu.model, WORDS_MAX)),
            None => "none".to_owned(),
        };
        let (used, slots, version) = (census.used, census.slots, env!("CARGO_PKG_VERSION"));
        let why = if self.link.is_up() { census.unready } else { Some("nats") };
        let why = why.map(|why| format!(",reason={why}")).unwrap_or_default();
        let meta = format!("gpu={cards},jobs={used}/{slots},version={version}{why}");
        (unfit.is_some_and(|unfit| !matches!(unfit, Unfit::Untried(_))), meta)
    }

    fn heard(&self, ear: &mut Ear, told: Result<(), BoxError>) {
        let why = told.err().map(|err| one_line(&causes(err.as_ref()), WHY_MAX));
        let news = ear.hears(why.is_none(), self.clock.monotonic());
        self.known.send_modify(|known| {
            let before = known.and_then(|known| known.last);
            let last = if why.is_none() { Some(self.clock.now()) } else { before };
            *known = Some(Heard { last, is_silent: ear.is_silent });
        });
        let hub = http::shown(&self.url);
        let why = why.unwrap_or_default();
        match news {
            None => {}
            Some(News::First) => tracing::info!("the hub at {hub} takes this node's beats"),
            Some(News::Misses) => {
                let every_s = EVERY.as_secs();
                tracing::warn!(
                    "the hub at {hub} takes no beat: {why}; it is told each {every_s} s"
                );
            }
            Some(News::Silent) => {
                let text = format!("the hub at {hub} has taken no beat for 3 min: {why}");
                tracing::warn!("{text}; whoever it should wake is not woken by it");
                self.events.tell(kinds::HUB_SILENT, &text, |event| event);
            }
            Some(News::Back { is_told }) => {
                let text = format!("the hub at {hub} takes this node's beats again");
                tracing::info!("{text}");
                if is_told {
                    self.events.tell(kinds::HUB_BACK, &text, |event| event);
                }
            }
        }
    }
}

/// Why a beat was not taken.
#[derive(Debug)]
enum Missed {
    /// The hub has refused it, so that its time is still free.
    Refused(BoxError),
    /// Whether the hub has it is not known.
    Unknown(BoxError),
}

impl Missed {
    fn why(self) -> BoxError {
        match self {
            Self::Refused(why) | Self::Unknown(why) => why,
        }
    }
}

/// The time of the next beat: later than that of the last one which the hub may have taken, also where the clock was set
/// back meanwhile. What the hub took was signed at most [`SKEW_MAX`] ahead of it, and this clock is at most as far
/// behind it if anything is taken now.
fn next_time(last_ms: u64, now: Timestamp) -> u64 {
    let now_ms = now.unix_ms();
    let ahead = last_ms.saturating_add(1).saturating_sub(now_ms);
    if u128::from(ahead) <= 2 * SKEW_MAX.as_millis() {
        now_ms.max(last_ms.saturating_add(1))
    } else {
        now_ms
    }
}

/// What is worth saying about the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// It took a beat for the first time.
    First,
    /// It has begun to take none.
    Misses,
    /// It has taken none for [`PATIENCE`].
    Silent,
    /// It takes beats again; whether its silence was told.
    Back { is_told: bool },
}

/// How long the hub has been silent, by a clock that never steps back.
#[derive(Debug)]
struct Ear {
    last: Duration,
    is_heard: bool,
    misses: bool,
    is_silent: bool,
}

impl Ear {
    const fn new(now: Duration) -> Self {
        Self { last: now, is_heard: false, misses: false, is_silent: false }
    }

    fn hears(&mut self, is_taken: bool, now: Duration) -> Option<News> {
        if is_taken {
            let (was_heard, is_told) = (self.is_heard, self.is_silent);
            let misses = self.misses;
            *self = Self { last: now, is_heard: true, misses: false, is_silent: false };
            return if misses {
                Some(News::Back { is_told })
            } else {
                (!was_heard).then_some(News::First)
            };
        }
        let is_first = !std::mem::replace(&mut self.misses, true);
        if !self.is_silent && now.saturating_sub(self.last) >= PATIENCE {
            self.is_silent = true;
            return Some(News::Silent);
        }
        is_first.then_some(News::Misses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_once_and_so_is_its_end() {
        let mut ear = Ear::new(Duration::ZERO);
        let mut said = Vec::new();
        for (second, is_taken) in [
            (0, true),
            (30, true),
            (60, false),
            (90, false),
            (209, false),
            (210, false),
            (240, false),
            (270, true),
            (300, true),
            (330, false),
            (360, true),
        ] {
            let news = ear.hears(is_taken, Duration::from_secs(second));
            said.extend(news.map(|news| (second, news)));
        }
        let expected = [
            (0, News::First),
            (60, News::Misses),
            (210, News::Silent),
            (270, News::Back { is_told: true }),
            (330, News::Misses),
            (360, News::Back { is_told: false }),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_hub_that_was_never_there_is_silent_too() {
        let mut ear = Ear::new(Duration::from_secs(1_000));
        assert_eq!(ear.hears(false, Duration::from_secs(1_001)), Some(News::Misses));
        assert_eq!(ear.hears(false, Duration::from_secs(1_179)), None);
        assert_eq!(ear.hears(false, Duration::from_secs(1_180)), Some(News::Silent));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_beat_a_repetition() {
        let at = Timestamp::from_unix_ms;
        assert_eq!(next_time(0, at(5_000_000)), 5_000_000);
        assert_eq!(next_time(5_000_000, at(5_000_000)), 5_000_001);
        assert_eq!(next_time(5_000_000, at(4_900_000)), 5_000_001);
        assert_eq!(
            next_time(5_000_000, at(4_400_001)),
            5_000_001,
            "from ahead of the hub to behind it"
        );
        assert_eq!(next_time(5_000_000, at(4_000_000)), 4_000_000, "what it signed was stale");
    }
}
