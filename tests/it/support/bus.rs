//! The bus under test, connected to a test's own nats-server.

use lamda_node::bus::{Bus, Config, Credentials, DeliveryMode};

use super::nats::Nats;

/// Settings for the server at `url`; streams are made where they are missing.
pub(crate) fn config(url: String, credentials: Credentials) -> Config {
    Config {
        url,
        credentials,
        tls_ca: None,
        tls_first: false,
        name: "test".to_owned(),
        inbox_prefix: None,
        manage_streams: true,
        mode: DeliveryMode::JetStream,
    }
}

/// A connection without credentials.
pub(crate) async fn connect(nats: &Nats) -> Bus {
    let config = config(nats.url(), Credentials::None);
    Bus::connect(&config).await.expect("the server is there")
}

/// A connection whose streams exist.
pub(crate) async fn prepared(nats: &Nats) -> Bus {
    let bus = connect(nats).await;
    bus.prepare().await.expect("streams");
    bus
}
