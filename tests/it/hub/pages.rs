//! The hub's pages in a real browser (tests/browser/hub.mjs), on 10,000 made-up nodes.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lamda_node::web;
use tokio::net::TcpListener;

use super::seeded::{HOSTILE, NODES, Seeded, name};
use crate::support::tools::{run_with_input, tool};

/// Serves the seeded hub while `with` runs on a thread of its own.
async fn serving<T: Send + 'static>(
    seeded: Seeded,
    with: impl FnOnce(String) -> T + Send + 'static,
) -> T {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("its address"));
    let served =
        web::serve(listener, seeded.app.clone(), std::future::pending(), Duration::from_secs(1));
    let work = tokio::task::spawn_blocking(move || with(base));
    let (fleet, live, now) = (seeded.fleet.clone(), seeded.live.clone(), seeded.now.clone());
    // Until the streams are ended, which the browser asks for at its own end.
    let tell = async {
        live.tell(&fleet, &now).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = work => done.expect("it does not panic"),
        ended = served => panic!("the server ended: {ended:?}"),
        () = tell => panic!("nobody tells"),
        () = seeded.beat() => panic!("nobody beats"),
    }
}

/// Runs a part of the browser's script against the hub; panics with what it says if something is wrong.
fn browse(part: &str, base: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("tests/browser/hub.mjs");
    let packages = root.join("tests/browser/node_modules/puppeteer-core");
    assert!(packages.is_dir(), "puppeteer-core is missing: scripts/test installs it");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), |path| root.join(path));
    let mut command = Command::new(tool("node"));
    command.arg(script).args([part, base]).arg(tool("chromium")).arg(target.join("hub-shots"));
    command.env("HOSTILE", HOSTILE).env("HOSTILE_PLACE", name(9_120));
    let output = run_with_input(&mut command, "");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{part}:\n{said}\n{errors}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_of_ten_thousand_is_sorted_filtered_and_live_in_a_browser() {
    let said = serving(Seeded::new(NODES), |base| browse("fleet", &base)).await;
    assert!(said.contains("all is well"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_accessible_and_fits_on_screens_from_360_to_1440_pixels() {
    let said = serving(Seeded::new(NODES), |base| browse("looks", &base)).await;
    assert!(said.contains("all is well"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_say_what_is_empty_what_loads_and_what_failed() {
    let said = serving(Seeded::new(0), |base| browse("states", &base)).await;
    assert!(said.contains("all is well"), "{said}");
}
