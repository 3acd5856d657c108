//! The hub check: does the hub of `HUB_URL` answer?

use super::{Finding, unset};
use crate::config::Parts;
use crate::http::{self, Url};
use crate::report::causes;

pub(super) async fn hub(parts: &Parts) -> Finding {
    match &parts.hub {
        None => unset(),
        Some(None) => Finding::ok("no HUB_URL: no hub is told of this node"),
        Some(Some(url)) => asked(url).await,
    }
}

async fn asked(url: &Url) -> Finding {
    let shown = http::shown(url);
    let remedy = "start lamda-node hub there, or set HUB_URL";
    let answer = async {
        let client = http::client().build().map_err(http::boxed)?;
        let url = url.join("healthz").map_err(|_| "HUB_URL can't be joined to")?;
        let answer = client.get(url).send().await.map_err(http::boxed)?;
        Ok::<_, crate::report::BoxError>(answer.status())
    };
    match answer.await {
        Ok(status) if status.is_success() => Finding::ok(format!("{shown} answers")),
        Ok(status) => Finding::warn(format!("{shown} answers {status}"), remedy),
        Err(err) => {
            let why = causes(err.as_ref());
            Finding::warn(format!("{shown} doesn't answer: {why}"), remedy)
        }
    }
}
