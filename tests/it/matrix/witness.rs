//! Follows the engine's events beside the test: which container of which job was started when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;

use crate::support::engine::Engine;
use crate::support::tools::eventually;
use crate::support::world::PATIENCE;

/// One event of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Happened {
    what: String,
    job: String,
    container: String,
}

/// All events of an engine's containers, in the engine's order.
#[derive(Debug, Clone, Default)]
pub(super) struct Witness(Arc<Mutex<Vec<Happened>>>);

impl Witness {
    /// Listens as long as the engine lives. It misses nothing: an engine replays earlier events to a new
    /// listener.
    pub(super) fn of(engine: &Engine) -> Self {
        let (witness, client) = (Self::default(), engine.client());
        let seen = witness.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let options = EventsOptionsBuilder::default().since("1").build();
                let mut events = client.events(Some(options)).boxed();
                while let Some(Ok(event)) = events.next().await {
                    seen.note(event);
                }
            });
        });
        witness
    }

    fn note(&self, event: EventMessage) {
        let (Some(what), Some(actor)) = (event.action, event.actor) else { return };
        let labels = actor.attributes.unwrap_or_default();
        let Some(job) = labels.get("lamda.job_id").cloned() else { return };
        let container = actor.id.unwrap_or_default();
        let happened = Happened { what, job, container };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(happened);
    }

    fn seen(&self) -> Vec<Happened> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// To be called once every container is gone: the number of each job's started containers. Asserts that
    /// none was started twice, and never two of a job at a time.
    pub(super) fn starts(&self) -> BTreeMap<String, usize> {
        let those = |seen: &[Happened], what: &str| -> BTreeSet<String> {
            let chosen = seen.iter().filter(|happened| happened.what == what);
            chosen.map(|happened| happened.container.clone()).collect()
        };
        eventually("the engine has told of the end of every container", PATIENCE, || {
            let seen = self.seen();
            (those(&seen, "create") == those(&seen, "destroy")).then_some(())
        });
        let (mut running, mut started) = (BTreeMap::new(), BTreeSet::new());
        let mut starts = BTreeMap::new();
        for Happened { what, job, container } in self.seen() {
            if what == "start" {
                assert!(started.insert(container.clone()), "job {job}: {container} started twice");
                let other = running.insert(job.clone(), container);
                assert_eq!(other, None, "job {job}: two containers ran at a time");
                *starts.entry(job).or_default() += 1;
            } else if what == "die" {
                running.remove(&job);
            }
        }
        assert_eq!(running, BTreeMap::new(), "still running");
        starts
    }
}
