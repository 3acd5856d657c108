//! The program as a person or a script meets it: the real binary, its output and its exit codes.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::anvil::Anvil;
use crate::support::nats::Nats;
use crate::support::tools::{Running, eventually, free_port};

/// Account 0 of every development chain.
pub(crate) const ACCOUNT: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

/// No command of these tests waits for anything that takes longer.
const LIMIT: Duration = Duration::from_mins(1);

/// The program in an empty folder, with these settings and no others.
pub(crate) struct Program {
    dir: TempDir,
    settings: Vec<(String, String)>,
}

impl Program {
    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder for the program");
        let mut program = Self { dir, settings: Vec::new() };
        // Root's default is the same folder for everybody.
        program.set("DATA_DIR", &program.path("data"));
        for (name, value) in settings {
            program.set(name, value);
        }
        program
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("a file of the test's own");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(self.path(name), private).expect("its mode");
        self.path(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lamda-node"));
        command.args(args).current_dir(self.dir.path()).env_clear();
        command.env("HOME", self.dir.path()).stdin(Stdio::null());
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.run_with_input(args, "")
    }

    /// Runs a command to its end, which must come soon.
    #[track_caller]
    fn run_with_input(&self, args: &[&str], input: &str) -> Ended {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(&mut command);
        let mut stdin = running.0.stdin.take().expect("its input is piped");
        // Who needs no input may have ended already.
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        let stdout = read_aside(running.0.stdout.take().expect("its output is piped"));
        let stderr = read_aside(running.0.stderr.take().expect("its output is piped"));
        let status = eventually(&format!("{args:?} ends"), LIMIT, || {
            running.0.try_wait().expect("the program can be waited for")
        });
        let [stdout, stderr] = [stdout, stderr].map(|text| text.join().expect("its output"));
        Ended(Output { status, stdout, stderr })
    }

    /// Starts a command that stays, and waits for its first line.
    fn start(&self, args: &[&str]) -> (Running, String) {
        let mut running = Running::start(self.command(args).stdout(Stdio::piped()));
        let mut line = String::new();
        let stdout = running.0.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a first line");
        (running, line)
    }
}

/// Reads to the end on a thread of its own, so that a full pipe holds nobody up.
fn read_aside(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

pub(crate) struct Ended(Output);

impl Ended {
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().expect("no signal ended it")
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).expect("it prints UTF-8")
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).expect("it prints UTF-8")
    }

    pub(crate) fn both(&self) -> String {
        self.stdout() + &self.stderr()
    }

    /// Standard output as one JSON object a line.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).expect("a line of JSON");
        self.stdout().lines().map(parse).collect()
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code(), 0, "{}", self.both());
        self
    }
}

/// The events of that name.
pub(crate) fn events<'a>(objects: &'a [Value], name: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["event"] == name).collect()
}

#[test]
fn wrong_settings_are_told_all_at_once_and_end_the_start_with_64() {
    let program = Program::with(&[
        ("AGENT_PRIVATE_KEY", "your_private_key_here"),
        ("NATS_URL", "nats://user:hunter2@nats.example.com:4222"),
        ("OPBNB_RPC_URL", "rpc.example.com/v2/hunter3"),
        ("HEARTBEAT_INTERVAL", "often"),
        ("JOB_SLOTS", "0"),
    ]);
    let ended = program.run(&["run"]);
    assert_eq!(ended.code(), 64);
    let told = ended.stderr();
    for name in [
        "AGENT_PRIVATE_KEY",
        "JOB_AUTH",
        "OPBNB_RPC_URL",
        "REPUTATION_CONTRACT_ADDRESS",
        "HEARTBEAT_INTERVAL",
        "JOB_SLOTS",
        "PINATA_JWT",
    ] {
        assert!(told.contains(&format!("\n  {name}: ")), "{name} is not told of:\n{told}");
    }
    assert!(told.contains("JOB_AUTH=open") && told.contains("lamda-node store"), "{told}");
    assert!(!ended.both().contains("hunter"), "{told}");
    assert!(!Path::new(&program.path(".lamda-node")).exists(), "nothing was touched");
}

#[test]
fn the_environment_goes_before_the_file_and_a_broken_line_of_it_is_told_without_its_value() {
    let program = Program::with(&[("JOB_SLOTS", "many")]);
    program.write(".env", "JOB_SLOTS=2\nPOOL_PREFETCH=lots\nPINATA_JWT=\"hunter2\n");
    let told = program.run(&["run"]).stderr();
    assert!(told.contains("JOB_SLOTS: \"many\"") && told.contains("POOL_PREFETCH: "), "{told}");
    assert!(told.contains("\n  .env: ") && !told.contains("hunter2"), "{told}");
}

#[test]
fn wrong_arguments_end_with_64_and_help_names_every_command() {
    let program = Program::with(&[]);
    assert_eq!(program.run(&["submit"]).code(), 64);
    assert_eq!(program.run(&["dance"]).code(), 64);
    let help = program.run(&["--help"]).succeeds().stdout();
    for command in
        ["run", "submit", "watch", "logs", "cancel", "jobs", "store", "doctor", "key", "contract"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        let own = program.run(&[command, "--help"]).succeeds().stdout();
        assert!(own.contains("Usage: lamda-node"), "{own}");
    }
    let version = program.run(&["--version"]).succeeds().stdout();
    assert_eq!(version.trim(), concat!("lamda-node ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_new_key_is_private_to_its_owner_and_tells_its_address() {
    let program = Program::with(&[]);
    let phrase = program.write("phrase", "correct horse\n");
    let store = program.path("key.json");
    let args = ["key", "new", "--keystore", &store, "--passphrase-file", &phrase];
    let first = program.run(&args).succeeds().stdout();
    assert!(first.starts_with("0x") && first.trim().len() == 42, "{first}");
    let bits = std::fs::metadata(&store).expect("the keystore").permissions().mode() & 0o777;
    assert_eq!(bits, 0o600);
    let address = program.run(&["key", "address", "--keystore", &store]).succeeds().stdout();
    assert_eq!(address, first);
    // A second key under the same name would be the loss of the first.
    let second = program.run(&args);
    assert_eq!(second.code(), 1);
    assert!(second.stderr().contains("exists and is not overwritten"), "{}", second.stderr());
}

#[test]
fn a_key_is_imported_from_standard_input_and_never_printed() {
    let program = Program::with(&[]);
    let (phrase, store) = (program.write("phrase", "correct horse"), program.path("key.json"));
    let args = ["key", "import", "--keystore", &store, "--passphrase-file", &phrase];
    let digits = Anvil::key_hex(0).trim_start_matches("0x");
    let imported = program.run_with_input(&args, &format!("{digits}\n")).succeeds();
    assert_eq!(imported.stdout().trim(), ACCOUNT);
    assert!(!imported.both().contains(digits));
    let text = std::fs::read_to_string(&store).expect("the keystore");
    assert!(!text.contains(digits) && text.contains("scrypt"), "{text}");
    let other = program.path("other.json");
    let args = ["key", "import", "--keystore", &other, "--passphrase-file", &phrase];
    let refused = program.run_with_input(&args, &digits[2..]);
    assert_eq!(refused.code(), 64);
    assert!(!refused.both().contains(&digits[2..]));
}

#[test]
fn a_keystore_with_the_wrong_passphrase_ends_the_start_with_64() {
    let mut program = Program::with(&[
        ("OPBNB_RPC_URL", "http://127.0.0.1:1"),
        ("REPUTATION_CONTRACT_ADDRESS", ACCOUNT),
        ("PINATA_JWT", "any"),
    ]);
    let (phrase, store) = (program.write("phrase", "right"), program.path("key.json"));
    let args = ["key", "new", "--keystore", &store, "--passphrase-file", &phrase];
    program.run(&args).succeeds();
    program.set("AGENT_KEYSTORE", &store);
    program.set("AGENT_KEYSTORE_PASSPHRASE_FILE", &program.write("wrong", "hunter2"));
    let ended = program.run(&["run"]);
    assert_eq!(ended.code(), 64, "{}", ended.both());
    assert!(ended.stderr().contains("the passphrase does not open"), "{}", ended.stderr());
    assert!(!ended.both().contains("hunter2"));
}

#[test]
fn doctor_names_everything_that_is_down_with_its_remedy() {
    let port = free_port();
    let nowhere = format!("127.0.0.1:{port}");
    let program = Program::with(&[
        ("AGENT_PRIVATE_KEY", Anvil::key_hex(0)),
        ("NATS_URL", &format!("nats://{nowhere}")),
        ("OPBNB_RPC_URL", &format!("http://{nowhere}")),
        ("REPUTATION_CONTRACT_ADDRESS", ACCOUNT),
        ("DOCKER_HOST", &format!("tcp://{nowhere}")),
        ("PINATA_JWT", "any"),
        ("PINATA_API_URL", &format!("http://{nowhere}")),
        ("IPFS_GATEWAYS", &format!("http://{nowhere}")),
        ("NVML_LIB", "/etc/hostname"),
    ]);
    let ended = program.run(&["doctor", "--json"]);
    assert_eq!(ended.code(), 2, "{}", ended.both());
    let report = &ended.objects()[0];
    let checks = report["checks"].as_array().expect("a list of checks");
    let of = |name: &str| {
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}"))
    };
    for name in [
        "nats",
        "docker",
        "files in containers",
        "gpu",
        "gpu in containers",
        "chain",
        "pinning service",
        "gateways",
    ] {
        let check = of(name);
        assert_eq!(check["status"], "fail", "{check}");
        assert!(check["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{check}");
    }
    assert_eq!(of("settings")["status"], "warn", "a key in plain text is unwise");
    assert_eq!(of("data folder")["status"], "ok");
    assert_eq!(report["fail"], 8);
    assert!(!ended.both().contains(Anvil::key_hex(0).trim_start_matches("0x")));

    let text = program.run(&["doctor"]);
    assert_eq!(text.code(), 2);
    assert!(text.stdout().contains("\nfail  nats: "), "{}", text.stdout());
}

#[test]
fn doctor_without_any_setting_tells_all_of_them_and_still_checks_the_rest() {
    let program = Program::with(&[("DOCKER_HOST", "unix:///nonexistent/docker.sock")]);
    let ended = program.run(&["doctor", "--json"]);
    assert_eq!(ended.code(), 2);
    let report = &ended.objects()[0];
    let settings = &report["checks"][0];
    let problems = settings["problems"].as_array().expect("a list of problems");
    assert!(problems.iter().any(|problem| problem["variable"] == "PINATA_JWT"), "{settings}");
    let docker = report["checks"].as_array().into_iter().flatten();
    let docker = docker.filter(|check| check["name"] == "docker").count();
    assert_eq!(docker, 1);
}

#[test]
fn a_command_about_a_node_asks_which_one() {
    let program = Program::with(&[]);
    for args in [vec!["submit", "--image", "img"], vec!["cancel", "job-1"]] {
        let ended = program.run(&args);
        assert_eq!(ended.code(), 64);
        assert!(ended.stderr().contains("AGENT_ADDRESS"), "{}", ended.stderr());
    }
}

/// Everything that a simulated node needs, and the node itself.
pub(crate) struct Network {
    pub(crate) program: Program,
    pub(crate) nats: Nats,
    _anvil: Anvil,
    _store: Running,
    node: Child,
}

impl Network {
    pub(crate) fn start() -> Self {
        let (nats, anvil) = (Nats::start(), Anvil::start());
        let mut program = Program::with(&[
            ("AGENT_PRIVATE_KEY", Anvil::key_hex(0)),
            ("AGENT_ADDRESS", ACCOUNT),
            ("NATS_URL", &nats.url()),
            ("OPBNB_RPC_URL", &anvil.rpc_url),
            ("PINATA_JWT", "any"),
            ("HEARTBEAT_INTERVAL", "2s"),
        ]);
        let dir = program.path("store");
        let (store, line) = program.start(&["store", "--dir", &dir, "--listen", "127.0.0.1:0"]);
        let url = line.split_whitespace().find(|word| word.starts_with("http://"));
        let url = url.expect("the store says where it listens").trim_end_matches(',').to_owned();
        program.set("PINATA_API_URL", &url);
        program.set("IPFS_GATEWAYS", &url);
        let deployed = program.run(&["contract", "deploy", "--json"]).succeeds().objects();
        let contract = deployed[0]["contract"].as_str().expect("the contract's address").to_owned();
        program.set("REPUTATION_CONTRACT_ADDRESS", &contract);
        let log = std::fs::File::create(program.path("node.log")).expect("a log");
        let node = program.command(&["run", "--simulate"]).stderr(log).spawn();
        let node = node.expect("the node starts");
        Self { program, nats, _anvil: anvil, _store: store, node }
    }

    fn node_log(&self) -> String {
        std::fs::read_to_string(self.program.path("node.log")).unwrap_or_default()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.node.kill().ok();
        self.node.wait().ok();
        if std::thread::panicking() {
            writeln!(std::io::stderr(), "the node's log:\n{}", self.node_log()).ok();
        }
    }
}

#[test]
fn a_job_goes_from_submit_to_a_verified_output_and_everybody_can_read_about_it() {
    let mut network = Network::start();
    let program = &network.program;
    let file = program.write("input.txt", "hello\n");
    // Who types a link means what it leads to.
    let input = program.path("latest.txt");
    std::os::unix::fs::symlink(&file, &input).expect("a link");
    let out = program.path("out");
    let submitted = program
        .run(&[
            "submit",
            "--image",
            "img",
            "--input",
            &input,
            "--job-id",
            "job-1",
            "--fetch",
            &out,
            "--output-path",
            "/output/result.txt",
            "--json",
        ])
        .succeeds();
    let told = submitted.objects();
    let stages: Vec<&str> = events(&told, "status")
        .into_iter()
        .filter_map(|event| event["status"]["stage"].as_str())
        .collect();
    assert_eq!(stages, ["accepted", "pulling", "fetching", "running", "uploading", "completed"]);
    assert_eq!(events(&told, "submitted")[0]["signed_by"], ACCOUNT);
    assert_eq!(events(&told, "receipt")[0]["valid"], true, "{told:?}");
    let fetched = events(&told, "fetched")[0];
    let path = fetched["path"].as_str().expect("the output's path");
    assert_eq!(path, Path::new(&out).join("result.txt").to_str().expect("UTF-8"));
    let output = std::fs::read_to_string(path).expect("the output is there");
    assert!(output.ends_with("hello\n"), "the simulated job copies its input: {output}");
    assert!(!events(&told, "log").is_empty());
    let result = events(&told, "result")[0];
    assert_eq!(result["output_cid"], fetched["cid"]);

    let watched = program.run(&["watch", "job-1", "--json"]).succeeds().objects();
    assert_eq!(watched.len(), stages.len());
    assert!(watched.iter().enumerate().all(|(i, status)| status["seq"] == i + 1), "{watched:?}");
    let logs = program.run(&["logs", "job-1"]).succeeds().stdout();
    let live: Vec<&str> =
        events(&told, "log").into_iter().filter_map(|event| event["line"].as_str()).collect();
    assert_eq!(logs.lines().collect::<Vec<_>>(), live, "the kept log is the live one");

    let late = program.run(&["cancel", "job-1"]);
    assert_eq!(late.code(), 1);
    assert!(late.stderr().contains("not cancelled: too_late"), "{}", late.stderr());

    eventually("the node is registered", Duration::from_secs(20), || {
        let shown = program.run(&["contract", "show", "--json"]).objects();
        (shown.first()?["node"]["registered"] == true).then_some(())
    });
    terminate(&network.node);
    let ended = eventually("the node ends", Duration::from_secs(20), || {
        network.node.try_wait().expect("the node can be waited for")
    });
    assert_eq!(ended.code(), Some(0), "{}", network.node_log());
    let digits = Anvil::key_hex(0).trim_start_matches("0x");
    assert!(!network.node_log().contains(digits), "the key stands in the log");
}

/// SIGTERM, as a service manager sends it.
fn terminate(child: &Child) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
    assert!(sent.success());
}

#[test]
fn a_job_that_the_node_refuses_ends_submit_with_1_and_says_why() {
    let network = Network::start();
    let program = &network.program;
    let ended =
        program.run(&["submit", "--image", "img", "--gpus", "9", "--job-id", "big", "--follow"]);
    assert_eq!(ended.code(), 1, "{}", ended.both());
    let text = ended.stdout();
    assert!(text.contains("no_node_fits") && text.contains("job big ended: rejected"), "{text}");
    let seen = program.run(&["watch", "big"]);
    assert_eq!(seen.code(), 1);
    // A client that was not written here reads the same.
    let body = "sub = await js.subscribe('jobs.status.*.big')\n\
                msg = await sub.next_msg(timeout=10)\n\
                print(json.loads(msg.data)['status'])";
    assert_eq!(network.nats.python(body, &[]), "rejected");
}

#[test]
fn submitting_without_following_ends_once_the_queue_has_the_job() {
    let nats = Nats::start();
    let program = Program::with(&[("NATS_URL", &nats.url()), ("AGENT_ADDRESS", ACCOUNT)]);
    let told = program.run(&["submit", "--image", "img", "--json", "--", "sh", "-c", "true"]);
    let told = told.succeeds().objects();
    assert_eq!(told[0]["event"], "submitted");
    assert_eq!(told[0]["target"], format!("dispatch.{ACCOUNT}"));
    let body = "sub = await js.pull_subscribe('jobs.dispatch.*', 'x')\n\
                msg = (await sub.fetch(1, timeout=10))[0]\n\
                print(msg.subject, msg.data.decode())";
    let line = nats.python(body, &[]);
    let (subject, body) = line.split_once(' ').expect("a subject and a body");
    assert_eq!(subject, format!("jobs.dispatch.{ACCOUNT}"));
    let body: Value = serde_json::from_str(body).expect("a body of JSON");
    assert_eq!(body["job_id"], told[0]["job_id"]);
    assert_eq!(body["image_name"], "img");
    assert_eq!(body["command"], serde_json::json!(["sh", "-c", "true"]));
    assert!(body.get("signature").is_none());
}

#[test]
fn a_simulated_node_is_refused_away_from_loopback() {
    let program = Program::with(&[
        ("AGENT_PRIVATE_KEY", Anvil::key_hex(0)),
        ("NATS_URL", "nats://nats.example.com:4222"),
        ("JOB_AUTH", "open"),
        ("OPBNB_RPC_URL", "http://127.0.0.1:1"),
        ("REPUTATION_CONTRACT_ADDRESS", ACCOUNT),
        ("PINATA_JWT", "any"),
    ]);
    let ended = program.run(&["run", "--simulate"]);
    assert_eq!(ended.code(), 64);
    assert!(ended.stderr().contains("--simulate needs a NATS server on this machine"));
}
