//! Tells from time to time which of the services that the node leans on answer. Whoever uses a service notes
//! that; nobody is asked for this.

use std::sync::PoisonError;
use std::time::Duration;

use super::Events;
use crate::fleet::kinds;
use crate::supervise::Failure;

/// The first one is told once the node has met most services.
const FIRST: Duration = Duration::from_secs(10);

/// The most addresses that are named.
const NAMED_MAX: usize = 32;

/// A service that never ends.
pub(super) async fn run(events: Events, every: Duration) -> Result<(), Failure> {
    tokio::time::sleep(FIRST.min(every)).await;
    loop {
        tell(&events);
        tokio::time::sleep(every).await;
    }
}

fn tell(events: &Events) {
    let Some(inner) = &events.0 else { return };
    let services = inner.services.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let answer: Vec<_> =
        services.iter().filter(|(_, answers)| **answers).map(|(name, _)| name.clone()).collect();
    let silent: Vec<_> =
        services.iter().filter(|(_, answers)| !**answers).map(|(name, _)| name.clone()).collect();
    let (all, active) = (services.len(), answer.len());
    let text = match silent.as_slice() {
        [] => format!("all {all} services answer"),
        silent => format!("{active} of {all} services answer, not: {}", silent.join(", ")),
    };
    let named: Vec<_> = answer.into_iter().take(NAMED_MAX).collect();
    let status = if silent.is_empty() { "healthy" } else { "degraded" };
    events.tell(kinds::REGISTRY_HEARTBEAT, &text, |event| {
        let event = event.with("model", "rpc_backends").with("type", "heartbeat");
        let event = event.with("rpc_backends", active).with("rpc_addresses", named);
        let event = event.with("status", status);
        event.with("total_configured", all).with("total_active", active)
    });
}
