//! Live log lines across a crash of the node.

use serde_json::Value;

use crate::support::world::{World, shell, stages};

const LINES: u64 = 120;

#[tokio::test]
async fn live_lines_go_on_where_they_were_after_a_crash() {
    let world = World::start().await;
    let mut agent = world.agent(&[]);
    let script = format!(
        "while [ $((i=i+1)) -le {LINES} ]; do echo line $i; sleep 0.05; done; \
         echo x > /output/output"
    );
    let mut heard = world.nats.python_beside(
        "sub = await nc.subscribe('jobs.logs.*.talks')
print('ready')
async for m in sub.messages:
    print(m.data.decode())",
        &[],
    );
    assert_eq!(heard.line(), "ready");
    world.publish("talks", &shell(&script));
    let mut next = || -> u64 {
        let line: Value = serde_json::from_str(&heard.line()).expect("a line is JSON");
        let seq = line["seq"].as_u64().expect("a number");
        assert_eq!(line["line"], format!("line {seq}"));
        seq
    };
    // Three seconds of lines: the position, which is written every second, has been written.
    for seq in 1..=60 {
        assert_eq!(next(), seq);
    }
    agent.kill();
    let _agent = world.agent(&[]);
    let (mut expected, mut repeated) = (61, 0);
    while expected <= LINES {
        let seq = next();
        if seq == expected {
            expected += 1;
        } else {
            assert!(seq < expected, "line {expected} is missing before {seq}");
            repeated += 1;
        }
    }
    assert!(repeated < 40, "{repeated} of 60 lines came again");
    assert_eq!(stages(&world.outcome("talks")), "accepted pulling running uploading completed");
}
