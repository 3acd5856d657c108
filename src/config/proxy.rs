//! Proxy settings, by the variable names that other programs use, too.

use super::auth::is_loopback;
use super::env::{Env, Variable};
use crate::proxy::Proxies;
use crate::secret::Secret;

const HTTPS_PROXY: Variable = Variable::new("HTTPS_PROXY", "http://proxy.example:3128");
const HTTP_PROXY: Variable = Variable::new("HTTP_PROXY", "http://proxy.example:3128");
const ALL_PROXY: Variable = Variable::new("ALL_PROXY", "http://proxy.example:3128");
const NO_PROXY: Variable = Variable::new("NO_PROXY", "localhost,10.0.0.0/8,.example.com");

/// Reads the proxies. An unusable one is a problem only if one of these URLs needs a proxy.
pub(super) fn read<'u>(env: &mut Env<'_>, mut urls: impl Iterator<Item = &'u str>) -> Proxies {
    let is_needed = urls.any(|url| !is_loopback(url));
    let all = either(env, ALL_PROXY);
    let mut of = |variable: Variable| {
        let own = either(env, variable).map(|proxy| (variable, proxy));
        let (variable, proxy) = own.or_else(|| Some((ALL_PROXY, all.clone()?)))?;
        match url(proxy.expose()) {
            Ok(url) => Some(url),
            Err(what) => {
                if is_needed {
                    env.problem(variable, what);
                }
                None
            }
        }
    };
    let (https, http) = (of(HTTPS_PROXY), of(HTTP_PROXY));
    let without = either(env, NO_PROXY).map(|list| {
        let entries = list.expose().split([',', ' ']).map(str::trim);
        entries.filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    });
    Proxies { http, https, without: without.unwrap_or_default() }
}

/// The variable in upper or lower case. A secret, since a proxy's URL may carry a password.
fn either(env: &mut Env<'_>, variable: Variable) -> Option<Secret> {
    env.secret(variable).or_else(|| env.lower_case(variable).map(Secret::new))
}

/// The URL of an HTTP proxy; without a scheme `http://` is meant.
fn url(text: &str) -> Result<String, String> {
    match text.split_once("://") {
        None => url(&format!("http://{text}")),
        Some(("http" | "https", _)) if crate::http::is_http_url(text) => Ok(text.to_owned()),
        Some((scheme, _)) if scheme.to_ascii_lowercase().starts_with("socks") => {
            Err("it names a SOCKS proxy, and this program speaks to HTTP proxies only".to_owned())
        }
        Some(_) => Err("it is no URL of an HTTP proxy".to_owned()),
    }
}
