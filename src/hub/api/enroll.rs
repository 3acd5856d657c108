//! `POST /api/enroll`: a node gives a code, and gets a secret of its own.
//!
//! Invariant: the secret is in this one answer, and nowhere else but as its hash.

use serde_json::{Value, json};

use super::error::Refusal;
use super::{Shared, auth, body, count, signed};
use crate::clock::Clock as _;
use crate::fleet::beat;
use crate::hub::store::identity::Enrolled;
use crate::secret::Secret;
use crate::web::extract::{ConnectInfo, Request, State};
use crate::web::http::StatusCode;
use crate::web::routing::post;
use crate::web::{Json, Peer, Router};

/// The longest code that is looked at, in bytes.
const CODE_BYTES_MAX: usize = 64;

/// How many random bytes a code and a secret have.
const CODE_BYTES: usize = 10;
const SECRET_BYTES: usize = 24;

/// Digits of a code between two hyphens.
const GROUP: usize = 4;

/// The system gives no random numbers.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandom;

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/api/enroll", post(enroll))
}

/// A new code of 80 random bits, as `ABCD-EFGH-IJKL-MNOP`.
pub fn new_code() -> Result<Secret, NoRandom> {
    let digits = data_encoding::BASE32_NOPAD.encode(&random::<CODE_BYTES>()?);
    let mut code = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && at % GROUP == 0 {
            code.push('-');
        }
        code.push(digit);
    }
    Ok(Secret::new(code))
}

/// A new secret for a node.
pub fn new_secret() -> Result<Secret, NoRandom> {
    Ok(Secret::new(data_encoding::BASE64URL_NOPAD.encode(&random::<SECRET_BYTES>()?)))
}

/// A code as it is hashed: people write it with spaces and in small letters too.
pub fn plain(code: &str) -> String {
    let letters = code.chars().filter(|letter| !matches!(letter, '-' | ' '));
    letters.map(|letter| letter.to_ascii_uppercase()).collect()
}

fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

async fn enroll(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let (head, body) = request.into_parts();
    let body = body::object(&body::bytes(&head.headers, body).await?)?;
    let (code, node) = (body::text(&body, "code")?, body::text(&body, "node_id")?);
    let node = shared.kept_name(beat::name(&node)?);
    if shared.has_key(&node) {
        count(&shared.counted.unauthorized);
        return Err(signed::only_its_key(&node));
    }
    let unknown = "no such code: it is good once, and for ten minutes";
    if code.is_empty() || code.len() > CODE_BYTES_MAX {
        return Err(shared.refuse_for(&peer, unknown));
    }
    let (code, now) = (auth::hash(&plain(&code)), shared.clock.now());
    // Whoever guesses writes nothing.
    if !shared.eyes.has_code(code, now).await? {
        return Err(shared.refuse_for(&peer, unknown));
    }
    let secret = new_secret()
        .map_err(|err| Refusal::Plain(StatusCode::INTERNAL_SERVER_ERROR, err.to_string()))?;
    let hashes = (code, auth::hash(secret.expose()));
    let (tokens, name, hash) = (shared.tokens.clone(), node.clone(), hashes.1);
    let then = move |done: &Enrolled| {
        if *done == Enrolled::Done {
            tokens.set_node(&name, hash);
        }
    };
    match shared.store.enroll(hashes, node.clone(), now, then).await? {
        Enrolled::Done => {
            tracing::info!("a node has enrolled and has a secret of its own now");
            Ok(Json(json!({"node_id": node, "secret": secret.expose()})))
        }
        Enrolled::NoSuch => Err(shared.refuse_for(&peer, unknown)),
        Enrolled::OfAnother => {
            let what = "the code is for a node of another name".to_owned();
            Err(Refusal::Plain(StatusCode::FORBIDDEN, what))
        }
        Enrolled::Taken => {
            let what = format!(
                "{node} has a secret or a key, or is heard already: only a code made for it gives it another secret \
                 (lamda-node hub enroll NAME)"
            );
            Err(Refusal::Plain(StatusCode::CONFLICT, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_people_write_it() {
        let code = new_code().unwrap();
        let code = code.expose();
        assert_eq!((code.len(), code.matches('-').count()), (19, 3), "{code}");
        let plain_code = plain(code);
        assert_eq!(plain_code.len(), 16);
        assert_eq!(plain(&code.to_lowercase().replace('-', " ")), plain_code);
        assert_ne!(new_code().unwrap().expose(), code);
    }
}
