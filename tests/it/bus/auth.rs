//! How a node authenticates to a NATS server: over TLS, by nkey, by a user's JWT. Each server is real
//! and refuses other keys.

use std::path::{Path, PathBuf};

use lamda_node::bus::{Bus, Config, Credentials, Error, Kept};
use lamda_node::secret::Secret;
use nkeys::KeyPair;

use crate::support::bus::config;
use crate::support::nats::Nats;
use crate::support::nats_auth::{certificates, creds, operated};

/// Connects and makes the streams.
async fn greet(config: &Config) -> Result<(), Error> {
    Bus::connect(config).await?.prepare().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_tls_is_believed_only_with_its_authority() {
    let (dir, authority) = certificates();
    let (_strangers, stranger) = certificates();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let nats = Nats::with(&format!(
        "tls {{ cert_file: {:?}, key_file: {:?} }}\nauthorization {{ user: node, password: pass }}",
        file("server.pem"),
        file("server.key")
    ));
    let url = format!("tls://127.0.0.1:{}", nats.port());
    let user = || Credentials::UserPassword("node".to_owned(), Kept::Here(Secret::new("pass")));
    let with = |tls_ca: Option<PathBuf>| Config { tls_ca, ..config(url.clone(), user()) };
    greet(&with(Some(authority))).await.unwrap();
    for unknown in [None, Some(stranger)] {
        let refused = greet(&with(unknown)).await.unwrap_err();
        assert!(matches!(refused, Error::Untrusted { .. }), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_known_by_its_nkey() {
    let (user, stranger) = (KeyPair::new_user(), KeyPair::new_user());
    let nats =
        Nats::with(&format!("authorization {{ users: [ {{ nkey: {} }} ] }}", user.public_key()));
    let by =
        |pair: &KeyPair| Credentials::Nkey(Kept::Here(Secret::new(pair.seed().expect("a seed"))));
    greet(&config(nats.url(), by(&user))).await.unwrap();
    let refused = greet(&config(nats.url(), by(&stranger))).await.unwrap_err();
    assert!(matches!(refused, Error::Unauthorized { .. }), "{refused}");
}

fn credentials(dir: &Path, account: &KeyPair) -> Credentials {
    let file = dir.join(format!("{}.creds", account.public_key()));
    std::fs::write(&file, creds(account, None)).expect("it is written");
    Credentials::File(file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_known_by_the_jwt_of_its_account() {
    let dir = tempfile::tempdir().expect("a folder");
    let (account, stranger) = (KeyPair::new_account(), KeyPair::new_account());
    let nats = Nats::with(&operated(&account));
    let known = credentials(dir.path(), &account);
    greet(&config(nats.url(), known)).await.unwrap();
    let refused = greet(&config(nats.url(), credentials(dir.path(), &stranger))).await.unwrap_err();
    assert!(matches!(refused, Error::Unauthorized { .. }), "{refused}");
}
