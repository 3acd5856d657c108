//! What the APIs of other systems have in common: their form of a refusal, and a proof of who asks that their clients
//! can give.
//!
//! Must hold: what is refused is refused as `{"error": "…"}`, unless it is a matter of tokens.

use serde_json::{Map, Value, json};

use super::auth;
use super::error::{self, Refusal};
use super::{Shared, body, people};
use crate::hub::settings::Public;
use crate::hub::store;
use crate::web::body::Body;
use crate::web::http::{HeaderMap, HeaderValue, StatusCode, header};
use crate::web::response::{IntoResponse, Response};
use crate::web::{Json, Peer};

/// Why a call of another system is refused.
#[derive(Debug)]
pub(super) enum Foreign {
    /// As the hub refuses its own calls.
    Ours(Refusal),
    /// A sentence, in the other system's form.
    Said(StatusCode, String),
}

impl Foreign {
    /// 400 with this sentence.
    pub(super) fn bad(what: impl Into<String>) -> Self {
        Self::Said(StatusCode::BAD_REQUEST, what.into())
    }

    /// 404 with this sentence.
    pub(super) fn unknown(what: &str) -> Self {
        Self::Said(StatusCode::NOT_FOUND, what.to_owned())
    }
}

impl From<Refusal> for Foreign {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            // What is a matter of tokens is told as everywhere.
            Refusal::Plain(status, what) if status != StatusCode::FORBIDDEN => {
                Self::Said(status, what)
            }
            other => Self::Ours(other),
        }
    }
}

impl From<store::Error> for Foreign {
    fn from(err: store::Error) -> Self {
        Self::Ours(err.into())
    }
}

impl IntoResponse for Foreign {
    fn into_response(self) -> Response {
        match self {
            Self::Ours(Refusal::Store(err)) => {
                let (status, what) = error::failed(&err);
                Self::Said(status, what.to_owned()).into_response()
            }
            Self::Ours(refusal) => refusal.into_response(),
            Self::Said(status, what) => (status, Json(json!({"error": what}))).into_response(),
        }
    }
}

/// `Err` unless who sent this head may see everything.
pub(super) async fn sees_all(
    shared: &Shared,
    head: &HeaderMap,
    peer: &Peer,
) -> Result<(), Refusal> {
    if people::is_of_another_site(head) {
        let what = "it comes from another site".to_owned();
        return Err(Refusal::Plain(StatusCode::FORBIDDEN, what));
    }
    if people::sight(shared, head).await? == Public::Full {
        return Ok(());
    }
    Err(if auth::has_token(head) { shared.refuse(peer) } else { Refusal::Unauthorized })
}

/// `Err` unless who sent this head may speak for an application: with the token of all nodes, or the owner's, and
/// without any where this machine alone can ask and everything is shown.
pub(super) fn may_speak(shared: &Shared, head: &HeaderMap, peer: &Peer) -> Result<(), Refusal> {
    if people::is_of_another_site(head) {
        let what = "it comes from another site".to_owned();
        return Err(Refusal::Plain(StatusCode::FORBIDDEN, what));
    }
    let head = &with_password(head);
    if auth::has_token(head) {
        let is_right = shared.tokens.may_beat(head, None) || shared.tokens.is_admin(head);
        return if is_right { Ok(()) } else { Err(shared.refuse(peer)) };
    }
    let is_alone = shared.settings.listen.ip().is_loopback() && peer.address.ip().is_loopback();
    if is_alone && auth::is_here(head) && shared.tokens.sight(head) == Public::Full {
        return Ok(());
    }
    Err(Refusal::Unauthorized)
}

/// The head with the password of `Authorization: Basic` as its token: clients that know of no tokens take one from
/// `http://any:TOKEN@hub:8080`.
fn with_password(head: &HeaderMap) -> HeaderMap {
    let mut head = head.clone();
    let token = head.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, text) = value.to_str().ok()?.split_once(' ')?;
        let is_basic = scheme.eq_ignore_ascii_case("basic");
        let text = Some(text.trim()).filter(|_| is_basic)?;
        let pair = data_encoding::BASE64.decode(text.as_bytes()).ok()?;
        let pair = String::from_utf8(pair).ok()?;
        let (_, password) = pair.split_once(':')?;
        HeaderValue::from_str(&format!("Bearer {password}")).ok()
    });
    if let Some(token) = token {
        head.insert(header::AUTHORIZATION, token);
    }
    head
}

/// The JSON object of a body.
pub(super) async fn object(head: &HeaderMap, body: Body) -> Result<Map<String, Value>, Foreign> {
    let bytes = body::bytes(head, body).await?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Foreign::bad("the body is no JSON object")),
        Err(err) => Err(Foreign::bad(format!("the body is no JSON: {err}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_url_is_a_token_and_nothing_else_is() {
        let token = |value: &str| {
            let head = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            with_password(&head)[header::AUTHORIZATION].to_str().unwrap().to_owned()
        };
        // any:hub:secret
        assert_eq!(token("Basic YW55Omh1YjpzZWNyZXQ="), "Bearer hub:secret");
        assert_eq!(token("Bearer x"), "Bearer x");
        for wrong in ["Basic ?", "Basic", "Basic YW55"] {
            assert_eq!(token(wrong), wrong);
        }
        assert!(with_password(&HeaderMap::new()).is_empty());
    }
}
