//! The node's key: what opens it, what of it lies in memory, and that no two hosts use it at once.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use lamda_node::chain::keystore;
use lamda_node::clock::{Clock as _, SystemClock};
use lamda_node::ids::{Address, Domain, Signature};
use lamda_node::secret::Secret;
use serde_json::{Value, json};

use crate::support::anvil::Anvil;
use crate::support::nats::Nats;
use crate::support::tools::eventually;
use crate::support::world::{Agent, PATIENCE, PROGRAM, World, shell};

/// What a person would paste out of a password manager: longer than any buffer that holds a piece.
const PASSPHRASE: &str =
    "Yb3-quarry-oSmium-7781-velvet-KETTLE-drift-0452-anther-Pylon-66-tidewrack";

/// Where instances of one key sign what they say to each other.
const OWN: Domain = Domain { chain_id: 0, contract: Address::new([0; 20]) };

/// The settings of a second host: everything of its own but the key.
fn elsewhere(world: &World) -> String {
    world.dir.path().join("elsewhere").display().to_string()
}

/// Asks on the node's control subject; the answer.
fn control(world: &World, request: &Value) -> Value {
    let script = "print((await nc.request(args[0], args[1].encode(), timeout=30)).data.decode())";
    let subject = format!("jobs.control.{}", World::agent_address());
    let answer = world.nats.python(script, &[&subject, &request.to_string()]);
    serde_json::from_str(&answer).expect("an answer in JSON")
}

/// What `status` says of another user of the key.
fn alarm(world: &World) -> Option<String> {
    let status = control(world, &json!({"action": "status"}));
    assert_eq!(status["ok"], true, "{status}");
    status["key_in_use_elsewhere"].as_str().map(str::to_owned)
}

/// A hello as another instance sends it, signed by an account of the chain.
fn hello(instance: &str, at_ms: u64, account: usize) -> Value {
    let digest = OWN.control_digest("hello", instance, World::agent_address(), at_ms);
    let signature = Signature(Anvil::key(account).sign_digest(&digest.0));
    json!({"action": "hello", "instance": instance, "issued_at_ms": at_ms, "signature": signature})
}

#[tokio::test]
async fn a_second_host_with_the_same_key_does_not_start_and_the_first_goes_on() {
    let world = World::start().await;
    let first = world.agent(&[("HEARTBEAT_INTERVAL", "5s")]);
    first.wait_for("heartbeat sent");
    let output = world.command(&["run"]).env("DATA_DIR", elsewhere(&world)).output();
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    let sentence = said.lines().last().unwrap_or_default();
    assert!(sentence.contains("is in use: another node answers with it"), "{said}");
    assert!(sentence.contains("--take-over"), "{said}");
    assert!(!said.contains("heartbeat sent") && !said.contains("waiting for jobs"), "{said}");
    // It gave up, so the first need not be silent for long.
    first.wait_for("transactions are sent again");
    let beats = first.log().matches("heartbeat sent").count();
    eventually("beats go on", PATIENCE, || {
        (first.log().matches("heartbeat sent").count() > beats).then_some(())
    });
    world.publish("after", &shell("echo x > /output/output"));
    assert_eq!(world.outcome("after").last().expect("an end")["status"], "completed");
}

#[tokio::test]
async fn of_two_that_start_at_once_exactly_one_stays() {
    let world = World::start().await;
    let mut nodes = [
        world.start_agent(&[("DATA_DIR", &elsewhere(&world))]),
        world.start_agent(&[("HEARTBEAT_INTERVAL", "5s")]),
    ];
    let (gone, code) = eventually("one of them ends", PATIENCE, || {
        let mut ends = nodes.iter_mut().map(|node| node.running.0.try_wait().expect("our child"));
        ends.by_ref().enumerate().find_map(|(i, end)| Some((i, end?.code())))
    });
    assert_eq!(code, Some(69), "{}", nodes[gone].log());
    let stays = &nodes[1 - gone];
    stays.wait_for("waiting for jobs on jobs.dispatch");
    world.publish("once", &shell("echo x > /output/output"));
    assert_eq!(world.outcome("once").last().expect("an end")["status"], "completed");
    assert!(!nodes[gone].log().contains("waiting for jobs"), "{}", nodes[gone].log());
}

#[tokio::test]
async fn a_node_that_is_taken_over_from_ends_in_order_and_its_queue_goes_on() {
    let world = World::start().await;
    let mut first = world.agent(&[("SHUTDOWN_GRACE_S", "60")]);
    world.publish("first", &shell("sleep 4; echo x > /output/output"));
    first.wait_for("job first: running");
    let data = elsewhere(&world);
    let second = world.start_agent_with(&["run", "--take-over"], &[("DATA_DIR", &data)]);
    first.wait_for("takes over: ending");
    world.publish("second", &shell("echo x > /output/output"));
    assert!(first.wait_for_end().success());
    let end = world.outcome("first").last().expect("an end").clone();
    assert_eq!(end["status"], "completed", "{end}");
    second.wait_for("waiting for jobs on jobs.dispatch");
    assert_eq!(world.outcome("second").last().expect("an end")["status"], "completed");
    second.wait_for("heartbeat sent");
    assert_eq!(alarm(&world), None);
}

#[tokio::test]
async fn a_stranger_neither_stops_a_node_nor_keeps_one_from_starting() {
    let world = World::start().await;
    // Answers every control request as if it were the node, with whatever it has heard before.
    let mut stranger = world.nats.python_beside(
        "sub = await nc.subscribe(args[0])
print('ready')
heard = []
async for m in sub.messages:
    said = json.loads(m.data)
    heard.append(said.get('signature'))
    for signature in heard:
        forged = {'ok': True, 'instance': '00000000-0000-4000-8000-000000000000',
            'signature': signature}
        await nc.publish(m.reply, json.dumps(forged).encode())",
        &[&format!("jobs.control.{}", World::agent_address())],
    );
    assert_eq!(stranger.line(), "ready");
    let agent = world.agent(&[]);
    drop(stranger);
    let unsigned = json!({"action": "hello", "instance": "00000000-0000-4000-8000-000000000001"});
    let answer = control(&world, &unsigned);
    assert_eq!(answer["ok"], true);
    assert!(answer["instance"].is_string() && answer["signature"].is_null(), "{answer}");
    let at_ms = SystemClock.now().unix_ms();
    let forged = hello("00000000-0000-4000-8000-000000000002", at_ms, 2);
    assert!(control(&world, &forged)["signature"].is_null());
    let old = hello("00000000-0000-4000-8000-000000000003", at_ms - 120_000, 1);
    assert!(control(&world, &old)["signature"].is_string(), "it is the key's, if not of now");
    let leave = json!({"action": "leave", "instance": "00000000-0000-4000-8000-000000000004",
        "to": answer["instance"], "issued_at_ms": at_ms, "signature": forged["signature"]});
    assert_eq!(control(&world, &leave)["reason_code"], "not_allowed");
    assert_eq!(alarm(&world), None);
    assert!(!agent.log().contains("no transactions are sent"), "{}", agent.log());
}

#[tokio::test]
async fn another_users_hello_stops_sending_until_it_is_gone_and_a_repeated_one_does_nothing() {
    let world = World::start().await;
    let agent = world.agent(&[]);
    let other = "00000000-0000-4000-8000-000000000005";
    // Another user of the key, written by nobody of ours from docs/protocol.md.
    let script = "
from eth_account import Account
from eth_account.messages import encode_typed_data
subject, key, node, instance, at_ms = args
def control(action, said):
    fields = [('action', 'string'), ('jobId', 'string'), ('agent', 'address'),
        ('issuedAtMs', 'uint64')]
    return encode_typed_data(
        {'name': 'LamdaNode', 'version': '1', 'chainId': 0, 'verifyingContract': '0x' + '0' * 40},
        {'Control': [{'name': name, 'type': kind} for name, kind in fields]},
        {'action': action, 'jobId': said, 'agent': node, 'issuedAtMs': int(at_ms)})
signature = '0x' + Account.sign_message(control('hello', instance), key).signature.hex()
hello = {'action': 'hello', 'instance': instance, 'issued_at_ms': int(at_ms),
    'signature': signature}
answer = json.loads((await nc.request(subject, json.dumps(hello).encode(), timeout=30)).data)
said = control('hello-answer', answer['instance'] + '/' + instance)
print(answer['ok'], Account.recover_message(said, signature=answer['signature']))";
    let node = World::agent_address().to_string();
    let subject = format!("jobs.control.{node}");
    let at_ms = SystemClock.now().unix_ms();
    let say = || {
        let at_ms = at_ms.to_string();
        world.nats.python(script, &[&subject, Anvil::key_hex(1), &node, other, &at_ms])
    };
    assert_eq!(say(), format!("True {node}"));
    agent.wait_for(&format!("another node ({other}) starts with this key"));
    agent.wait_for("transactions are sent again");
    let alarms = || agent.log().matches("no transactions are sent").count();
    assert_eq!(alarms(), 1);
    assert_eq!(say(), format!("True {node}"));
    assert_eq!((alarm(&world), alarms()), (None, 1), "it was recorded and sent again");
}

#[tokio::test]
async fn an_owner_is_shown_and_never_spent_from() {
    let world = World::start().await;
    let owner = Anvil::key(3).address().to_string();
    let account = || {
        let [balance, nonce] = ["balance", "nonce"].map(|what| world.anvil.cast(&[what, &owner]));
        (balance, nonce)
    };
    let before = account();
    let agent = world.agent(&[("NODE_OWNER", &owner)]);
    agent.wait_for("heartbeat sent");
    agent.wait_for(&format!("the node's owner is {owner}"));
    assert_eq!(control(&world, &json!({"action": "status"}))["owner"], owner.as_str());
    let doctor = world.command(&["doctor"]).env("NODE_OWNER", &owner).output().expect("it runs");
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(said.contains(&format!("owner {owner}")), "{said}");
    assert_eq!(account(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_that_started_apart_find_each_other_when_they_meet() {
    let (world, mut apart) = (World::start().await, Nats::start());
    let first = world.agent(&[]);
    let data = elsewhere(&world);
    let second = world.agent(&[("DATA_DIR", &data), ("NATS_URL", &apart.url())]);
    // The second one's server goes, and what answers in its place leads to the first one's.
    apart.kill();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", apart.port())).await;
    let (listener, port) = (listener.expect("the port is free again"), world.nats.port());
    let mut bridge = tokio::task::JoinSet::new();
    bridge.spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        while let Ok((mut from, _)) = listener.accept().await {
            open.spawn(async move {
                let mut to = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
                tokio::io::copy_bidirectional(&mut from, &mut to).await
            });
        }
    });
    for node in [&first, &second] {
        node.wait_for("is at work with this key: no transactions are sent");
    }
    assert!(alarm(&world).is_some_and(|why| why.contains("is at work with this key")));
    // Jobs go on.
    world.publish("meanwhile", &shell("echo x > /output/output"));
    assert_eq!(world.outcome("meanwhile").last().expect("an end")["status"], "completed");
}

#[tokio::test]
async fn neither_the_keys_digits_nor_the_passphrase_lie_in_a_running_nodes_memory() {
    let world = World::start().await;
    let digits = Anvil::key_hex(1).trim_start_matches("0x");
    // What the search can find: the same node with its key in plain text.
    let mut plain = world.agent(&[]);
    let found = memory_holds(&plain, &[digits, PASSPHRASE]);
    assert_eq!(found, [true, false], "the search finds what is there");
    plain.kill();

    let (store, file) = keystore_of(&world, 1);
    let mut settings = vec![
        ("AGENT_PRIVATE_KEY", ""),
        ("AGENT_KEYSTORE", store.as_str()),
        ("AGENT_KEYSTORE_PASSPHRASE_FILE", file.as_str()),
        ("HEARTBEAT_INTERVAL", "1s"),
        ("LOG_LEVEL", "trace"),
    ];
    let mut agent = world.agent(&settings);
    world.publish("claim", &shell("echo x > /output/output"));
    assert_eq!(world.outcome("claim").last().expect("an end")["status"], "completed");
    agent.wait_for("heartbeat sent");
    assert_eq!(memory_holds(&agent, &[digits, PASSPHRASE]), [false, false]);
    // A short one fits where a long one is hashed first.
    agent.kill();
    let short = "quarry-oSmium-7781";
    let again = world.dir.path().join("short.json");
    keystore::import(&again, &Anvil::key(1), &Secret::new(short)).expect("a keystore");
    std::fs::write(&file, short).expect("a file");
    let again = again.display().to_string();
    settings[1].1 = &again;
    let agent = world.agent(&settings);
    agent.wait_for("heartbeat sent");
    assert_eq!(memory_holds(&agent, &[digits, short]), [false, false]);
}

#[tokio::test]
async fn a_passphrase_comes_from_systemds_credentials() {
    let world = World::start().await;
    let (store, file) = keystore_of(&world, 1);
    let credentials = world.dir.path().join("credentials");
    std::fs::create_dir(&credentials).expect("a folder");
    std::fs::rename(&file, credentials.join("lamda-node-passphrase")).expect("it is moved");
    let credentials = credentials.display().to_string();
    let settings = [
        ("AGENT_PRIVATE_KEY", ""),
        ("AGENT_KEYSTORE", &*store),
        ("CREDENTIALS_DIRECTORY", &*credentials),
    ];
    let agent = world.agent(&settings);
    assert!(!agent.log().contains(PASSPHRASE), "{}", agent.log());
    assert!(agent.log().contains(&World::agent_address().to_string()), "{}", agent.log());
    // What any user of the host can see of the process.
    let pid = agent.running.0.id();
    for file in ["cmdline", "environ"] {
        let seen = std::fs::read(format!("/proc/{pid}/{file}")).expect("we are root");
        assert!(!String::from_utf8_lossy(&seen).contains(PASSPHRASE), "{file}");
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let core = status.lines().find(|line| line.starts_with("Max core file size"));
    assert_eq!(core.map(|line| line.matches(" 0 ").count()), Some(2), "{status}");
}

#[test]
fn a_passphrase_is_asked_for_at_the_terminal_without_an_echo() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("key.json");
    keystore::import(&store, &Anvil::key(1), &Secret::new(PASSPHRASE)).expect("a keystore");
    let shown = at_a_terminal(dir.path(), &store, &format!("wrong\u{8}\u{15}{PASSPHRASE}\r"));
    assert!(shown.contains(&format!("Passphrase of {}: ", store.display())), "{shown}");
    assert!(!shown.contains("wrong") && !shown.contains(&PASSPHRASE[4..]), "{shown}");
    // It opened: what ends the start is that there is no GPU here.
    assert!(shown.contains(&World::agent_address().to_string()), "{shown}");
    assert!(shown.contains("exit 69 echo True"), "{shown}");

    let interrupted = at_a_terminal(dir.path(), &store, "half\u{3}");
    assert!(interrupted.contains("no passphrase was given at the terminal"), "{interrupted}");
    assert!(interrupted.contains("exit 64 echo True"), "the echo is on again: {interrupted}");
    let wrong = at_a_terminal(dir.path(), &store, "another\r");
    assert!(wrong.contains("the passphrase does not open"), "{wrong}");
}

/// Runs the node at a terminal of its own and types; what the terminal showed, the exit code, and
/// whether it echoes at the end.
fn at_a_terminal(dir: &Path, store: &Path, typed: &str) -> String {
    let script = "
import os, pty, sys, termios
program, typed = sys.argv[1], sys.argv[2]
pid, tty = pty.fork()
if pid == 0:
    os.execv(program, [program, 'run'])
shown = b''
while b'Passphrase' not in shown:
    shown += os.read(tty, 1024)
os.write(tty, typed.encode())
ended = b''
while True:
    try:
        more = os.read(tty, 1024)
    except OSError:
        break
    if not more:
        break
    shown += more
    ended += more
    if b'\\n' in ended:
        echo = bool(termios.tcgetattr(tty)[3] & termios.ECHO)
_, status = os.waitpid(pid, 0)
print(shown.decode(), 'exit', os.waitstatus_to_exitcode(status), 'echo', echo)
";
    let output = Command::new("python3")
        .args(["-c", script, PROGRAM, typed])
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("AGENT_KEYSTORE", store)
        .env("OPBNB_RPC_URL", "http://127.0.0.1:1")
        .env("REPUTATION_CONTRACT_ADDRESS", "0x00000000000000000000000000000000000000AA")
        .env("PINATA_JWT", "any")
        .env("NVML_LIB", "/etc/hostname")
        .env("DATA_DIR", dir.join("data"))
        .stdin(Stdio::null())
        .output()
        .expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A keystore of an account of the chain, and the file with its passphrase.
fn keystore_of(world: &World, account: usize) -> (String, String) {
    let (store, file) = (world.dir.path().join("key.json"), world.dir.path().join("passphrase"));
    keystore::import(&store, &Anvil::key(account), &Secret::new(PASSPHRASE)).expect("a keystore");
    std::fs::write(&file, format!("{PASSPHRASE}\n")).expect("a file");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("its mode");
    (store.display().to_string(), file.display().to_string())
}

/// Which of these texts lie somewhere in the node's memory, in any case of their letters.
fn memory_holds<const N: usize>(agent: &Agent, texts: &[&str; N]) -> [bool; N] {
    let pid = agent.running.0.id();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("we are root");
    let mut memory = File::open(format!("/proc/{pid}/mem")).expect("we are root");
    let wanted = texts.map(str::to_ascii_lowercase);
    let (mut found, mut searched) = ([false; N], 0);
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
        // What it can't write to holds the program, and nothing that the program was told.
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').expect("a range");
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).expect("an address"));
        if memory.seek(SeekFrom::Start(from)).is_err() {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(to - from).expect("it fits our own memory")];
        // What went away meanwhile holds nothing any more.
        if memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        searched += bytes.len();
        bytes.make_ascii_lowercase();
        for (text, found) in wanted.iter().zip(&mut found) {
            *found |= memchr::memmem::find(&bytes, text.as_bytes()).is_some();
        }
    }
    assert!(searched > 1024 * 1024, "only {searched} bytes could be searched");
    found
}
