//! All routes of the pages, and what the hub says of itself to them.

use serde_json::{Value, json};

use super::pages::{Pages, Show, Site};
use super::{alerts_view, earnings, fleet, observations, stream, usage};
use crate::hub::page;
use crate::web::routing::get;
use crate::web::{Json, Router};

impl Pages {
    /// All routes of the pages: the page itself, what it is made of, and what it asks.
    pub fn routes(self) -> Router {
        let title = self.site.title.clone();
        Router::new()
            .route("/api/site", get(site))
            .merge(fleet::routes())
            .merge(observations::shown())
            .merge(alerts_view::routes())
            .merge(stream::routes())
            .merge(usage::routes())
            .merge(earnings::routes())
            .with_state(self)
            .merge(page::routes(&title))
    }
}

async fn site(state: crate::web::extract::State<Pages>) -> Json<Value> {
    let Site { title, show, patience, shows_logs, project } = &*state.site;
    let chain = project.get().filter(|_| *show == Show::Full);
    let ms = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Json(json!({
        "title": title,
        "version": env!("CARGO_PKG_VERSION"),
        "public": show,
        "logs": shows_logs,
        "chain": chain,
        "now": state.now.get().unix_ms(),
        "patience": {"own": ms(patience.own), "nats": ms(patience.nats), "chain": ms(patience.chain)},
    }))
}
