//! Looks at nodes over a simulated time, on a real database in memory.

use std::sync::Mutex;

use super::*;
use crate::fleet::clocks::Heard;
use crate::fleet::notice::NoticeKind;
use crate::fleet::rule::Condition;
use crate::hub::store::heard::OnNats;
use crate::ids::Address;

/// A clock that the test moves.
#[derive(Debug, Clone)]
struct Hand(Arc<Mutex<Timestamp>>);

impl Hand {
    fn at(ms: u64) -> Self {
        Self(Arc::new(Mutex::new(Timestamp::from_unix_ms(ms))))
    }

    fn forward(&self, seconds: u64) {
        let mut now = self.0.lock().unwrap();
        *now = now.plus(Duration::from_secs(seconds));
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.now().unix_ms())
    }

    async fn sleep(&self, _: Duration) {
        std::future::pending::<()>().await;
    }
}

const NODE: Address = Address::new([7; 20]);

/// A hub with one node of ours, and what it remembers.
struct Hub {
    watcher: Watcher<Hand>,
    alerts: Alerts,
    memory: Memory,
    listening: Arc<watch::Sender<Listening>>,
}

impl Hub {
    /// A hub that begins now, on this database, and knows the node as last heard then.
    async fn start(store: &Store, clock: &Hand, heard: Timestamp, standing: Standing) -> Self {
        let now = clock.now();
        let listening =
            Arc::new(watch::Sender::new(Listening { own: now, nats: Some(now), chain: None }));
        let fleet = Fleet::new([]);
        fleet.update(&NODE.lower_hex(), heard, |node| {
            node.address = Some(NODE);
            node.heard = Heard { nats: Some(heard), is_ours: true, ..Heard::default() };
            node.standing = standing;
        });
        let policy = Policy::default();
        let watcher = Watcher {
            store: store.clone(),
            fleet,
            rules: Arc::new(Rule::standard()),
            patience: Patience {
                own: Duration::from_mins(3),
                nats: Duration::from_mins(1),
                chain: Duration::from_mins(15),
                clash: Duration::from_secs(90),
            },
            policy: policy.clone(),
            listening: Arc::clone(&listening),
            happened: Happened::default(),
            odd: Odd::default(),
            silences: watch::channel(Vec::new()).1,
            channels: vec!["telegram"],
            poke: Arc::default(),
            outbox: Outbox::new(store.book(), Vec::new()),
            live: Live::default(),
            clock: clock.clone(),
        };
        let alerts = store.book().alerts(&policy, now).await.unwrap();
        Self { watcher, alerts, memory: Memory::default(), listening }
    }

    async fn look(&mut self) -> Standing {
        self.watcher.stand().await.unwrap();
        self.watcher.decide(&mut self.alerts, &mut self.memory).await.unwrap();
        self.watcher.fleet.get(&NODE.lower_hex()).unwrap().standing
    }

    fn hear(&self) {
        let now = self.watcher.clock.now();
        self.watcher.fleet.update(&NODE.lower_hex(), now, |node| node.heard.nats = Some(now));
    }
}

/// What waits in the outbox, the oldest first.
async fn told(store: &Store) -> Vec<(NoticeKind, String)> {
    let mut all = store.book().recent_notices(100).await.unwrap();
    all.sort_by_key(|told| told.id);
    all.into_iter().map(|told| (told.notice.kind, told.notice.title)).collect()
}

async fn store_with_the_node(clock: &Hand) -> Store {
    let store = Store::in_memory().unwrap();
    let heard = OnNats { node: NODE, at: clock.now(), seq: None, presence: None };
    store.heard_on_nats(vec![heard], |()| ()).await.unwrap();
    store
}

#[tokio::test]
async fn a_node_that_falls_silent_is_told_once_also_by_a_hub_that_was_restarted() {
    let clock = Hand::at(1_800_000_000_000);
    let store = store_with_the_node(&clock).await;
    let mut hub = Hub::start(&store, &clock, clock.now(), Standing::Up).await;
    assert_eq!(hub.look().await, Standing::Up);
    clock.forward(61);
    assert_eq!(hub.look().await, Standing::Down);
    let name = NODE.lower_hex();
    assert_eq!(told(&store).await, [(NoticeKind::Opened, format!("{name} is down"))]);
    let heard = hub.watcher.fleet.get(&name).unwrap();
    assert_eq!(heard.standing_since.unix_ms(), 1_800_000_060_000, "not when it was noticed");

    let last = heard.heard.nats.unwrap();
    let mut hub = Hub::start(&store, &clock, last, Standing::Down).await;
    clock.forward(1);
    assert_eq!(hub.look().await, Standing::NotWatched, "it may have come back meanwhile");
    clock.forward(61);
    assert_eq!(hub.look().await, Standing::Down);
    assert_eq!(told(&store).await.len(), 1, "it is still the same incident");
    hub.hear();
    assert_eq!(hub.look().await, Standing::Up);
    assert_eq!(told(&store).await[1].0, NoticeKind::Resolved);
}

#[tokio::test]
async fn while_the_hub_is_cut_off_nobody_is_called_down() {
    let clock = Hand::at(1_800_000_000_000);
    let store = store_with_the_node(&clock).await;
    let mut hub = Hub::start(&store, &clock, clock.now(), Standing::Up).await;
    hub.look().await;
    hub.listening.send_modify(|listening| listening.nats = None);
    clock.forward(3_600);
    assert_eq!(hub.look().await, Standing::NotWatched);
    let now = clock.now();
    hub.listening.send_modify(|listening| listening.nats = Some(now));
    clock.forward(30);
    assert_eq!(hub.look().await, Standing::NotWatched);
    hub.hear();
    assert_eq!(hub.look().await, Standing::Up);
    assert!(told(&store).await.is_empty());
}

#[tokio::test]
async fn what_is_odd_about_a_job_holds_for_its_node_by_the_rule_that_looks_for_it() {
    let node = Address::new([0xab; 20]);
    let anomaly = crate::fleet::anomaly::Anomaly::MemorySlope;
    let rule = Rule { when: Condition::Anomaly(anomaly), ..Rule::standard().remove(0) };
    let mut known = Node::new("a".to_owned(), Timestamp::default());
    known.address = Some(node);
    let nodes = [Arc::new(known), Arc::new(Node::new("b".to_owned(), Timestamp::default()))];
    let store = Store::in_memory().unwrap();
    let alerts = store.book().alerts(&Policy::default(), Timestamp::default()).await.unwrap();
    let (happened, mut memory) = (Happened::default(), Memory::default());
    let mut holds = |odd: &super::super::odd::Found, at: u64| {
        let now = Timestamp::from_unix_ms(at);
        let facts = facts::of(&rule, &nodes, (&happened, odd), &mut memory, &alerts, now);
        facts.holds.into_iter().map(|it| (it.node, it.since.unix_ms(), it.why)).collect::<Vec<_>>()
    };
    let odd = BTreeMap::from([((anomaly, node), "it grows".to_owned())]);
    holds(&odd, 7);
    assert_eq!(holds(&odd, 9), [("a".to_owned(), 7, "it grows".to_owned())]);
    assert!(holds(&BTreeMap::new(), 11).is_empty());
}

#[tokio::test]
async fn a_decision_that_could_not_be_written_down_is_made_again() {
    let clock = Hand::at(1_800_000_000_000);
    let store = store_with_the_node(&clock).await;
    let mut hub = Hub::start(&store, &clock, clock.now(), Standing::Up).await;
    clock.forward(61);
    hub.watcher.stand().await.unwrap();
    let before = hub.alerts.clone();
    hub.watcher.decide(&mut hub.alerts, &mut hub.memory).await.unwrap();
    // As after a kill between the decision and its commit: the same incident, not a second one.
    let (nodes, odd) = (hub.watcher.fleet.all(), hub.watcher.odd.found());
    let facts: Vec<_> = (hub.watcher.rules.iter())
        .map(|rule| {
            let happened = &hub.watcher.happened;
            facts::of(rule, &nodes, (happened, &odd), &mut hub.memory, &before, clock.now())
        })
        .collect();
    let again = before.decide(&hub.watcher.rules, &facts, &hub.watcher.policy, clock.now());
    store.book().decided(again, Vec::new()).await.unwrap();
    let alerts = store.book().alerts(&hub.watcher.policy, clock.now()).await.unwrap();
    assert_eq!(alerts.open().count(), 1);
}

#[tokio::test]
async fn a_machine_that_slept_or_whose_clock_was_set_calls_nobody_silent() {
    let clock = Hand::at(1_800_000_000_000);
    let store = store_with_the_node(&clock).await;
    let mut hub = Hub::start(&store, &clock, clock.now(), Standing::Up).await;
    assert_eq!(hub.look().await, Standing::Up);
    clock.forward(3_600);
    hub.watcher.listen_anew(clock.now());
    assert_eq!(hub.look().await, Standing::NotWatched);
    assert!(told(&store).await.is_empty());
    hub.hear();
    assert_eq!(hub.look().await, Standing::Up);
    // The clock is set back: what was heard in the future does not keep the node up.
    let ahead = clock.now().plus(Duration::from_hours(1));
    hub.watcher.fleet.update(&NODE.lower_hex(), ahead, |node| node.heard.nats = Some(ahead));
    hub.watcher.listen_anew(clock.now());
    clock.forward(61);
    assert_eq!(hub.look().await, Standing::Down);
}

#[tokio::test]
async fn a_node_that_beats_under_its_address_is_the_one_on_nats() {
    let clock = Hand::at(1_800_000_000_000);
    let store = Store::in_memory().unwrap();
    let name = NODE.lower_hex();
    let body = format!("{{\"node_id\":\"{name}\"}}");
    let beat = crate::fleet::beat::Beat::parse(body.as_bytes()).unwrap();
    store.beat(beat, clock.now(), |_| ()).await.unwrap();
    let heard = OnNats { node: NODE, at: clock.now(), seq: Some(7), presence: None };
    store.heard_on_nats(vec![heard], |()| ()).await.unwrap();
    let nodes = store.load_all().await.unwrap();
    let [node] = nodes.as_slice() else { panic!("{nodes:?}") };
    assert_eq!((node.address, node.nats_seq), (Some(NODE), Some(7)));
    assert!(node.heard.own.is_some() && node.heard.nats.is_some());
}

#[tokio::test]
async fn a_node_of_nats_keeps_the_name_that_its_owner_gave_it() {
    let clock = Hand::at(1_800_000_000_000);
    let store = store_with_the_node(&clock).await;
    let hub = Hub::start(&store, &clock, clock.now(), Standing::Up).await;
    let fleet = &hub.watcher.fleet;
    assert_eq!(fleet.name_of(NODE), NODE.lower_hex());
    fleet.rename(&NODE.lower_hex(), "rack-1");
    assert_eq!(fleet.name_of(NODE), "rack-1");
    assert!(fleet.get(&NODE.lower_hex()).is_none());
}

#[tokio::test]
async fn a_share_of_the_fleet_that_nobody_watches_is_neither_over_nor_new() {
    let clock = Hand::at(1_800_000_000_000);
    let store = store_with_the_node(&clock).await;
    let mut hub = Hub::start(&store, &clock, clock.now(), Standing::Up).await;
    let when = Condition::Share { percent: 50.0, of_at_least: 1 };
    let rule = Rule { name: "swarm".to_owned(), when, ..Rule::standard().remove(0) };
    hub.watcher.rules = Arc::new(vec![rule]);
    clock.forward(61);
    hub.look().await;
    assert_eq!(told(&store).await.len(), 1);
    hub.listening.send_modify(|listening| listening.nats = None);
    assert_eq!(hub.look().await, Standing::NotWatched);
    assert_eq!(told(&store).await.len(), 1, "it is not over");
}
