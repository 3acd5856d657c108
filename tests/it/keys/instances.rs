//! Two nodes with one key: at most one of them sends transactions.

use lamda_node::clock::{Clock as _, SystemClock};
use lamda_node::ids::{Address, Domain, Signature};
use serde_json::{Value, json};

use super::{alarm, control, elsewhere};
use crate::support::anvil::Anvil;
use crate::support::nats::Nats;
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, shell};

/// Another instance's hello, signed by this account of the chain.
fn hello(instance: &str, at_ms: u64, account: usize) -> Value {
    let digest = OWN.control_digest("hello", instance, World::agent_address(), at_ms);
    let signature = Signature(Anvil::key(account).sign_digest(&digest.0));
    json!({"action": "hello", "instance": instance, "issued_at_ms": at_ms, "signature": signature})
}

/// The EIP-712 domain of messages between instances of one key.
const OWN: Domain = Domain { chain_id: 0, contract: Address::new([0; 20]) };

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
    // The second gave up, so the first soon sends transactions again.
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
    // Answers every control request in the node's place, with the signatures that it has heard so far.
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
    assert!(control(&world, &old)["signature"].is_string(), "the key signed it, though long ago");
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
    // An independent implementation of another instance, after docs/protocol.md.
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
    assert_eq!((alarm(&world), alarms()), (None, 1), "the recorded hello was sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_that_started_apart_find_each_other_when_they_meet() {
    let (world, mut apart) = (World::start().await, Nats::start());
    let first = world.agent(&[]);
    let data = elsewhere(&world);
    let second = world.agent(&[("DATA_DIR", &data), ("NATS_URL", &apart.url())]);
    // The second node's server goes away, and a bridge to the first node's server takes its port.
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
    // Jobs still run.
    world.publish("meanwhile", &shell("echo x > /output/output"));
    assert_eq!(world.outcome("meanwhile").last().expect("an end")["status"], "completed");
}
