//! `jobs`: what an owner sees of a node's jobs, while the node runs and after its end.

use serde_json::{Value, json};

use super::{jobs, line_of, told};
use crate::support::program::Program;
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, shell};

/// A CID that nobody has.
const NOWHERE: &str = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn object(world: &World, id: &str) -> Value {
    objects(&told(world, &[id, "--json"])).remove(0)
}

#[tokio::test]
async fn an_owner_sees_what_each_job_waits_for_and_what_to_do() {
    let world = World::start().await;
    let mut agent = world.agent(&[("FETCH_GIVE_UP_S", "600")]);
    world.publish("failing", &shell("echo why >&2; exit 3"));
    world.outcome("failing");
    world.publish("runs", &shell("sleep 600"));
    world.publish("waits", &json!({"input_file_cid": NOWHERE}));
    agent.wait_for("job runs: running");
    let waits = eventually("the failures are shown", PATIENCE, || {
        let line = line_of(&told(&world, &[]), "waits")?;
        line.contains("did not work 2 times").then_some(line)
    });
    assert!(waits.contains("fetching the inputs (attempt 1, from dispatch.0x"), "{waits}");
    assert!(waits.contains("(input_unavailable); the next try is at 2"), "{waits}");

    let open = told(&world, &[]);
    assert!(line_of(&open, "runs").is_some_and(|line| line.contains(" running, until ")), "{open}");
    assert_eq!(line_of(&open, "failing"), None, "a finished job is not listed as open");
    let all = told(&world, &["--all"]);
    let newest_first: Vec<&str> = all.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(newest_first, ["waits", "runs", "failing"]);
    assert!(all.contains("failing failed (attempt 1"), "{all}");
    let short = jobs(&world, &["--all", "--limit", "1"]);
    let said = String::from_utf8_lossy(&short.stderr);
    assert!(said.contains("2 older ones are not shown"), "{said}");

    // Repeated failures take one line.
    let waits = told(&world, &["waits"]);
    assert_eq!(waits.matches("did not work: ").count(), 1, "{waits}");
    assert!(waits.contains(" times in ") && waits.contains("IPFS_GATEWAYS"), "{waits}");

    agent.kill();
    let failing = told(&world, &["failing"]);
    for part in [
        "job failing: failed, since ",
        "image      busybox:test",
        "the image is here",
        "ended with exit code 3",
        " 1 accepted    published",
        "failed      published",
        "`lamda-node receipt show failing`",
        "ended      failed, exit code 3",
        "why        the command ended with exit code 3",
        "reason     nonzero_exit: The command ended with another exit code than 0.",
        "to do      The requester has to look at what the job wrote",
    ] {
        assert!(failing.contains(part), "{part:?} is not in:\n{failing}");
    }
    let told = object(&world, "failing");
    let log = told["log_cid"].as_str().expect("a log");
    assert_eq!(world.content(log).await, b"why\n");
    assert!(failing.contains(&format!("log        {log}")), "{failing}");
    let reason = (&told["phase"], &told["outcome"], &told["reason_code"], &told["open"]);
    let expected = (&json!("settled"), &json!("failed"), &json!("nonzero_exit"), &json!(false));
    assert_eq!(reason, expected, "{told}");
    let events: Vec<_> = told["events"].as_array().expect("events").iter().collect();
    assert_eq!(events[0]["event"], "pulled");
    assert_eq!(events.last().expect("events")["event"], "acked");
    let seqs: Vec<_> = told["statuses"].as_array().expect("statuses").iter().collect();
    assert!(seqs.iter().enumerate().all(|(i, said)| said["seq"] == i + 1), "{told}");
    assert_eq!((&told["has_receipt"], &told["lost"]), (&json!(true), &json!(0)));
    let waits = object(&world, "waits");
    assert_eq!(waits["trouble"]["reason_code"], "input_unavailable");
    assert!(waits["trouble"]["failures"].as_u64() >= Some(2), "{waits}");
    assert!(waits.get("outcome").is_none() && waits.get("deadline").is_none(), "{waits}");
}

#[tokio::test]
async fn what_strangers_wrote_can_not_rewrite_the_terminal() {
    let world = World::start().await;
    let _agent = world.agent(&[]);
    let escape = "\u{1b}[2J\u{9b}1mevil\r\n";
    world.publish("strange", &json!({"image_name": format!("busybox:test{escape}")}));
    world.publish("unclean", &{
        let mut job = shell("true");
        (job["gpus"], job["gpu_model"]) = (0.into(), escape.into());
        job
    });
    for (id, reason) in [("strange", "image_invalid"), ("unclean", "output_missing")] {
        let statuses = world.outcome(id);
        assert_eq!(statuses.last().expect("a status")["reason_code"], reason);
        // `told` asserts that there are no control characters.
        let (one, all) = (told(&world, &[id]), told(&world, &["--all"]));
        assert!(one.contains("evil"), "{one}");
        assert!(line_of(&all, id).is_some_and(|line| line.contains(reason)), "{all}");
        let object = object(&world, id);
        assert!(object["remedy"].as_str().is_some_and(|remedy| remedy.len() > 20), "{object}");
    }
    let refused = object(&world, "strange");
    assert_eq!((&refused["phase"], &refused["uses_id_up"]), (&json!("rejected"), &json!(true)));
}

#[test]
fn a_job_that_nobody_knows_and_a_folder_without_a_journal_are_told_apart() {
    let dir = tempfile::tempdir().expect("a folder");
    let program = Program::with(&[("DATA_DIR", &dir.path().display().to_string())]);
    let run = |arguments: &[&str]| {
        let ended = program.run(arguments);
        (Some(ended.code()), ended.stderr())
    };
    let (code, said) = run(&["jobs"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there is no journal in"), "{said}");
    drop(lamda_node::journal::Journal::open(dir.path()).expect("a journal"));
    let (code, said) = run(&["jobs"]);
    assert_eq!((code, said.contains("no job is in hand")), (Some(0), true), "{said}");
    let (code, said) = run(&["jobs", "unheard-of"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("knows no job unheard-of"), "{said}");
    assert_eq!(run(&["jobs", "--all", "one"]).0, Some(64));
}
