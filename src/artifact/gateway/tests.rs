//! Redirects from gateways, and names that resolve to a different address each time.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::AtomicUsize;

use crate::http::dns::{Addrs, Name, Resolving};

use super::probe::PROBE;
use super::*;

const AT_HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// A loopback address too, but public according to these tests' judge.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn judge(address: IpAddr) -> bool {
    address == IpAddr::V4(PUBLIC) || hop::is_public(address)
}

/// Resolves every name to these addresses in turn; the last one repeats.
struct Names(Vec<Ipv4Addr>, AtomicUsize);

impl Names {
    fn of(addresses: &[Ipv4Addr]) -> Arc<Self> {
        Arc::new(Self(addresses.to_vec(), AtomicUsize::new(0)))
    }
}

impl Resolve for Names {
    fn resolve(&self, _: Name) -> Resolving {
        let at = self.1.fetch_add(1, Ordering::SeqCst).min(self.0.len() - 1);
        let address = SocketAddr::from((self.0[at], 0));
        Box::pin(async move { Ok(Box::new(std::iter::once(address)) as Addrs) })
    }
}

/// Sends `answer` to every request; returns the request counter.
fn server(listener: TcpListener, answer: String) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            drop(client.read(&mut [0; 4096]));
            counting.fetch_add(1, Ordering::SeqCst);
            client.write_all(answer.as_bytes()).ok();
        }
    });
    asked
}

/// Starts a private server, and one on the public address and the same port that redirects to the
/// URL from `to`. Returns the port and the private server's request counter.
fn sends_home(to: impl Fn(u16) -> String) -> (u16, Arc<AtomicUsize>) {
    let secret = TcpListener::bind((AT_HOME, 0)).unwrap();
    let port = secret.local_addr().unwrap().port();
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let asked = server(secret, answer.to_owned());
    let location = to(port);
    server(
        TcpListener::bind((PUBLIC, port)).unwrap(),
        format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\nconnection: close\r\n\r\n"),
    );
    (port, asked)
}

fn config(gateway: String) -> Config {
    Config {
        gateways: vec![gateway],
        gateway_token: None,
        pinata_url: String::new(),
        pinata_jwt: Secret::new(""),
        pinata_rate_per_min: 1,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
    }
}

/// The error of fetching the probe's CID from `gateway`, whose name resolves to `names`.
async fn fetch(gateway: String, names: &[Ipv4Addr]) -> Error {
    let gateways = Gateways::with(&config(gateway), Names::of(names), judge).unwrap();
    let dir = tempfile::tempdir().unwrap();
    gateways.fetch(&PROBE.parse().unwrap(), &dir.path().join("x"), 9, |_| {}).await.unwrap_err()
}

#[tokio::test]
async fn a_public_gateway_sends_nobody_into_the_private_network() {
    for host in ["127.0.0.1", "home.test", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"] {
        let (port, asked) = sends_home(|port| format!("http://{host}:{port}/latest/meta-data"));
        let refused = fetch(format!("http://gateway.test:{port}"), &[PUBLIC, AT_HOME]).await;
        assert!(matches!(refused, Error::Unavailable { .. }), "{host}: {refused:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 0, "{host} was asked");
    }
}

#[tokio::test]
async fn a_gateways_own_name_that_leads_home_the_second_time_is_not_followed_there() {
    let (port, asked) = sends_home(|_| "/latest/meta-data".to_owned());
    let refused = fetch(format!("http://gateway.test:{port}"), &[PUBLIC, AT_HOME]).await;
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 0, "the private address was asked");
}

#[tokio::test]
async fn the_owners_own_gateway_may_send_to_the_owners_own_machines() {
    let secret = TcpListener::bind((AT_HOME, 0)).unwrap();
    let location = format!("http://127.0.0.1:{}/x", secret.local_addr().unwrap().port());
    let asked = server(secret, "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n".to_owned());
    let own = TcpListener::bind((AT_HOME, 0)).unwrap();
    let port = own.local_addr().unwrap().port();
    server(own, format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\nconnection: close\r\n\r\n"));
    for gateway in [format!("http://127.0.0.1:{port}"), format!("http://kubo.test:{port}")] {
        fetch(gateway, &[AT_HOME]).await;
        assert!(asked.swap(0, Ordering::SeqCst) > 0, "it was not followed");
    }
}
