//! The server configuration of deploy/nats on a real nats-server: a node does all its work with its own
//! rights, and everything outside a user's rights is refused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use lamda_node::chain::Key;
use lamda_node::ids::Address;
use serde_json::{Value, json};

use crate::support::nats::Nats;
use crate::support::program::Program;
use crate::support::speaker::{Speaker, say, without_chain};
use crate::support::world::World;

const CONF: &str = include_str!("../../../deploy/nats/nats-server.conf");

/// The address of another node.
const OTHER: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

/// The file as an owner fills it in for one node, without the lines before the accounts.
fn conf(node: Address) -> String {
    let (_, accounts) = CONF.split_once("\nauthorization {").expect("accounts");
    let mut text = format!("authorization {{{accounts}")
        .replace("0xNODE", &node.to_string())
        .replace("0xnode", &node.lower_hex());
    for user in ["ADMIN", "NODE", "DISPATCHER", "WATCHER"] {
        text = text.replace(&format!("${user}_PASSWORD"), &format!("\"of-{user}\"").to_lowercase());
    }
    text
}

/// A server with those accounts; deploy/nats/provision.py has made its streams and consumers.
fn server(node: Address, dir: &Path) -> Nats {
    let nats = Nats::with(&conf(node)).known_as("admin", "of-admin");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = Command::new(root.join(".tools/nv/bin/python"))
        .arg(root.join("deploy/nats/provision.py"))
        .args(["--url", &nats.url(), "--user", "admin", "--pool", "cpu"])
        .args(["--node", &node.to_string(), "--password-file"])
        .arg(password(dir, "admin"))
        .output()
        .expect("python runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    nats
}

/// Writes the file with this user's password.
fn password(dir: &Path, user: &str) -> PathBuf {
    let file = dir.join(format!("{user}.password"));
    std::fs::write(&file, format!("of-{user}\n")).expect("it is written");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, private).expect("its mode");
    file
}

/// The settings with which the program connects as this user.
fn as_user(dir: &Path, user: &str, inbox: &str) -> [(&'static str, String); 4] {
    [
        ("NATS_USER", user.to_owned()),
        ("NATS_PASSWORD_FILE", password(dir, user).display().to_string()),
        ("NATS_INBOX_PREFIX", format!("_INBOX_{inbox}")),
        ("NATS_STREAMS", "check".to_owned()),
    ]
}

#[tokio::test]
async fn a_node_does_all_its_work_with_its_own_rights() {
    let mut world = World::start().await;
    let (node, dir) = (World::agent_address(), tempfile::tempdir().expect("a folder"));
    world.nats = server(node, dir.path());
    let own = as_user(dir.path(), "node", &node.lower_hex());
    let mut settings: Vec<(&str, &str)> = own.iter().map(|(n, v)| (*n, v.as_str())).collect();
    settings.push(("AGENT_POOLS", "cpu"));
    let agent = world.agent(&settings);
    agent.wait_for("waiting for jobs on jobs.pool.cpu");

    let run = |user: &str, arguments: &[&str]| {
        let mut command = world.command(arguments);
        let output = command.envs(as_user(dir.path(), user, user)).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{user} {arguments:?}: {out}{err}\n{}", agent.log());
    };
    let address = node.to_string();
    let job = ["--image", "busybox:test", "--unsigned", "--follow"];
    let script = ["--", "sh", "-c", "echo said; echo x > /output/output"];
    for (id, to) in [("own", ["--agent", &address]), ("pooled", ["--pool", "cpu"])] {
        let of_job = ["submit", "--job-id", id];
        run("dispatcher", &[&of_job[..], &to, &job, &script].concat());
        run("watcher", &[&["watch", id][..], &to].concat());
    }
    run("dispatcher", &["watch", "own", "--agent", &address]);
    forge_with_its_answers(&world, &address);
    let mut doctor = world.command(&["doctor", "--json"]);
    let said = doctor.envs(own.clone()).output().expect("it runs").stdout;
    let said: Value = serde_json::from_slice(&said).expect("JSON");
    let checks = said["checks"].as_array().expect("checks");
    let nats = checks.iter().find(|check| check["name"] == "nats").expect("the check");
    assert_eq!(nats["status"], "ok", "{nats}");
    world.wait_until_clean().await;
    // The server refused nothing that the node tried.
    let log = agent.log();
    assert!(!log.to_lowercase().contains("permissions violation"), "{log}");
}

/// A dispatcher asks for the node's status, with reply subjects that it may not publish on itself.
fn forge_with_its_answers(world: &World, node: &str) {
    let script = "
heard = []
async def hear(message):
    heard.append(message.subject)
elsewhere = ['$KV.JOB_CLAIMS.cpu.pooled', 'jobs.dispatch.' + args[0], 'jobs.results.' + args[0] + '.own']
for subject in elsewhere:
    await nc.subscribe(subject, cb=hear)
await nc.flush()
url = nc.connected_url.netloc.rsplit('@')[-1]
own = await nats.connect('nats://' + url, user='dispatcher', password='of-dispatcher',
                         inbox_prefix=b'_INBOX_dispatcher')
status = json.dumps({'action': 'status'}).encode()
for reply in elsewhere:
    await own.publish('jobs.control.' + args[0], status, reply=reply)
for n in range(20):
    said = json.loads((await own.request('jobs.control.' + args[0], status, timeout=10)).data)
    assert said['ok'], said
await nc.flush()
print(' '.join(heard))
await own.close()";
    assert_eq!(world.nats.python(script, &[node]), "", "the node's answer is a claim or a job");
}

/// The stream of results is missing, and a job's message is purged while its node is stopped.
#[tokio::test]
async fn a_job_that_was_purged_goes_on_with_the_nodes_own_rights() {
    let mut world = World::start().await;
    let (node, dir) = (World::agent_address(), tempfile::tempdir().expect("a folder"));
    world.nats = server(node, dir.path());
    world.nats.python("await js.delete_stream('RESULTS')", &[]);
    let own = as_user(dir.path(), "node", &node.lower_hex());
    let mut settings: Vec<(&str, &str)> = own.iter().map(|(n, v)| (*n, v.as_str())).collect();
    settings.extend([("AGENT_POOLS", "cpu"), ("SHUTDOWN_GRACE_S", "0"), ("JOB_STOP_GRACE_S", "1")]);
    let mut agent = world.agent(&settings);
    agent.wait_for("there is no stream RESULTS");
    let mut submit =
        world.command(&["submit", "--pool", "cpu", "--job-id", "purged", "--unsigned"]);
    submit.args(["--image", "busybox:test", "--", "sleep", "600"]);
    let submitted = submit.envs(as_user(dir.path(), "dispatcher", "dispatcher")).status();
    assert!(submitted.expect("it runs").success());
    agent.wait_for("job purged: running");
    agent.ask_to_end();
    assert!(agent.wait_for_end().success());
    world.nats.python("await js.purge_stream('JOBS')", &[]);
    let agent = world.agent(&settings);
    agent.wait_for("job purged: running");
    let log = agent.log();
    assert!(!log.to_lowercase().contains("permissions violation"), "{log}");
}

/// A watcher may not read the queue, so it can't tell whether a rejected job is still in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_is_told_that_a_rejection_can_not_be_found_out() {
    let (node, dir) = (World::agent_address(), tempfile::tempdir().expect("a folder"));
    let nats = server(node, dir.path());
    let stranger = Speaker::new(Key::random(), without_chain());
    say(&nats, &[&stranger.status("j", 1, "rejected", &json!({"reason_code": "no_gpu"}))]);
    let mut program = Program::with(&[("NATS_URL", &nats.url())]);
    for (name, value) in as_user(dir.path(), "watcher", "watcher") {
        program.set(name, &value);
    }
    let ended = program.run(&["watch", "j", "--pool", "cpu"]);
    let said = ended.stderr();
    assert!(said.contains("cannot be found out whether that is still in the queue"), "{said}");
    assert_eq!(ended.code(), 3, "{said}");
}

/// Which of `tries` the server lets a user do: `+subject` is a publish, `-subject` a subscription.
fn allowed(nats: &Nats, user: &str, tries: &[String]) -> BTreeSet<String> {
    let script = "
errors = []
async def complain(error):
    errors.append(str(error).lower())
url = nc.connected_url.netloc.rsplit('@')[-1]
for line in args[1:]:
    errors.clear()
    own = await nats.connect('nats://' + url, user=args[0], password='of-' + args[0],
                             error_cb=complain, allow_reconnect=False)
    if line[0] == '+':
        await own.publish(line[1:], b'{}')
    else:
        await own.subscribe(line[1:])
    # The first may overtake what it is to follow.
    await own.flush()
    await own.flush()
    if not any('permissions violation' in error for error in errors):
        print(line)
    await own.close()";
    let arguments: Vec<&str> =
        std::iter::once(user).chain(tries.iter().map(String::as_str)).collect();
    nats.python(script, &arguments).lines().map(str::to_owned).collect()
}

/// Forbidden to all three users; for the notation see [`allowed`].
const NOBODYS: &[&str] = &[
    "+$JS.API.STREAM.CREATE.X",
    "+$JS.API.STREAM.UPDATE.JOBS",
    "+$JS.API.STREAM.PURGE.JOBS",
    "+$JS.API.STREAM.PURGE.STATUS",
    "+$JS.API.STREAM.DELETE.STATUS",
    "+$JS.API.STREAM.DELETE.KV_JOB_CLAIMS",
    "+$JS.API.STREAM.MSG.DELETE.JOBS",
    "+$JS.API.STREAM.MSG.DELETE.STATUS",
    "+$JS.API.CONSUMER.CREATE.JOBS.AGENT",
    "+$JS.API.CONSUMER.CREATE.JOBS.pool-cpu.jobs.pool.cpu",
    "+$JS.API.CONSUMER.DURABLE.CREATE.JOBS.AGENT",
    "+$JS.API.CONSUMER.DELETE.JOBS.AGENT",
    "+$JS.API.CONSUMER.CREATE.KV_JOB_CLAIMS.x",
    "+$JS.API.CONSUMER.MSG.NEXT.JOBS.agent-OTHER",
    "+$JS.ACK.JOBS.agent-OTHER.1.1.1.1.0",
    "+$KV.JOB_CLAIMS.other.job",
    "+$KV.NODES.OTHER",
    "+jobs.results.OTHER.job",
    "+jobs.status.OTHER.job",
    "+jobs.logs.OTHER.job",
    "+jobs.dead.OTHER",
    "+events.OTHER.job.failed",
    "+usage.OTHER.job",
    "+$JS.API.STREAM.PURGE.USAGE",
    "->",
    "-jobs.>",
    "-jobs.dispatch.OWN",
    "-jobs.pool.cpu",
    "-jobs.control.OTHER",
    "-jobs.holds.OTHER",
    "-_INBOX.>",
    "-_INBOX_OTHER.>",
    "-$JS.API.>",
    "-$KV.JOB_CLAIMS.>",
];

/// Allowed to a node.
const OF_NODE: &[&str] = &[
    "+jobs.status.OWN.job",
    "+jobs.logs.OWN.job",
    "+events.OWN.job.failed",
    "+usage.OWN.job",
    "+m.lamda.c.nodes.metrics.proplet",
    "+$JS.API.STREAM.MSG.GET.USAGE",
    "+$KV.JOB_CLAIMS.cpu.job",
    "+agent.status",
    "+$JS.ACK.JOBS.AGENT.1.1.1.1.0",
    "+$JS.API.CONSUMER.MSG.NEXT.JOBS.AGENT",
    "-_INBOX_OWN.>",
    "+jobs.control.OWN",
    "+jobs.holds.OTHER",
    "+$JS.API.STREAM.MSG.GET.JOBS",
    "+$JS.API.STREAM.MSG.GET.DEAD",
    "-jobs.control.OWN",
    "-jobs.holds.OWN",
];

/// Allowed to a dispatcher.
const OF_DISPATCHER: &[&str] = &[
    "+jobs.dispatch.OWN",
    "+jobs.pool.cpu",
    "+jobs.control.OWN",
    "+jobs.control.OTHER",
    "+$JS.API.STREAM.MSG.GET.JOBS",
    "-_INBOX_dispatcher.>",
];

/// Allowed to a dispatcher and to a watcher.
const OF_BOTH: &[&str] = &[
    "+$JS.API.CONSUMER.CREATE.STATUS.x.jobs.status.>",
    "+$JS.API.CONSUMER.CREATE.USAGE.x.usage.>",
    "+$JS.API.CONSUMER.CREATE.EVENTS.x.events.>",
    "-jobs.status.>",
    "-jobs.logs.OWN.job",
    "-events.>",
];

/// Allowed to a watcher.
const OF_WATCHER: &[&str] = &["-_INBOX_watcher.>"];

#[tokio::test]
async fn nobody_may_what_is_not_his() {
    let (node, dir) = (World::agent_address(), tempfile::tempdir().expect("a folder"));
    let nats = server(node, dir.path());
    let (own, lower) = (node.to_string(), node.lower_hex());
    let rights: [(&str, Vec<&str>); 3] = [
        ("node", OF_NODE.to_vec()),
        ("dispatcher", [OF_DISPATCHER, OF_BOTH].concat()),
        ("watcher", [OF_WATCHER, OF_BOTH].concat()),
    ];
    let filled = |line: &&str| {
        let line = line
            .replace("AGENT", &format!("agent-{lower}"))
            .replace("agent-OTHER", "agent-0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed");
        let line = line
            .replace("_INBOX_OWN", &format!("_INBOX_{lower}"))
            .replace("_INBOX_OTHER", "_INBOX_0x5a");
        line.replace("OTHER", OTHER).replace("OWN", &own)
    };
    let everything: BTreeSet<String> = rights
        .iter()
        .flat_map(|(_, may)| may)
        .map(filled)
        .chain(NOBODYS.iter().map(filled))
        .collect();
    let everything: Vec<String> = everything.into_iter().collect();
    for (user, may) in rights {
        let may: BTreeSet<String> = may.iter().map(filled).collect();
        assert_eq!(allowed(&nats, user, &everything), may, "{user}");
    }
}
