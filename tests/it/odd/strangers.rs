//! Anyone on the server: what they can make of the node's log, and of its answers to its owner.

use serde_json::json;

use crate::support::world::{World, shell};

/// Sends `args[1]` requests as fast as it can, then asks once and prints the answer. With `args[2]`, it
/// wants the answers on a subject that is none of its own.
const FLOOD: &str = "
control, count, body = args[0], int(args[1]), args[2].encode()
inbox = nc.new_inbox()
for number in range(count):
    await nc.publish(control, body, reply=inbox)
    if number % 500 == 0:
        await nc.flush()
await nc.flush()
answer = None
for _ in range(20):
    try:
        answer = await nc.request(control, body, timeout=3)
        break
    except Exception:
        pass
print(answer.data.decode() if answer else 'nothing')";

#[tokio::test]
async fn a_flood_of_requests_is_a_line_in_the_log_and_the_owner_gets_an_answer() {
    let world = World::start().await;
    let agent = world.agent(&[]);
    let control = format!("jobs.control.{}", World::agent_address());
    let told = world.nats.python(FLOOD, &[&control, "60000", r#"{"action":"status"}"#]);
    assert!(told.contains(r#""ok":true"#), "{told}");
    let log = agent.log();
    let lines = log.lines().filter(|line| line.contains("messages were dropped")).count();
    assert!((1..=3).contains(&lines), "{lines} lines: {log:.2000}");
    assert!(log.len() < 64 * 1024, "{} bytes", log.len());
}

#[tokio::test]
async fn a_flood_of_messages_that_are_no_jobs_is_counted_in_the_log() {
    let world = World::start().await;
    let agent = world.agent(&[]);
    let script = "
for number in range(int(args[1])):
    await js.publish(args[0], str(number).encode())";
    let jobs = format!("jobs.dispatch.{}", World::agent_address());
    world.nats.python(script, &[&jobs, "300"]);
    world.publish("after", &shell("echo x > /output/output"));
    let statuses = world.outcome("after");
    assert_eq!(statuses.last().map(|last| &last["status"]), Some(&json!("completed")));
    let lines = agent.log().lines().filter(|line| line.contains(" rejected: ")).count();
    assert!((1..=180).contains(&lines), "{lines} lines");
}
