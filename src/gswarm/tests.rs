//! The bodies as the original writes them, and a service that behaves badly.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const TOKEN: &str = "eyJh.hunter2.c2ln";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn event(line: &str) -> IngestEvent {
    IngestEvent::raw("rig-1", at("2026-11-27T10:00:00Z"), line)
}

/// A service on this machine that gives one answer to each call, and what it was sent. `None`: it never answers.
async fn service(answer: Option<&'static str>) -> (Service, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let written = heard.clone();
    #[expect(clippy::disallowed_methods, reason = "a server beside the test")]
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let request = request(&mut stream).await;
            written.lock().unwrap().push(request);
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                None => unanswered.push(stream),
            }
        }
    });
    let endpoint = |path: &str| Endpoint::new(&base, path, Secret::new(TOKEN)).ok();
    let config = Config {
        node_id: "rig-1".to_owned(),
        ingest: endpoint("/prod/v1/ingest"),
        hardware: endpoint("/api/v1/metrics"),
        blockchain: endpoint("api/v1/latest-blockchain"),
        timeout: Duration::from_secs(1),
        sampled: Sampled::default(),
    };
    (Service::new(config).unwrap(), heard)
}

async fn request(stream: &mut tokio::net::TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "the client hung up");
    }
}

fn body(request: &str) -> Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn events_go_out_as_the_original_posts_them() {
    let (service, heard) = service(Some("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).await;
    let when = at("2026-11-27T10:00:00.5Z");
    let peers = ["[REDACTED]".to_owned()];
    let lines = [
        IngestEvent::record("rig-1", when, "INFO", ("genrl.x", "Starting round: 7/100.")),
        IngestEvent::raw("rig-1", when, "a \"quoted\" line"),
        IngestEvent::join("rig-1", when, &peers, ("hivemind", "Joining swarm")),
    ];
    assert_eq!(service.ingest(&lines).await.unwrap().answer, "200 OK");
    let request = heard.lock().unwrap().remove(0);
    assert!(request.starts_with("POST /prod/v1/ingest HTTP/1.1\r\n"), "{request}");
    let lower = request.to_ascii_lowercase();
    assert!(
        lower.contains(&format!("\r\nauthorization: bearer {}\r\n", TOKEN.to_ascii_lowercase()))
    );
    assert!(lower.contains("\r\ncontent-type: application/json\r\n"), "{lower}");
    let stamp = "2026-11-27T10:00:00.500Z";
    let wanted = json!([
        {"node_id": "rig-1", "timestamp": stamp, "event_type": "info",
         "details": {"logger": "genrl.x", "message": "Starting round: 7/100."}},
        {"node_id": "rig-1", "timestamp": stamp, "event_type": "raw",
         "details": {"raw_line": "a \"quoted\" line"}},
        {"node_id": "rig-1", "timestamp": stamp, "event_type": "peer_event",
         "details": {"action": "join", "peers": ["[REDACTED]"], "logger": "hivemind", "raw": "Joining swarm"}},
    ]);
    assert_eq!(body(&request), wanted);
}

#[tokio::test]
async fn samples_and_the_chains_figures_have_the_originals_form_and_no_made_up_zero() {
    let (service, heard) = service(Some("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")).await;
    let gpu = Gpu {
        index: 0,
        util_percent: Some(97),
        temp_c: Some(71),
        vram_used_mb: Some(20_000),
        vram_total_mb: Some(24_576),
    };
    let hardware = Hardware {
        cpu: Some(Cpu { usage_percent: Some(12.5), core_count: Some(16), temperature: None }),
        ram: Some(Ram { total: Some(64 << 30), used: Some(16 << 30), ..Ram::default() }),
        gpu: Some(vec![gpu]),
    };
    let when = at("2026-11-27T10:00:00Z");
    service.metrics(when, &Metrics::Hardware(hardware)).await.unwrap();
    let chain = Blockchain {
        contract_events: vec![ContractEvent {
            event_type: "RewardSubmitted".to_owned(),
            timestamp: when,
            data: [("reward".to_owned(), json!("-3"))].into(),
            block_hash: "0x01".to_owned(),
            tx_hash: "0x02".to_owned(),
        }],
        block_number: Some(9),
        participation: Some(4),
        total_rewards: Some(-3),
        total_wins: Some(0),
        gas_used: None,
    };
    service.metrics(when, &Metrics::Blockchain(chain)).await.unwrap();
    let heard = heard.lock().unwrap();
    assert!(heard[0].starts_with("POST /api/v1/metrics "), "{}", heard[0]);
    assert!(heard[1].starts_with("POST /api/v1/latest-blockchain "), "{}", heard[1]);
    let stamp = "2026-11-27T10:00:00.000Z";
    assert_eq!(
        body(&heard[0]),
        json!({"node_id": "rig-1", "timestamp": stamp, "metrics_type": "hardware", "data": {
            "cpu": {"usage_percent": 12.5, "core_count": 16},
            "ram": {"total": 68_719_476_736_u64, "used": 17_179_869_184_u64},
            "gpu": [{"index": 0, "util_percent": 97, "temp_c": 71, "vram_used_mb": 20_000, "vram_total_mb": 24_576}],
        }})
    );
    assert_eq!(
        body(&heard[1]),
        json!({"node_id": "rig-1", "timestamp": stamp, "metrics_type": "blockchain", "data": {
            "contract_events": [{"event_type": "RewardSubmitted", "timestamp": stamp, "data": {"reward": "-3"},
                                 "block_hash": "0x01", "tx_hash": "0x02"}],
            "block_number": 9, "participation": 4, "total_rewards": -3, "total_wins": 0,
        }})
    );
}

#[tokio::test]
async fn a_refusal_says_whether_the_batch_can_ever_be_taken_and_how_long_to_wait() {
    for (answer, is_final, wait, words) in [
        (
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 80\r\nContent-Length: 0\r\n\r\n",
            false,
            Some(80),
            "429",
        ),
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy", false, None, "busy"),
        (
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
            false,
            None,
            "the token is wrong",
        ),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false, None, "endpoint's path"),
        ("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", true, None, "400"),
        ("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n", true, None, "413"),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            false,
            None,
            "not followed",
        ),
    ] {
        let (service, heard) = service(Some(answer)).await;
        let refused = service.ingest(&[event("x")]).await.unwrap_err();
        assert_eq!((refused.is_final, refused.may_have_arrived), (is_final, false), "{answer}");
        assert_eq!(refused.retry_after, wait.map(Duration::from_secs), "{answer}");
        assert!(refused.reason.contains(words), "{refused}");
        assert_eq!(heard.lock().unwrap().len(), 1, "one call");
    }
}

#[tokio::test]
async fn a_token_that_is_longer_than_what_is_read_of_an_answer_is_not_shown_in_part() {
    let token = format!("eyJh{}", "x9Kq".repeat(150));
    for before in [5, 100, 270] {
        let body = format!("{} {token} and more", "-".repeat(before));
        let head = "HTTP/1.1 403 Forbidden\r\nContent-Length: ";
        let answer = format!("{head}{}\r\n\r\n{body}", body.len());
        let (mut service, _) = service(Some(answer.leak())).await;
        service.config.ingest.as_mut().unwrap().bearer = Secret::new(token.clone());
        let refused = service.ingest(&[event("x")]).await.unwrap_err();
        assert!(!refused.reason.contains("eyJh"), "{before}: {refused}");
    }
}

#[tokio::test]
async fn no_reason_and_no_debug_form_has_the_token_or_the_url() {
    let quoting =
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 32\r\n\r\nbad token: eyJh.hunter2.c2ln    ";
    let (service, _) = service(Some(quoting)).await;
    let refused = service.ingest(&[event("x")]).await.unwrap_err();
    assert!(refused.reason.contains("[secret]"), "{refused}");
    let base = "http://user:hunter2@127.0.0.1:1/hunter2?key=hunter2";
    let closed = Config {
        ingest: Endpoint::new(base, "", Secret::new(TOKEN)).ok(),
        timeout: Duration::from_secs(1),
        ..Config::default()
    };
    let closed = Service::new(closed).unwrap();
    let unreached = closed.ingest(&[event("x")]).await.unwrap_err();
    assert!(!unreached.is_final && !unreached.may_have_arrived, "{unreached:?}");
    for text in [refused.reason, unreached.reason, format!("{service:?} {closed:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(closed.config().ingest.as_ref().unwrap().shown().starts_with("http://127.0.0.1:1/…"));
}

#[tokio::test]
async fn a_service_that_never_answers_or_never_ends_costs_no_more_than_its_time() {
    let (silent, _) = service(None).await;
    let begun = std::time::Instant::now();
    let refused = silent.ingest(&[event("x")]).await.unwrap_err();
    assert!(refused.may_have_arrived && !refused.is_final, "{refused:?}");
    let endless = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 999999999\r\n\r\nwords";
    let (endless, _) = service(Some(endless)).await;
    let refused = endless.ingest(&[event("x")]).await.unwrap_err();
    assert!(refused.reason.contains("500"), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_never_sent_and_the_caller_knows_how_much_fits() {
    let (service, heard) = service(Some("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).await;
    let long = vec![event(&"ä".repeat(100_000)); 40];
    let fits = Service::fitting(&long);
    assert_eq!(fits, 15, "each is cut at 64 KiB");
    assert!(service.ingest(&long).await.unwrap_err().is_final);
    service.ingest(&long[..fits]).await.unwrap();
    let many = vec![event("x"); EVENTS_MAX + 1];
    assert_eq!(Service::fitting(&many), EVENTS_MAX);
    assert!(service.ingest(&many).await.unwrap_err().is_final);
    assert_eq!((Service::fitting(&[]), heard.lock().unwrap().len()), (0, 1));
}

#[tokio::test]
async fn a_heartbeat_is_that_of_the_originals_agent() {
    let (service, heard) = service(Some("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).await;
    let base = service.config().ingest.as_ref().unwrap().url.join("/").unwrap().to_string();
    let monitor = beat::Monitor::new(&base, Secret::new(TOKEN)).unwrap();
    let mut well = beat::Beat {
        node_id: "rig-1".to_owned(),
        meta: "fsn1".to_owned(),
        ..beat::Beat::default()
    };
    monitor.post(&well).await.unwrap();
    well.set_down("port_closed_3000");
    well.gswarm_eoa = Some("0xaa".to_owned());
    monitor.post(&well).await.unwrap();
    let heard = heard.lock().unwrap();
    assert!(heard[0].starts_with("POST /api/heartbeat HTTP/1.1\r\n"), "{}", heard[0]);
    assert_eq!(
        body(&heard[0]),
        json!({"node_id": "rig-1", "ip": "", "meta": "fsn1", "status": "UP"})
    );
    let down = json!({"node_id": "rig-1", "ip": "", "meta": "fsn1,reason=port_closed_3000", "status": "DOWN",
                      "gswarm_eoa": "0xaa"});
    assert_eq!(body(&heard[1]), down);
    let read = crate::fleet::beat::Beat::parse(body(&heard[1]).to_string().as_bytes()).unwrap();
    assert!(read.is_down && read.gswarm.is_some(), "a hub of ours reads it");
}

#[test]
fn an_endpoint_is_put_together_as_the_original_does_and_a_token_that_splits_a_head_is_refused() {
    let shown = |base, path| {
        Endpoint::new(base, path, Secret::new(TOKEN)).map(|endpoint| endpoint.url.to_string())
    };
    assert_eq!(
        shown("https://a.example", "/api/v1/metrics").unwrap(),
        "https://a.example/api/v1/metrics"
    );
    assert_eq!(shown("https://a.example/x/", "y").unwrap(), "https://a.example/x/y");
    assert_eq!(shown("https://a.example/ingest", "").unwrap(), "https://a.example/ingest");
    assert_eq!(shown("ftp://a.example", "").unwrap_err(), InvalidEndpoint::Url(InvalidUrl));
    for token in ["", "a b", "a\r\nX: y"] {
        let refused = Endpoint::new("https://a.example", "", Secret::new(token));
        assert_eq!(refused.unwrap_err(), InvalidEndpoint::Bearer);
    }
}
