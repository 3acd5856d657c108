//! SOLLOL's dashboard, which lists the applications that register with it.
//!
//! Must hold: each request has a deadline, and no answer is read beyond its status.

use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{self, Client, InvalidUrl};
use crate::ids::Address;
use crate::report::BoxError;

/// Time limit for one request.
const ANSWER: Duration = Duration::from_secs(5);

/// What the dashboard shows as the kind of this application.
const ROUTER: &str = "LamdaNode";

/// A dashboard, for one node.
#[derive(Debug, Clone)]
pub struct Dashboard {
    client: Client,
    url: http::Url,
    node: Address,
}

/// What a node does with the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Puts the node on the list.
    Register,
    /// Says that the node is still there; the dashboard takes an unknown one as registered.
    Heartbeat,
    /// Takes the node off the list.
    Unregister,
}

/// The dashboard did not take a call.
#[derive(Debug, thiserror::Error)]
#[error("the dashboard at {url} does not take it")]
pub struct Error {
    url: String,
    #[source]
    source: BoxError,
}

impl Dashboard {
    /// The dashboard at this URL.
    pub fn new(url: &str, node: Address) -> Result<Self, InvalidUrl> {
        let client = http::client().timeout(ANSWER).build().map_err(|_| InvalidUrl)?;
        Ok(Self { client, url: http::base_url(url)?, node })
    }

    /// Makes a call. Repeatable.
    pub async fn call(&self, call: Call) -> Result<(), Error> {
        let failed = |source| Error { url: http::shown(&self.url), source };
        let path = match call {
            Call::Register => "api/applications/register",
            Call::Heartbeat => "api/applications/heartbeat",
            Call::Unregister => "api/applications/unregister",
        };
        let url = self.url.join(path).map_err(|err| failed(err.into()))?;
        let body = match call {
            Call::Register | Call::Heartbeat => self.told(),
            Call::Unregister => json!({"app_id": self.app_id()}),
        };
        let sent = http::within(ANSWER, self.client.post(url).json(&body).send()).await;
        let status = sent.map_err(failed)?.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(failed(format!("it answers {status}").into()))
        }
    }

    fn told(&self) -> Value {
        json!({
            "app_id": self.app_id(),
            "name": format!("lamda-node {}", self.node),
            "router_type": ROUTER,
            "version": env!("CARGO_PKG_VERSION"),
            "metadata": {"node": self.node},
        })
    }

    /// A UUID that is the node's for ever, so that a restart doesn't list it twice.
    fn app_id(&self) -> String {
        let hex = self.node.lower_hex();
        let digits: Vec<char> = hex.trim_start_matches("0x").chars().take(30).collect();
        let part = |from: usize, to: usize| {
            digits.get(from..to).unwrap_or_default().iter().collect::<String>()
        };
        // Version 8, whose other digits are free.
        format!(
            "{}-{}-8{}-8{}-{}",
            part(0, 8),
            part(8, 12),
            part(12, 15),
            part(15, 18),
            part(18, 30)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_app_id_of_the_form_of_a_uuid() {
        let of = |byte| Dashboard::new("http://h:8080", Address::new([byte; 20])).unwrap().app_id();
        assert_eq!(of(0xab), "abababab-abab-8aba-8bab-abababababab");
        assert_ne!(of(1), of(2));
    }
}
