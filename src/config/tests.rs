use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::*;
use crate::agent::JobAuth;
use crate::secret::Secret;

const KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// A small `.env` as an owner fills it in.
fn seed() -> HashMap<String, String> {
    [
        ("OPBNB_RPC_URL", "https://opbnb-testnet-rpc.bnbchain.org"),
        ("AGENT_PRIVATE_KEY", KEY),
        ("REPUTATION_CONTRACT_ADDRESS", "0x108f2c400C9828d8044a5F6985f0C9589B90758D"),
        ("NATS_URL", "nats://localhost:4222"),
        ("DOCKER_HOST", "unix:///var/run/docker.sock"),
        ("PINATA_JWT", "eyJh.secret-jwt.sig"),
        ("HEARTBEAT_INTERVAL", "5m"),
        ("LOG_LEVEL", "info"),
        ("HOME", "/home/node"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn with(changes: &[(&str, &str)]) -> HashMap<String, String> {
    let mut variables = seed();
    variables.extend(changes.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    variables
}

fn node(changes: &[(&str, &str)]) -> Node {
    let variables = with(changes);
    Node::read(&mut Env::new(&variables)).unwrap_or_else(|problems| panic!("{problems}")).0
}

/// The problems of these settings as one text; empty if there are none.
fn told(changes: &[(&str, &str)]) -> String {
    let variables = with(changes);
    match Node::read(&mut Env::new(&variables)) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn the_seeds_env_works_unchanged_and_earns_one_warning() {
    let variables = seed();
    let mut env = Env::new(&variables);
    let (node, key) = Node::read(&mut env).unwrap();
    assert_eq!(node.bus.url, "nats://localhost:4222");
    assert_eq!(node.docker.host, "unix:///var/run/docker.sock");
    assert_eq!(node.settings.heartbeat_interval, Duration::from_mins(5));
    assert_eq!(node.settings.auth, JobAuth::Open);
    assert_eq!(node.artifact.pinata_url, "https://api.pinata.cloud");
    assert_eq!(node.artifact.gateways, ["https://gateway.pinata.cloud"]);
    assert_eq!(node.chain.chain_id, Some(5611), "the network's own contract is on its chain");
    assert_eq!(
        key.load().unwrap().address().to_string(),
        "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    );
    let warnings = env.take_warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("AGENT_PRIVATE_KEY"), "{warnings:?}");
    assert!(!warnings[0].contains(KEY));
}

#[test]
fn an_empty_environment_is_told_everything_that_is_missing_at_once() {
    let nothing = HashMap::new();
    let told = Node::read(&mut Env::new(&nothing)).unwrap_err().to_string();
    for name in ["OPBNB_RPC_URL", "REPUTATION_CONTRACT_ADDRESS", "AGENT_KEYSTORE", "PINATA_JWT"] {
        assert!(told.contains(&format!("\n  {name}: ")), "{name}: {told}");
    }
    // Both ways out of a missing key for the pinning service.
    assert!(told.contains("app.pinata.cloud") && told.contains("lamda-node store"), "{told}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_wrong_value_is_told_at_once_with_its_variable_and_an_example() {
    let wrong = [
        ("OPBNB_RPC_URL", "localhost"),
        ("REPUTATION_CONTRACT_ADDRESS", "0x12"),
        ("AGENT_PRIVATE_KEY", "12"),
        ("NATS_URL", "http://localhost:4222"),
        ("NATS_STREAMS", "maybe"),
        ("NATS_MODE", "any"),
        ("NATS_TLS_CA", "/nonexistent/ca.pem"),
        ("NATS_TLS_HANDSHAKE", "last"),
        ("NATS_INBOX_PREFIX", "jobs.dispatch"),
        ("DOCKER_HOST", "ssh://host"),
        ("PINATA_JWT", "Bearer abc"),
        ("PINATA_API_URL", "pinata"),
        ("PINATA_RATE_PER_MIN", "0"),
        ("IPFS_GATEWAYS", "https://a.example,b"),
        ("HEARTBEAT_INTERVAL", "300"),
        ("HEARTBEAT_INTERVAL_SECONDS", "5m"),
        ("LOG_LEVEL", "loud"),
        ("CHAIN_ID", "opbnb"),
        ("GPU_MODE", "maybe"),
        ("GPU_YIELD", "sometimes"),
        ("GPU_ACCESS", "all"),
        ("GPU_ALLOW_UNSAFE_TOOLKIT", "1.16"),
        ("GPU_PROBE_IMAGE", "My Image"),
        ("JOB_SLOTS", "0"),
        ("AGENT_POOLS", "a100,b.c"),
        ("POOL_PREFETCH", "-1"),
        ("JOB_AUTH", "closed"),
        ("JOB_ALLOWED_REQUESTERS", "0x1"),
        ("JOB_NETWORK", "host"),
        ("JOB_WARM_NETWORKS", "many"),
        ("JOB_DNS", "1.1.1.1,192.168.1.1"),
        ("JOB_DNS", "dns.example"),
        ("JOB_SANDBOX", "open"),
        ("JOB_USER", "0:0"),
        ("JOB_USER", "nobody"),
        ("JOB_RUNTIME", "../runc"),
        ("JOB_REGISTRIES", "ghcr.io,https://quay.io"),
        ("JOB_LOCAL_IMAGES", "my app"),
        ("JOB_IMAGES_ALLOW", "a,b c"),
        ("JOB_IMAGES_DENY", "a**"),
        ("JOB_IMAGES_DIGEST", "yes"),
        ("JOB_PULL", "never"),
        ("JOB_COSIGN_KEY", "/nonexistent/cosign.pub"),
        ("JOB_TIMEOUT_MAX", "1 day"),
        ("FETCH_GIVE_UP_S", "1.5"),
        ("UPLOAD_GIVE_UP_S", "never"),
        ("RESULT_KEEP_DAYS", "for ever"),
        ("DISK_FREE_MIN_MIB", "2GB"),
        ("METRICS_LISTEN", "localhost:9464"),
        ("METRICS_LISTEN", "127.0.0.1"),
        ("HUB_URL", "hub.example"),
        ("DISK_BUDGET_MIB", "255"),
        ("SHUTDOWN_GRACE_S", "30s"),
        ("SHUTDOWN_JOBS", "kill"),
        ("JOB_STOP_GRACE_S", "x"),
        ("NODE_OWNER", "me"),
        ("DATA_DIR", "/a:b"),
    ];
    let variables = with(&wrong);
    let mut env = Env::new(&variables);
    assert!(logging::read(&mut env).is_none());
    let told = Node::read(&mut env).unwrap_err();
    for (name, value) in wrong.into_iter().filter(|(name, _)| *name != "JOB_ALLOWED_REQUESTERS") {
        let own: Vec<_> = told.0.iter().filter(|problem| problem.variable == name).collect();
        assert_eq!(own.len(), 1, "{name}={value}: {told}");
        assert!(own[0].example.starts_with(&format!("{name}=")), "{}", own[0]);
    }
}

#[test]
fn without_a_list_of_requesters_a_nats_server_elsewhere_needs_a_word_of_the_owner() {
    let elsewhere = ("NATS_URL", "nats://nats.example.com:4222");
    let told = told(&[elsewhere]);
    assert!(told.contains("add JOB_AUTH=open to .env"), "{told}");
    assert_eq!(node(&[elsewhere, ("JOB_AUTH", "open")]).settings.auth, JobAuth::Open);
    let requester = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
    let listed = node(&[elsewhere, ("JOB_ALLOWED_REQUESTERS", &requester.to_lowercase())]);
    assert_eq!(listed.settings.auth, JobAuth::Requesters([requester.parse().unwrap()].into()));
}

#[test]
fn a_path_may_begin_with_the_home_of_its_owner_and_with_nothing_else_of_a_shells() {
    let dir = |text: &str| node(&[("DATA_DIR", text)]).settings.data_dir;
    assert_eq!(dir("~/x").to_str(), Some("/home/node/x"));
    assert_eq!(dir("~").to_str(), Some("/home/node"));
    assert_eq!(dir("/a/~x").to_str(), Some("/a/~x"));
    for (text, says) in
        [("$HOME/x", "begins with a $"), ("${X}", "begins with a $"), ("~boss/x", "begins with ~")]
    {
        let told = told(&[("DATA_DIR", text)]);
        assert!(told.contains("DATA_DIR: it ") && told.contains(says), "{told}");
    }
    assert!(told(&[("DATA_DIR", "~/x"), ("HOME", "")]).contains("HOME is not set"));
}

#[test]
fn both_kinds_of_job_auth_at_once_and_a_list_of_nobody_are_refused() {
    let requester = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
    let both = told(&[("JOB_AUTH", "open"), ("JOB_ALLOWED_REQUESTERS", requester)]);
    assert!(both.contains("leave one of the two out"), "{both}");
    for empty in ["", " ", " , "] {
        let told = told(&[("JOB_ALLOWED_REQUESTERS", empty)]);
        assert!(told.contains("JOB_ALLOWED_REQUESTERS: its list names nobody"), "{empty:?} {told}");
    }
}

#[test]
fn the_seeds_placeholders_are_named_as_such() {
    for (name, value) in [
        ("AGENT_PRIVATE_KEY", "your_private_key_here"),
        ("PINATA_JWT", "your_pinata_jwt_token_here"),
    ] {
        let told = told(&[(name, value)]);
        assert!(told.contains(&format!("{name}: it still holds the example's placeholder")));
    }
}

#[test]
fn no_secret_stands_in_a_problem_a_warning_or_the_settings_themselves() {
    let secrets = ["hunter2", "hunter3", "hunter4", "hunter5"];
    let (key, url) = (format!("{KEY}00hunter2"), "nats//user:hunter4@host");
    let wrong = [
        ("AGENT_PRIVATE_KEY", key.as_str()),
        ("PINATA_JWT", "Bearer hunter3"),
        ("NATS_URL", url),
        ("OPBNB_RPC_URL", "rpc.example/v2/hunter5"),
        // Pasted into the wrong line.
        ("REPUTATION_CONTRACT_ADDRESS", KEY),
        ("CHAIN_ID", KEY),
    ];
    let told = told(&wrong);
    assert!(!told.is_empty() && !told.contains(KEY), "{told}");
    assert!(secrets.iter().all(|secret| !told.contains(secret)), "{told}");
    let shown = format!("{:?}", node(&[("NATS_URL", "nats://user:hunter2@localhost")]));
    assert!(!shown.contains("hunter2") && !shown.contains(KEY), "{shown}");
    assert!(!shown.contains("secret-jwt"), "{shown}");
}

#[test]
fn several_endpoints_are_taken_in_their_order() {
    let urls = "https://a.example/v2/hunter2 ,http://127.0.0.1:8545,, https://b.example/";
    let node = node(&[("OPBNB_RPC_URL", urls)]);
    let taken = ["https://a.example/v2/hunter2", "http://127.0.0.1:8545", "https://b.example/"];
    assert_eq!(node.chain.rpc_urls, taken);
}

#[test]
fn a_wrong_list_of_endpoints_is_told_without_repeating_a_key() {
    let nine = (1..=9).map(|n| format!("https://hunter2.example/{n}")).collect::<Vec<_>>();
    for (list, expected) in [
        ("hunter2", "it is not an http:// or https:// URL"),
        ("https://a.example/hunter2,ws://hunter2.example", "its URL 2 is not an http:// or"),
        ("http://a/hunter2,http://b,http://a/hunter2/", "its URLs 1 and 3 are the same"),
        (&nine.join(","), "it names 9 endpoints, and 8 is the most"),
        (",", "it names no endpoint"),
    ] {
        let told = told(&[("OPBNB_RPC_URL", list)]);
        assert!(told.contains(&format!("OPBNB_RPC_URL: {expected}")), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_node_without_gpus_is_held_to_local_chains() {
    assert!(told(&[("GPU_MODE", "none")]).contains("CHAIN_ID"), "the network's contract");
    let contract = "0x5FbDB2315678afecb367f032d93F642f64180aa3";
    let local = [("GPU_MODE", "none"), ("REPUTATION_CONTRACT_ADDRESS", contract)];
    assert_eq!(node(&local).chain.chain_id, None, "the endpoint is asked at the start");
    let [mode, address] = local;
    assert!(told(&[mode, address, ("CHAIN_ID", "56")]).contains("CHAIN_ID=31337"));
    assert!(node(&[mode, address, ("CHAIN_ID", "1337")]).settings.without_gpu);
}

#[test]
fn a_key_is_either_plain_or_in_a_keystore() {
    let dir = tempfile::tempdir().unwrap();
    let (store, phrase) = (dir.path().join("key.json"), dir.path().join("phrase"));
    let (store, phrase) = (store.to_str().unwrap(), phrase.to_str().unwrap());
    let both = told(&[("AGENT_KEYSTORE", store)]);
    assert!(both.contains("AGENT_PRIVATE_KEY: it is set beside AGENT_KEYSTORE"), "{both}");
    let lacking = told(&[("AGENT_PRIVATE_KEY", ""), ("AGENT_KEYSTORE", store)]);
    assert!(lacking.contains("AGENT_KEYSTORE: there is no file"), "{lacking}");
    assert!(lacking.contains("AGENT_KEYSTORE_PASSPHRASE_FILE: it is not set"), "{lacking}");

    write_secret(phrase, "correct horse\n");
    let made =
        crate::chain::keystore::create(store.as_ref(), &read_secret(phrase.as_ref()).unwrap());
    let set = [
        ("AGENT_PRIVATE_KEY", ""),
        ("AGENT_KEYSTORE", store),
        ("AGENT_KEYSTORE_PASSPHRASE_FILE", phrase),
    ];
    assert_eq!(key_of(&set), made.unwrap().address());
}

/// A file with a secret, as its owner writes it.
fn write_secret(path: &str, text: &str) {
    std::fs::write(path, text).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, private).unwrap();
}

/// The address of the key that these settings lead to.
fn key_of(changes: &[(&str, &str)]) -> Address {
    let variables = with(changes);
    let (_, key) = Node::read(&mut Env::new(&variables)).unwrap();
    key.load().unwrap().address()
}

#[test]
fn a_passphrase_is_systemds_credential_where_no_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let made = crate::chain::keystore::create(at("key.json").as_ref(), &Secret::new("right"));
    let (store, credentials) = (at("key.json"), at(""));
    let keystore = [
        ("AGENT_PRIVATE_KEY", ""),
        ("AGENT_KEYSTORE", &*store),
        ("CREDENTIALS_DIRECTORY", &*credentials),
    ];
    let lacking = told(&keystore);
    assert!(lacking.contains("no credential lamda-node-passphrase"), "{lacking}");
    write_secret(&at("lamda-node-passphrase"), "right\n");
    assert_eq!(key_of(&keystore), made.unwrap().address());
    write_secret(&at("lamda-node-passphrase"), "\n");
    let empty = told(&keystore);
    assert!(empty.contains("CREDENTIALS_DIRECTORY: the first line of"), "{empty}");
}

#[test]
fn gateways_are_taken_as_they_are_pasted_and_the_older_heartbeat_still_counts() {
    let node = node(&[
        ("IPFS_GATEWAYS", "https://a.example/ipfs/, http://127.0.0.1:5080"),
        ("HEARTBEAT_INTERVAL", ""),
        ("HEARTBEAT_INTERVAL_SECONDS", "120"),
    ]);
    assert_eq!(node.artifact.gateways, ["https://a.example", "http://127.0.0.1:5080"]);
    assert_eq!(node.settings.heartbeat_interval, Duration::from_mins(2));
}

#[test]
fn a_client_needs_neither_key_nor_pinning_service_and_a_password_needs_its_user() {
    let nothing = HashMap::new();
    let client = Client::read(&mut Env::new(&nothing)).unwrap();
    assert!(!client.can_publish && client.key.is_none() && client.agent.is_none());
    assert!(client.signing.chain().is_none());
    let told = told(&[("NATS_USER", "node")]);
    assert!(told.contains("NATS_PASSWORD_FILE: it is not set, but NATS_USER is"), "{told}");
}

#[test]
fn every_variable_stands_in_the_example_file_and_nothing_else_does() {
    let nothing = HashMap::new();
    let mut env = Env::new(&nothing);
    logging::read(&mut env);
    Parts::read(&mut env);
    agent_address(&mut env);
    channels::read(&mut env, "");
    hub::read(&mut env);
    sidecar(&mut env, None).unwrap_err();
    let mut asked: BTreeSet<&str> = env.asked().clone();
    // The system's own.
    asked.retain(|name| !["HOME", "PATH"].contains(name));
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
    let example = std::fs::read_to_string(example).unwrap();
    let shown: BTreeSet<&str> = example
        .lines()
        .filter_map(|line| line.trim_start_matches("# ").split_once('='))
        .map(|(name, _)| name)
        .filter(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        .collect();
    assert_eq!(asked, shown);
}

#[test]
fn the_example_file_is_read_without_a_complaint_about_itself() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
    let environment = Environment::read_from(example.as_ref());
    assert!(environment.problems().is_empty(), "{:?}", environment.problems());
    assert!(environment.warnings().iter().all(|warning| warning.contains("open to others")));
    let mut env = Env::new(&environment);
    logging::read(&mut env).unwrap();
    let told = Node::read(&mut env).unwrap_err();
    let names: Vec<&str> = told.0.iter().map(|problem| problem.variable.as_str()).collect();
    assert_eq!(names, ["AGENT_PRIVATE_KEY", "PINATA_JWT"], "only what is one's own: {told}");
}

#[test]
fn jobs_name_images_of_the_public_registries_until_the_owner_lists_others() {
    let may = |changes: &[(&str, &str)], image: &str| {
        let node = node(changes);
        assert_eq!(node.settings.images, node.docker.images, "intake and engine agree");
        node.settings.images.check(image).is_ok()
    };
    assert!(may(&[], "busybox") && may(&[], "nvcr.io/nvidia/cuda:12.4.1-base-ubuntu22.04"));
    assert!(!may(&[], "10.0.0.5:5000/x"));
    let own = ("JOB_REGISTRIES", "registry.example:5000");
    assert!(may(&[own], "registry.example:5000/x") && !may(&[own], "busybox"));
    assert!(may(&[own, ("JOB_LOCAL_IMAGES", "busybox:*")], "busybox:1"));
    assert!(may(&[("JOB_REGISTRIES", "*")], "10.0.0.5:22/x"));
    for empty in ["", " , "] {
        assert!(told(&[("JOB_REGISTRIES", empty)]).contains("JOB_REGISTRIES: its list is empty"));
    }
}

#[test]
fn a_secret_that_leaves_this_machine_in_plain_text_earns_a_warning() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2\n").unwrap();
    let file = file.path().display().to_string();
    let password = [("NATS_USER", "node"), ("NATS_PASSWORD_FILE", file.as_str())];
    let warned = |changes: &[(&str, &str)]| {
        let variables = with(changes);
        let mut env = Env::new(&variables);
        let parts = Parts::read(&mut env);
        assert!(parts.bus.is_some() && parts.artifact.is_some(), "{:?}", env.take_problems());
        let warnings = env.take_warnings().join("\n");
        assert!(!warnings.contains("hunter"), "{warnings}");
        warnings.contains("in plain text: use")
    };
    for (url, expected) in [
        ("nats://nats.example:4222", true),
        ("tls://nats.example:4222", false),
        ("nats://127.0.0.1:4222", false),
        ("tls://a.example,nats://b.example", true),
    ] {
        assert_eq!(warned(&[&password[..], &[("NATS_URL", url)]].concat()), expected, "{url}");
    }
    assert!(warned(&[("NATS_URL", "nats://hunter2@nats.example")]));
    assert!(!warned(&[("NATS_URL", "nats://nats.example")]));
    assert!(warned(&[("PINATA_API_URL", "http://10.0.0.7:5080")]));
    assert!(!warned(&[("PINATA_API_URL", "http://127.0.0.1:5080")]));
    let gateway = ("IPFS_GATEWAYS", "http://gateway.example");
    assert!(warned(&[gateway, ("IPFS_GATEWAY_TOKEN", "hunter3")]) && !warned(&[gateway]));
}

#[test]
fn a_file_with_a_secret_that_others_can_read_is_refused_with_its_name_and_mode() {
    use std::os::unix::fs::PermissionsExt;

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2\n").unwrap();
    let path = file.path().display().to_string();
    for (mode, refused) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).unwrap();
        for setting in ["NATS_TOKEN_FILE", "NATS_CREDS"] {
            let told = told(&[(setting, path.as_str())]);
            let named =
                told.contains(&format!("{setting}: {path} is open to others (mode {mode:04o})"));
            assert_eq!(named, refused, "{told}");
            assert!(!told.contains("hunter"), "{told}");
        }
    }
}

#[test]
fn the_disk_is_the_nodes_up_to_its_reserve_unless_a_budget_is_set() {
    let limits = |changes: &[(&str, &str)]| {
        let settings = node(changes).settings;
        (settings.disk_free_min_mib, settings.disk_budget_mib)
    };
    assert_eq!(limits(&[]), (2048, None));
    assert_eq!(limits(&[("DISK_BUDGET_MIB", "256")]), (2048, Some(256)));
    let variables = HashMap::from([
        ("DISK_BUDGET_MIB".to_owned(), "1000".to_owned()),
        ("DATA_DIR".to_owned(), "/d".to_owned()),
    ]);
    let disk = Disk::read(&mut Env::new(&variables)).unwrap();
    assert_eq!(disk.limits.budget_mib, Some(1000), "the command needs no other setting");
    assert_eq!(disk.docker.cached.unwrap().to_str(), Some("/d/pulled.json"));
}

#[test]
fn images_are_listed_denied_and_pinned_by_the_owners_words_alone() {
    use crate::container::NotAllowed;
    use crate::container::docker::WhenToPull;

    let plain = node(&[]);
    assert_eq!(plain.settings.images.check("evil/x"), Ok(()));
    assert_eq!(plain.docker.pull, WhenToPull::Newer);
    let set = node(&[
        ("JOB_IMAGES_ALLOW", "good/*, redis"),
        ("JOB_IMAGES_DENY", "good/evil"),
        ("JOB_IMAGES_DIGEST", "required"),
        ("JOB_PULL", "always"),
    ]);
    assert_eq!(set.docker.pull, WhenToPull::Always);
    assert_eq!(set.docker.images, set.settings.images);
    let refused = |image: &str| set.settings.images.check(image).unwrap_err();
    assert_eq!(refused("evil/x"), NotAllowed::Unlisted);
    assert_eq!(refused("good/evil"), NotAllowed::Denied);
    assert_eq!(refused("redis:7"), NotAllowed::NoDigest);
    assert!(told(&[("JOB_IMAGES_ALLOW", "")]).contains("JOB_IMAGES_ALLOW"));
}

#[test]
fn gpus_come_by_what_the_owner_names_and_without_a_word_by_what_the_engine_has() {
    use crate::container::Access;
    for (value, access) in [
        ("", Access::Auto),
        ("auto", Access::Auto),
        ("nvidia", Access::Nvidia),
        ("CDI", Access::Cdi),
        ("devices", Access::Devices),
    ] {
        assert_eq!(node(&[("GPU_ACCESS", value)]).docker.gpu_access, access, "{value}");
    }
}

#[test]
fn metrics_are_off_by_default_and_an_address_that_others_reach_is_warned_of() {
    assert_eq!(node(&[]).metrics, None);
    for (address, is_warned) in
        [("127.0.0.1:9464", false), ("[::1]:1", false), ("0.0.0.0:9464", true)]
    {
        let variables = with(&[("METRICS_LISTEN", address)]);
        let mut env = Env::new(&variables);
        let (node, _) = Node::read(&mut env).unwrap();
        assert_eq!(node.metrics, Some(address.parse().unwrap()));
        let warned = env.take_warnings().iter().any(|it| it.contains("METRICS_LISTEN"));
        assert_eq!(warned, is_warned, "{address}");
    }
}

#[test]
fn a_hub_that_is_told_in_the_clear_over_a_network_is_warned_of() {
    assert_eq!(node(&[]).hub, None);
    for (url, is_warned) in [
        ("https://hub.example", false),
        ("http://127.0.0.1:8080/", false),
        ("http://hub.example/at/", true),
    ] {
        let variables = with(&[("HUB_URL", url)]);
        let mut env = Env::new(&variables);
        let (node, _) = Node::read(&mut env).unwrap();
        let beats = node.hub.unwrap().join("api/heartbeat").unwrap();
        assert_eq!(beats.as_str(), format!("{}/api/heartbeat", url.trim_end_matches('/')));
        let warned = env.take_warnings().iter().any(|it| it.contains("HUB_URL"));
        assert_eq!(warned, is_warned, "{url}");
    }
}
