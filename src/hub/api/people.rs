//! People: they log in, and see more than others.
//!
//! Invariants: a session is a random token in a cookie that no script can read and no other site can send; a
//! request that changes something and comes from another site's page is refused; wrong passwords count like wrong
//! tokens.

use std::time::Duration;

use serde_json::json;

use super::error::{Refusal, not_found};
use super::pages::{Pages, Reader, Show};
use super::{Shared, body};
use crate::clock::Clock as _;
use crate::hub::door;
use crate::hub::settings::Public;
use crate::hub::store::people::{Person, Role};
use crate::secret::Secret;
use crate::web::extract::{ConnectInfo, Request, State};
use crate::web::http::{HeaderMap, HeaderValue, StatusCode, header};
use crate::web::response::{IntoResponse as _, Response};
use crate::web::routing::{get, post};
use crate::web::{Json, Peer, Router, answer};

/// The cookie of a session.
const COOKIE: &str = "lamda_hub";

/// How long a session lasts.
const SESSION: Duration = Duration::from_hours(24 * 14);

/// The page on which people log in: a form, without a script.
const LOGIN: &str = include_str!("../page/login.html");

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/login", get(form).post(log_in))
        .route("/logout", post(log_out))
        .route("/api/me", get(me))
}

/// The pages as different people see them.
#[derive(Debug, Clone)]
pub struct Views {
    full: Router,
    /// Everything but what jobs write.
    public: Router,
    status: Router,
    off: Router,
}

impl Views {
    /// Makes the pages for each of what people see, with logs or without.
    pub fn new(make: impl Fn(Show, bool) -> Pages) -> Self {
        let view = |show, logs| make(show, logs).routes().fallback(not_found);
        Self {
            full: view(Show::Full, true),
            public: view(Show::Full, false),
            status: view(Show::Status, false),
            off: view(Show::Off, false),
        }
    }
}

/// Shows the pages as far as who asks may see them.
pub(super) async fn show(shared: &Shared, views: Views, mut request: Request) -> Response {
    let head = request.headers();
    let reads_logs = shared.tokens.reads_logs(head);
    let (sight, name) = match person(shared, head).await {
        Ok(Some(person)) => (Public::Full, Some(person.name)),
        Ok(None) => (shared.tokens.sight(head), None),
        Err(refusal) => return refusal.into_response(),
    };
    let reads_logs = reads_logs || name.is_some();
    if let Some(name) = name {
        request.extensions_mut().insert(Reader(name.into()));
    }
    if sight == Public::Off && request.uri().path() == "/" && has_people(shared).await {
        return to("/login");
    }
    let view = match sight {
        Public::Full if reads_logs => views.full,
        Public::Full => views.public,
        Public::Status => views.status,
        Public::Off => views.off,
    };
    answer(view, request).await
}

/// What who sent this head may see.
pub(super) async fn sight(shared: &Shared, head: &HeaderMap) -> Result<Public, Refusal> {
    let sight = shared.tokens.sight(head);
    if sight != Public::Full && person(shared, head).await?.is_some() {
        return Ok(Public::Full);
    }
    Ok(sight)
}

/// Who sent this head, if they are logged in.
pub(super) async fn person(shared: &Shared, head: &HeaderMap) -> Result<Option<Person>, Refusal> {
    let Some(token) = cookie(head) else { return Ok(None) };
    Ok(shared.store.session(door::digest(token), shared.clock.now()).await?)
}

/// `Err` unless who sent this head may change things: somebody with the owner's token, or an admin who is logged in.
pub(super) async fn only_admin(
    shared: &Shared,
    head: &HeaderMap,
    peer: &Peer,
) -> Result<(), Refusal> {
    if shared.tokens.is_admin(head) {
        return Ok(());
    }
    let forbidden = |what: &str| Err(Refusal::Plain(StatusCode::FORBIDDEN, what.to_owned()));
    if is_of_another_site(head) {
        return forbidden("it comes from another site");
    }
    match person(shared, head).await? {
        Some(Person { role: Role::Admin, .. }) => Ok(()),
        Some(_) => forbidden("only admins may do that"),
        None => Err(shared.refuse(peer)),
    }
}

async fn has_people(shared: &Shared) -> bool {
    shared.store.has_people().await.unwrap_or_default()
}

/// Whether a browser says that another site's page sent this.
pub(super) fn is_of_another_site(head: &HeaderMap) -> bool {
    let text = |name| head.get(name).and_then(|it: &HeaderValue| it.to_str().ok());
    if text(header::HeaderName::from_static("sec-fetch-site"))
        .is_some_and(|site| !matches!(site, "same-origin" | "none"))
    {
        return true;
    }
    let Some(origin) = text(header::ORIGIN) else { return false };
    let host = text(header::HOST).unwrap_or_default();
    origin.split_once("://").is_none_or(|(_, place)| place != host)
}

/// The session's token.
fn cookie(head: &HeaderMap) -> Option<&str> {
    let cookies = head.get_all(header::COOKIE).iter().filter_map(|it| it.to_str().ok());
    let mut pairs =
        cookies.flat_map(|line| line.split(';')).filter_map(|it| it.trim().split_once('='));
    let (_, token) = pairs.find(|(name, _)| *name == COOKIE)?;
    let is_token = token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_token.then_some(token)
}

async fn form() -> Response {
    page(StatusCode::OK, "")
}

/// The form, with what was wrong.
fn page(status: StatusCode, wrong: &str) -> Response {
    let html = LOGIN.replace("{{wrong}}", wrong);
    let policy = HeaderValue::from_static(crate::hub::page::POLICY);
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    let heads = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (status, heads, html).into_response()
}

async fn log_in(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    if is_of_another_site(&head.headers) {
        return Err(Refusal::Plain(StatusCode::FORBIDDEN, "it comes from another site".to_owned()));
    }
    // An address that has guessed too often is not listened to: each password costs work.
    let (place, now) = (peer.address.ip(), shared.clock.monotonic());
    let bytes = body::bytes(&head.headers, body).await?;
    // Counted before it is looked at, so that many at once count too.
    shared.logins.wrong(place, now).map_err(Refusal::TooMany)?;
    let (name, password) = fields(&bytes);
    let kept = shared.store.password(name.clone()).await?;
    if !door::is_right(password, kept).await {
        return Ok(page(StatusCode::UNAUTHORIZED, "The name or the password is wrong."));
    }
    shared.logins.right(place);
    let token = door::token().map_err(|err| {
        Refusal::Plain(StatusCode::SERVICE_UNAVAILABLE, format!("no randomness: {err}"))
    })?;
    let now = shared.clock.now();
    shared.store.log_in(name, door::digest(&token), now.plus(SESSION), now).await?;
    let mut answer = to("/");
    set_cookie(&mut answer, &token, SESSION, is_tls(&head.headers));
    Ok(answer)
}

async fn log_out(State(shared): State<Shared>, head: HeaderMap) -> Result<Response, Refusal> {
    if is_of_another_site(&head) {
        return Err(Refusal::Plain(StatusCode::FORBIDDEN, "it comes from another site".to_owned()));
    }
    if let Some(token) = cookie(&head) {
        shared.store.log_out(door::digest(token)).await?;
    }
    let mut answer = to("/login");
    set_cookie(&mut answer, "", Duration::ZERO, is_tls(&head));
    Ok(answer)
}

/// Who is logged in, for the page.
async fn me(State(shared): State<Shared>, head: HeaderMap) -> Result<Response, Refusal> {
    let person = person(&shared, &head).await?;
    let is_admin = person.as_ref().is_some_and(|person| person.role == Role::Admin);
    let name = person.map(|person| person.name);
    let can_log_in = has_people(&shared).await;
    let told = Json(json!({ "name": name, "is_admin": is_admin, "can_log_in": can_log_in }));
    Ok(([(header::CACHE_CONTROL, "no-store")], told).into_response())
}

/// The fields of the form.
fn fields(bytes: &[u8]) -> (String, Secret) {
    let query = String::from_utf8_lossy(bytes);
    let mut url = crate::http::url("http://form/").ok();
    if let Some(url) = &mut url {
        url.set_query(Some(&query));
    }
    let field = |name: &str| {
        let pairs = url.iter().flat_map(|url| url.query_pairs());
        pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).next()
    };
    let name = field("name").unwrap_or_default();
    (name.trim().to_owned(), Secret::new(field("password").unwrap_or_default()))
}

/// Whether the browser reached the hub over TLS, by what its proxy says.
fn is_tls(head: &HeaderMap) -> bool {
    head.get("x-forwarded-proto").is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"https"))
}

fn set_cookie(answer: &mut Response, token: &str, lasts: Duration, is_tls: bool) {
    let secure = if is_tls { "; Secure" } else { "" };
    let seconds = lasts.as_secs();
    let cookie =
        format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
}

/// Sends the browser on.
fn to(place: &'static str) -> Response {
    let heads = [
        (header::LOCATION, HeaderValue::from_static(place)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (StatusCode::SEE_OTHER, heads).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    #[test]
    fn what_another_sites_page_sends_is_known_as_such() {
        for (heads, is_foreign) in [
            (&[("host", "hub:8080")][..], false),
            (&[("host", "hub:8080"), ("origin", "http://hub:8080")], false),
            (&[("host", "hub:8080"), ("origin", "http://evil")], true),
            (&[("host", "hub:8080"), ("origin", "null")], true),
            (&[("host", "hub"), ("sec-fetch-site", "cross-site")], true),
            (&[("host", "hub"), ("sec-fetch-site", "same-site")], true),
            (&[("host", "hub"), ("sec-fetch-site", "same-origin")], false),
        ] {
            assert_eq!(is_of_another_site(&head(heads)), is_foreign, "{heads:?}");
        }
    }

    #[test]
    fn only_what_can_be_a_token_is_looked_up() {
        let token = "ab".repeat(32);
        let line = format!("a=b; {COOKIE}={token}; c=d");
        assert_eq!(cookie(&head(&[("cookie", &line)])), Some(token.as_str()));
        for wrong in ["", "lamda_hub=", "lamda_hub=abc", "other=1"] {
            assert_eq!(cookie(&head(&[("cookie", wrong)])), None, "{wrong}");
        }
    }

    #[test]
    fn the_form_is_read_with_what_is_encoded_in_it() {
        let (name, password) = fields(b"name=+ann+&password=a%26b%3D%C3%A9+c&x=1");
        assert_eq!((name.as_str(), password.expose()), ("ann", "a&b=\u{e9} c"));
        let (name, password) = fields(b"\xff\xfe");
        assert!(name.is_empty() && password.expose().is_empty());
    }
}
