//! Keys, certificates and JWTs for a nats-server that authenticates its clients.

use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::tools::tool;

/// A folder with a CA and its certificate for 127.0.0.1; also returns the path of the CA's certificate.
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

pub(crate) fn openssl(dir: &Path, line: &str) {
    let mut command = Command::new(tool("openssl"));
    let output = command.args(line.split(' ')).current_dir(dir).output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A `.creds` file as `nsc` writes it, for a new user of this account.
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

/// The configuration of a server whose operator has this account.
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

/// A JWT for nats-server: <https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt>.
pub(crate) fn token(issuer: &KeyPair, subject: &str, nats: &Value) -> String {
    expiring_token(issuer, subject, nats, None)
}

pub(crate) fn expiring_token(
    issuer: &KeyPair,
    subject: &str,
    nats: &Value,
    exp: Option<u64>,
) -> String {
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
