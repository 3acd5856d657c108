//! The hub that the node tells how it is.

use super::env::{Env, Variable};
use super::is_loopback;
use crate::http::{self, Url};

const HUB_URL: Variable = Variable::new("HUB_URL", "https://hub.example");

/// `HUB_URL`; `Some(None)` if it is not set, `None` if it has a problem.
#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
pub(super) fn read(env: &mut Env<'_>) -> Option<Option<Url>> {
    let set = env.is_set(HUB_URL);
    let Some(text) = env.text(HUB_URL) else { return (!set).then_some(None) };
    let what = |_| "it is not an http:// or https:// URL".to_owned();
    let url = env.keep(HUB_URL, http::base_url(&text).map_err(what))?;
    if url.scheme() == "http" && !is_loopback(url.as_str()) {
        env.warn(format!(
            "HUB_URL={}: what the node tells its hub can be read and held back on the way; take https://",
            http::shown(&url)
        ));
    }
    Some(Some(url))
}
