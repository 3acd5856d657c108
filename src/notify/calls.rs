//! Calls over HTTP, as all channels make them.
//!
//! Must hold: no reason of a refusal holds a URL; an answer is read up to [`ANSWER_BYTES_MAX`].

use std::fmt;

use super::{Accepted, Blame, Refused, SEND_MAX};
use crate::http::{self, Response};
use crate::report::{BoxError, causes};

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// A request that got no answer. Its URL, which may hold a token, is left out.
pub(super) fn unanswered(err: http::ClientError) -> Refused {
    // Without a connection nothing can have arrived.
    let may_have_arrived = !err.is_connect() && !err.is_builder();
    Refused { may_have_arrived, ..Refused::by_channel(&causes(http::boxed(err).as_ref())) }
}

/// Sends a request. An answer that is no success is a refusal whose blame is judged by its status alone.
pub(super) async fn post(request: http::RequestBuilder) -> Result<Accepted, Refused> {
    let response = request.send().await.map_err(unanswered)?;
    let status = response.status();
    if status.is_success() {
        return Ok(Accepted { answer: status.to_string() });
    }
    let blame = match status.as_u16() {
        // What is wrong is the body, which will be the same at the next try.
        413 => Blame::NoticeForEver,
        // So may a gateway answer that takes nothing at all.
        400 | 422 => Blame::Notice,
        _ => Blame::Channel,
    };
    let retry_after = http::retry_after(response.headers());
    // A gateway gave up waiting for who may be at work on it.
    let may_have_arrived = status.as_u16() == 504;
    let reason = http::explanation(response, SEND_MAX).await;
    Err(Refused { retry_after, blame, may_have_arrived, ..Refused::by_channel(&reason) })
}

/// The body of an answer, cut off at [`ANSWER_BYTES_MAX`].
pub(super) async fn body_of(mut response: Response) -> Result<Vec<u8>, Refused> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(unanswered)? {
        body.extend_from_slice(&piece);
        if body.len() > ANSWER_BYTES_MAX {
            body.truncate(ANSWER_BYTES_MAX);
            break;
        }
    }
    Ok(body)
}

/// A URL that may hold a password or a key, which its `Debug` form doesn't show.
#[derive(Clone)]
pub(super) struct Target(pub(super) http::Url);

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A client for a channel.
pub(super) fn client() -> Result<http::Client, BoxError> {
    http::client().timeout(SEND_MAX).build().map_err(http::boxed)
}
