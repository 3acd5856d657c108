//! What the live views of SOLLOL's dashboard show: written once for all who watch, as it happens.
//!
//! Must hold: nobody who watches holds up the others or the hub; who is too slow learns that he has lost something.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::apps::{self, Apps};
use super::fleet::{Change, Fleet, Node};
use crate::clock::{Clock, Timestamp};
use crate::fleet::Event;
use crate::fleet::clocks::Standing;
use crate::fleet::seed_view::sockets::{self, There, View};
use crate::ids::Address;
use crate::web::extract::ws::Utf8Bytes;

/// The most sockets at a time.
pub const SOCKETS_MAX: usize = 256;

/// How many messages a socket may be behind.
pub const MESSAGES_MAX: usize = 1_024;

/// How often the views that say how much they watch say so.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How often the applications are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// A message for those who watch a view.
#[derive(Debug, Clone)]
pub struct Message {
    /// The view.
    pub view: View,
    /// The node that it is about; `None`: about all of them.
    pub about: Option<Arc<str>>,
    /// The message.
    pub text: Utf8Bytes,
}

/// The live views. Clones share them.
#[derive(Debug, Clone)]
pub struct Views {
    messages: broadcast::Sender<Message>,
    places: Arc<Semaphore>,
}

impl Default for Views {
    fn default() -> Self {
        Self {
            messages: broadcast::channel(MESSAGES_MAX).0,
            places: Arc::new(Semaphore::new(SOCKETS_MAX)),
        }
    }
}

/// What each node is called and how it is there.
type Known = BTreeMap<Arc<str>, (There, Option<Address>)>;

impl Views {
    /// A place for one who watches; `None`: there are too many.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// What is told from now on.
    pub fn watch(&self) -> broadcast::Receiver<Message> {
        self.messages.subscribe()
    }

    /// How many watch.
    pub fn sockets(&self) -> usize {
        SOCKETS_MAX.saturating_sub(self.places.available_permits())
    }

    /// Waits until nobody watches any more, at most so long.
    pub async fn gone(&self, most: Duration) {
        let all = u32::try_from(SOCKETS_MAX).unwrap_or(u32::MAX);
        timeout(most, self.places.acquire_many(all)).await.ok();
    }

    /// Shows an event that was just heard.
    pub fn event(&self, event: &Event) {
        if self.messages.receiver_count() == 0 {
            return;
        }
        let about: Arc<str> = event.node.lower_hex().into();
        for (view, text) in sockets::messages(event) {
            self.send(view, Some(&about), text);
        }
    }

    /// What one who begins to watch is told first.
    pub fn picture(
        &self,
        view: View,
        fleet: &Fleet,
        apps: &Apps,
        clock: &impl Clock,
    ) -> Vec<Message> {
        let now = clock.now();
        let message = |about: Option<&Arc<str>>, text: String| Message {
            view,
            about: about.cloned(),
            text: text.into(),
        };
        match view {
            View::Nodes | View::Backends => {
                let known = known(fleet);
                let told = known.iter().flat_map(|(name, (there, address))| {
                    let about = about(name, *address);
                    let told = sockets::changed(name, None, Some(*there), now);
                    told.into_iter().map(move |(of, text)| (of, about.clone(), text))
                });
                let told = told.filter(|(of, ..)| *of == view);
                let mut told: Vec<_> =
                    told.map(|(_, about, text)| message(Some(&about), text)).collect();
                let count = count(view, &known);
                told.extend(sockets::heartbeat(view, count, now).map(|text| message(None, text)));
                told
            }
            View::Applications => {
                let told = apps::changes(&BTreeMap::new(), &apps.names(clock), now);
                told.into_iter().map(|text| message(None, text)).collect()
            }
            _ => view.greeting(now).map(|text| message(None, text)).into_iter().collect(),
        }
    }

    /// Tells what changes about nodes and applications, until `end`.
    pub async fn tell(
        &self,
        fleet: &Fleet,
        apps: &Apps,
        clock: &impl Clock,
        end: &CancellationToken,
    ) {
        let mut changes = fleet.watch();
        let (mut nodes, mut names) = (known(fleet), apps.names(clock));
        let (mut beats, mut looks) = (interval(HEARTBEAT), interval(LOOK));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                change = changes.recv() => self.follow(change, &mut nodes, fleet, clock.now()),
                _ = looks.tick() => {
                    let after = apps.names(clock);
                    for text in apps::changes(&names, &after, clock.now()) {
                        self.send(View::Applications, None, text);
                    }
                    names = after;
                }
                _ = beats.tick() => {
                    for (view, count) in [
                        (View::Nodes, count(View::Nodes, &nodes)),
                        (View::Backends, count(View::Backends, &nodes)),
                        (View::Applications, names.len()),
                    ] {
                        if let Some(text) = sockets::heartbeat(view, count, clock.now()) {
                            self.send(view, None, text);
                        }
                    }
                }
            }
        }
    }

    /// Takes up a change of the fleet.
    fn follow(
        &self,
        change: Result<Change, RecvError>,
        nodes: &mut Known,
        fleet: &Fleet,
        now: Timestamp,
    ) {
        match change {
            Ok(Change::Put(node)) => {
                let name: Arc<str> = node.name.as_str().into();
                let after = (there(&node), node.address);
                let before = nodes.insert(Arc::clone(&name), after);
                self.changed(&name, before, Some(after), now);
            }
            Ok(Change::Gone(name)) => {
                let before = nodes.remove(&name);
                self.changed(&name, before, None, now);
            }
            Err(RecvError::Lagged(_)) => {
                let after = known(fleet);
                let before = std::mem::replace(nodes, after.clone());
                for (name, was) in &before {
                    self.changed(name, Some(*was), after.get(name).copied(), now);
                }
                for (name, is) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
                    self.changed(name, None, Some(*is), now);
                }
            }
            // The fleet lives as long as this.
            Err(RecvError::Closed) => {}
        }
    }

    fn changed(
        &self,
        name: &Arc<str>,
        before: Option<(There, Option<Address>)>,
        after: Option<(There, Option<Address>)>,
        now: Timestamp,
    ) {
        let address = after.or(before).and_then(|(_, address)| address);
        let (before, after) = (before.map(|it| it.0), after.map(|it| it.0));
        for (view, text) in sockets::changed(name, before, after, now) {
            self.send(view, Some(&about(name, address)), text);
        }
    }

    fn send(&self, view: View, about: Option<&Arc<str>>, text: String) {
        // Nobody may watch.
        self.messages.send(Message { view, about: about.cloned(), text: text.into() }).ok();
    }
}

/// By what the messages about a node are found: its address, if it has one.
fn about(name: &Arc<str>, address: Option<Address>) -> Arc<str> {
    address.map_or_else(|| Arc::clone(name), |address| address.lower_hex().into())
}

fn there(node: &Node) -> There {
    There { is_healthy: node.standing == Standing::Up, is_backend: node.address.is_some() }
}

fn known(fleet: &Fleet) -> Known {
    let all = fleet.all();
    all.iter().map(|node| (node.name.as_str().into(), (there(node), node.address))).collect()
}

/// How many a view watches.
fn count(view: View, nodes: &Known) -> usize {
    match view {
        View::Backends => nodes.values().filter(|(it, _)| it.is_backend && it.is_healthy).count(),
        _ => nodes.len(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::clock::SystemClock;
    use crate::fleet::kinds;

    fn next(told: &mut broadcast::Receiver<Message>, view: View) -> Value {
        loop {
            let message = told.try_recv().expect("it is told");
            if message.view == view {
                return serde_json::from_str(message.text.as_str()).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn who_loses_changes_of_the_fleet_is_told_their_sum() {
        let (views, fleet) = (Views::default(), Fleet::new([]));
        let now = Timestamp::from_unix_ms(1);
        fleet.update("old", now, |_| ());
        fleet.update("sick", now, |_| ());
        let mut nodes = known(&fleet);
        fleet.update("new", now, |node| node.address = Some(Address::new([7; 20])));
        fleet.remove("old");
        fleet.update("sick", now, |node| node.standing = Standing::Down);
        let mut told = views.watch();
        views.follow(Err(RecvError::Lagged(9)), &mut nodes, &fleet, now);
        assert_eq!(next(&mut told, View::Nodes)["type"], "node_removed");
        assert_eq!(next(&mut told, View::Nodes)["new_status"], "unhealthy");
        assert_eq!(next(&mut told, View::Nodes)["node"], "new");
        assert_eq!(next(&mut told, View::Backends)["backend"], "new");
        assert_eq!(nodes, known(&fleet));
    }

    #[tokio::test]
    async fn an_event_is_written_for_all_its_views_and_for_nobody_if_nobody_watches() {
        let views = Views::default();
        let event =
            Event::new(kinds::JOB_RUNNING, Address::new([7; 20]), Timestamp::default(), "it runs");
        let event = event.about(&"j".parse().unwrap());
        views.event(&event);
        let mut told = views.watch();
        views.event(&event);
        assert_eq!(next(&mut told, View::Logs)["message"], "it runs");
        assert_eq!(next(&mut told, View::RoutingEvents)["event_type"], "TASK_START");
        assert!(told.try_recv().is_err(), "it was told once");
    }

    #[tokio::test]
    async fn a_picture_has_each_node_once_and_how_many_there_are() {
        let (views, fleet) = (Views::default(), Fleet::new([]));
        for name in ["a", "b"] {
            fleet.update(name, Timestamp::default(), |_| ());
        }
        let apps = Apps::default();
        let told = views.picture(View::Nodes, &fleet, &apps, &SystemClock);
        let read = |it: &Message| serde_json::from_str::<Value>(it.text.as_str()).unwrap();
        let told: Vec<Value> = told.iter().map(read).collect();
        assert_eq!((told.len(), &told[2]["nodes_count"]), (3, &2.into()));
        let backends = views.picture(View::Backends, &fleet, &apps, &SystemClock);
        assert_eq!(read(&backends[0])["backends_count"], 0);
        let traces = views.picture(View::Traces, &fleet, &apps, &SystemClock);
        assert_eq!(read(&traces[0])["type"], "connected");
    }
}
