//! People log in to a hub that shows strangers nothing.

use serde_json::json;

use super::process::{ADMIN, Answer, Hub, bearer};

const PASSWORD: &str = "correct-horse-battery";

fn add(hub: &Hub, name: &str, more: &[&str]) {
    let args = [&["hub", "person", "add", name], more].concat();
    hub.program.run_with_input(&args, &format!("{PASSWORD}\n")).succeeds();
}

fn log_in(hub: &Hub, name: &str, password: &str, heads: &[&str]) -> Answer {
    hub.ask("POST /login", heads, &format!("name={name}&password={password}"))
}

/// The cookie that an answer sets.
fn cookie(answer: &Answer) -> String {
    let line = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    let line = line.unwrap_or_else(|| panic!("no cookie: {answer:?}"));
    for word in ["httponly", "samesite=strict", "path=/"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    format!("cookie: {}", line.split(';').next().expect("a first part"))
}

#[test]
fn who_logs_in_sees_everything_and_only_admins_silence() {
    let hub = Hub::start(&[("HUB_PUBLIC", "off")]);
    hub.beat("rack-1", "UP");
    let front = hub.ask("GET /", &[], "");
    assert_eq!(front.status, 200, "nobody can log in yet: {front:?}");
    add(&hub, "ann", &["--admin"]);
    add(&hub, "bob", &[]);
    let front = hub.ask("GET /", &[], "");
    assert!(front.status == 303 && front.head.contains("location: /login"), "{front:?}");
    for path in ["/api/fleet", "/api/alerts", "/api/nodes", "/metrics", "/api/stream?topics=fleet"]
    {
        assert_eq!(hub.ask(&format!("GET {path}"), &[], "").status, 401, "{path}");
    }
    assert_eq!(hub.ask("GET /api/site", &[], "").json()["logs"], false);
    let ann = cookie(&log_in(&hub, "ann", PASSWORD, &[]));
    let bob = cookie(&log_in(&hub, "bob", PASSWORD, &[]));
    for who in [&ann, &bob] {
        let fleet = hub.ask("GET /api/fleet", &[who], "");
        assert_eq!(fleet.json()["rows"][0]["name"], "rack-1", "{fleet:?}");
        assert_eq!(hub.nodes_as(who)[0]["ip"], "203.0.113.7");
        assert_eq!(hub.ask("GET /api/site", &[who], "").json()["logs"], true);
    }
    let silence = json!({"nodes": "rack-*", "lasts_s": 60, "why": "moving"}).to_string();
    let begin = |heads: &[&str]| hub.ask("POST /api/silences", heads, &silence);
    assert_eq!(begin(&[]).status, 401);
    assert_eq!(begin(&[&bob]).status, 403);
    assert_eq!(begin(&[&ann, "origin: http://evil.example"]).status, 403);
    let answer = begin(&[&ann, &format!("origin: http://{}", hub.at)]);
    assert_eq!(answer.json()["silences"][0]["by"], "ann", "{answer:?}");
    let id = answer.json()["silences"][0]["id"].to_string();
    let ended = hub.ask(&format!("DELETE /api/silences/{id}"), &[&bearer(ADMIN)], "");
    assert_eq!(ended.json()["silences"], json!([]), "{ended:?}");

    assert_eq!(hub.ask("POST /logout", &[&ann], "").status, 303);
    assert_eq!(hub.ask("GET /api/fleet", &[&ann], "").status, 401, "the session is over");
    hub.program.run(&["hub", "person", "remove", "bob"]).succeeds();
    assert_eq!(hub.ask("GET /api/fleet", &[&bob], "").status, 401, "bob is gone");
}

#[test]
fn passwords_are_guessed_in_vain_and_shown_nowhere() {
    let hub = Hub::start(&[("HUB_PUBLIC", "off")]);
    add(&hub, "ann", &[]);
    let foreign = log_in(&hub, "ann", PASSWORD, &["origin: http://evil.example"]);
    assert_eq!(foreign.status, 403, "{foreign:?}");
    // Only the first is worked on: twenty hashes can take longer than the minute that is counted.
    let guess = |at: usize| if at == 0 { "guess-0".to_owned() } else { "x".repeat(257) };
    let guesses: Vec<u16> = (0..22).map(|at| log_in(&hub, "ann", &guess(at), &[]).status).collect();
    assert_eq!((guesses[0], guesses[19], guesses[21]), (401, 401, 429), "{guesses:?}");
    let right = log_in(&hub, "ann", PASSWORD, &[]);
    assert_eq!(right.status, 429, "not even the right one is looked at: {right:?}");
    assert!(right.head.contains("retry-after: "), "{right:?}");
    let short = hub.program.run_with_input(&["hub", "person", "add", "eve"], "short\n");
    short.is_refused(64, "a password has 10 to 256 bytes");
    let written = std::fs::read(hub.program.path("data/hub.db")).expect("the database");
    let is_in = |text: &[u8]| text.windows(PASSWORD.len()).any(|it| it == PASSWORD.as_bytes());
    assert!(!is_in(&written) && !is_in(hub.log().as_bytes()), "the password is kept");
}

#[test]
fn rules_are_tried_on_how_nodes_stood() {
    let hub = Hub::start(&[("DOWN_THRESHOLD_SEC", "600")]);
    hub.beat("rack-1", "UP");
    hub.beat("rack-1", "DOWN");
    let told = crate::support::tools::eventually("it is noted", super::process::PATIENCE, || {
        let past = hub.program.run(&["hub", "rules", "test", "--since", "1d"]).succeeds();
        past.stdout().contains("rack-1 is down").then(|| past.both())
    });
    assert!(told.contains("node-down would have fired once"), "{told}");
    let file = hub.program.write(
        "hub.toml",
        "[[rule]]\nname = \"long\"\nwhen = { standing = [\"down\"] }\nhold_s = 86400\n",
    );
    let past = hub.program.run(&["hub", "rules", "test", "--rules", &file]).succeeds();
    assert!(past.both().contains("long would have fired 0 times"), "{}", past.both());
}
