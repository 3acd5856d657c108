//! How a node greets a NATS server: over TLS, by nkey, by a user's JWT. Each server is real and
//! refuses whoever has another key.

use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::BASE64URL_NOPAD;
use lamda_node::bus::{Bus, Config, Credentials, DeliveryMode, Error, Kept};
use lamda_node::secret::Secret;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::nats::Nats;
use crate::support::tools::tool;

pub(crate) fn config(url: String, credentials: Credentials) -> Config {
    let name = "test".to_owned();
    Config {
        url,
        credentials,
        tls_ca: None,
        tls_first: false,
        name,
        inbox_prefix: None,
        manage_streams: true,
        mode: DeliveryMode::JetStream,
    }
}

/// Connects and makes the streams.
async fn greet(config: &Config) -> Result<(), Error> {
    Bus::connect(config).await?.prepare().await
}

fn openssl(dir: &Path, line: &str) {
    let mut command = Command::new(tool("openssl"));
    let output = command.args(line.split(' ')).current_dir(dir).output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and a certificate of it for 127.0.0.1.
pub(crate) fn certificates() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        dir.path(),
        &format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2"),
    );
    openssl(
        dir.path(),
        &format!(
            "req {key} -keyout server.key -out server.csr -subj /CN=server \
             -addext subjectAltName=IP:127.0.0.1"
        ),
    );
    openssl(
        dir.path(),
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 \
         -copy_extensions copyall",
    );
    let authority = dir.path().join("ca.pem");
    (dir, authority)
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

/// A JWT of the server's own kind: <https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt>.
fn token(issuer: &KeyPair, subject: &str, nats: &Value) -> String {
    expiring_token(issuer, subject, nats, None)
}

fn expiring_token(issuer: &KeyPair, subject: &str, nats: &Value, exp: Option<u64>) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let mut claims = json!({"jti": "1", "iat": 1, "iss": issuer.public_key(), "name": "test",
        "sub": subject, "nats": nats});
    if let Some(exp) = exp {
        claims["exp"] = json!(exp);
    }
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = issuer.sign(signed.as_bytes()).expect("it signs");
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// A `.creds` file as the vendor's tools write it.
pub(crate) fn creds(account: &KeyPair, exp: Option<u64>) -> String {
    let user = KeyPair::new_user();
    let limits = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
    let jwt = expiring_token(account, &user.public_key(), &limits, exp);
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().expect("a seed")
    )
}

fn credentials(dir: &Path, account: &KeyPair) -> Credentials {
    let file = dir.join(format!("{}.creds", account.public_key()));
    std::fs::write(&file, creds(account, None)).expect("it is written");
    Credentials::File(file)
}

/// The lines of a server whose operator knows this account.
pub(crate) fn operated(account: &KeyPair) -> String {
    let operator = KeyPair::new_operator();
    let own = token(&operator, &operator.public_key(), &json!({"type": "operator", "version": 2}));
    let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
        "wildcards": true, "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1,
        "streams": -1, "consumer": -1});
    let accounts = token(
        &operator,
        &account.public_key(),
        &json!({"type": "account", "version": 2, "limits": limits}),
    );
    let system = KeyPair::new_account();
    let systems = token(
        &operator,
        &system.public_key(),
        &json!({"type": "account", "version": 2, "limits": {"subs": -1, "data": -1, "payload": -1,
            "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1}}),
    );
    format!(
        "operator: {own}\nresolver: MEMORY\nsystem_account: {}\n\
         resolver_preload: {{ {}: {accounts}, {}: {systems} }}",
        system.public_key(),
        account.public_key(),
        system.public_key()
    )
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
