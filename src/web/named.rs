//! By which name a server is asked.
//!
//! Must hold: a page of another site whose name leads to this machine (DNS rebinding) asks by its own name, so it gets
//! no answer from a server that is for this machine alone.

use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::{self, Next};
use axum::response::Response;

/// Names of the loopback that no DNS server of another site can make lead here: RFC 6761, section 6.3, and Linux's.
const OWN: [&str; 3] = ["localhost", "ip6-localhost", "ip6-loopback"];

/// How a container calls its host, where the engine makes that lead to the host's loopback.
const HOST: &str = "host.docker.internal";

/// Whether a request names this machine: by one of `OWN`, a name under `localhost`, or an address of the loopback.
pub fn names_this_machine(head: &HeaderMap) -> bool {
    let name = name(head);
    let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
    OWN.contains(&&*name)
        || name.ends_with(".localhost")
        || name.trim_matches(['[', ']']).parse().is_ok_and(is_loopback)
}

/// The name, without its port and the dot at its end, in lower case; empty if there is none.
fn name(head: &HeaderMap) -> String {
    let host = head.get(header::HOST).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// An app that answers `refuse` to whoever asks by another name than this machine's. Who names none is no browser.
pub fn only_by_own_name(app: Router, refuse: fn() -> Response) -> Router {
    app.layer(middleware::from_fn(move |request, next| named(refuse, request, next)))
}

async fn named(refuse: fn() -> Response, request: Request, next: Next) -> Response {
    let head = request.headers();
    if head.contains_key(header::HOST) && !names_this_machine(head) && name(head) != HOST {
        return refuse();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_the_names_of_its_loopback_and_no_others() {
        let names = |host: &str| {
            names_this_machine(&HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]))
        };
        for own in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.:8080",
            "a.localhost",
            "ip6-localhost:1",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:8080",
        ] {
            assert!(names(own), "{own}");
        }
        for other in [
            "evil.example:8080",
            "localhost.evil.example",
            "notlocalhost",
            "10.0.0.1",
            "",
            "[::2]:1",
        ] {
            assert!(!names(other), "{other}");
        }
        assert!(!names(HOST), "what is there in a container is not this machine's own");
    }
}
