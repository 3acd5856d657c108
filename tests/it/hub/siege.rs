//! Clients that are not trusted to behave.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::process::{Hub, PATIENCE, SECRET, read_answer};

/// Posts a wrong token so often over connections that are kept, and returns the statuses.
fn guess(at: &str, times: usize) -> Vec<u16> {
    let request = format!(
        "POST /api/heartbeat HTTP/1.1\r\nhost: {at}\r\nauthorization: Bearer wrong\r\n\
         content-length: 2\r\n\r\n{{}}"
    );
    let (mut statuses, mut stream) = (Vec::new(), None);
    let mut buffer = [0; 2048];
    while statuses.len() < times {
        let mut open = stream.take().unwrap_or_else(|| {
            let open = TcpStream::connect(at).expect("it listens");
            open.set_read_timeout(Some(PATIENCE)).expect("a limit");
            open
        });
        open.write_all(request.as_bytes()).expect("it takes the request");
        let mut length = 0;
        while !buffer[..length].ends_with(b"}") {
            let read = open.read(&mut buffer[length..]).expect("an answer");
            assert!(read > 0, "the connection ended within an answer");
            length += read;
        }
        let answer = String::from_utf8_lossy(&buffer[..length]);
        statuses.push(answer[9..12].parse().expect("a status"));
        if !answer.contains("connection: close") {
            stream = Some(open);
        }
    }
    statuses
}

#[test]
fn after_ten_thousand_wrong_tokens_a_right_one_from_there_is_taken() {
    let hub = Hub::start(&[]);
    let statuses = guess(&hub.at, 10_000);
    assert_eq!(statuses[..20], [401; 20]);
    assert!(statuses.iter().filter(|status| **status == 401).count() < 200, "guesses are few");
    let refused = hub.post("wrong", "{}");
    assert_eq!(refused.status, 429);
    let wait = refused.head.lines().find_map(|line| line.strip_prefix("retry-after: "));
    assert!((1..=60).contains(&wait.expect("a time to wait").parse::<u64>().unwrap()));
    hub.beat("a", "UP");
}

#[test]
fn a_gigabyte_is_refused_before_it_is_sent_and_so_is_one_without_a_length() {
    let hub = Hub::start(&[]);
    let head = format!(
        "POST /api/heartbeat HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         authorization: Bearer {SECRET}\r\n"
    );
    let mut stream = TcpStream::connect(&hub.at).unwrap();
    write!(stream, "{head}content-length: 1073741824\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut stream).expect("an answer").status, 413);
    let mut stream = TcpStream::connect(&hub.at).unwrap();
    write!(stream, "{head}transfer-encoding: chunked\r\n\r\n").unwrap();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let mut sent = 0;
    // The hub hangs up; until then the system's buffers take some.
    while sent < 1 << 30 && stream.write_all(chunk.as_bytes()).is_ok() {
        sent += chunk.len();
    }
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    hub.beat("a", "UP");
}

#[test]
fn hundreds_of_clients_that_dawdle_hold_up_nobody() {
    let hub = Hub::start(&[]);
    // From here on: with too few places even connecting would wait.
    let begun = Instant::now();
    let slow: Vec<TcpStream> = (0..500)
        .map(|number| {
            let mut stream = TcpStream::connect(&hub.at).expect("it listens");
            // Half a head, or a head without its body.
            let rest = if number % 2 == 0 { "x: " } else { "content-length: 9\r\n\r\n{" };
            let head = "POST /api/heartbeat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer y\r\n";
            write!(stream, "{head}{rest}").expect("it takes a part");
            stream
        })
        .collect();
    for _ in 0..20 {
        hub.beat("a", "UP");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(slow);
}
