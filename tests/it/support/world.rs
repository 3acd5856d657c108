//! Everything around a node, real: NATS, a Docker Engine, a chain with the contract, the store; and the
//! program itself, started as its owner does.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use lamda_node::ids::Address;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::anvil::Anvil;
use super::engine::Engine;
use super::nats::Nats;
use super::program::PROGRAM;
use super::small_disk::SmallDisk;
use super::tools::{Running, eventually, free_port, tool};

/// The limit for one step on a busy machine with two cores.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The pinning key of these tests, which no output may show.
pub(crate) const JWT: &str = "jwt-that-nobody-may-see";

/// The parts around a node, and a folder for what it writes.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) nats: Nats,
    pub(crate) engine: Engine,
    pub(crate) anvil: Anvil,
    pub(crate) contract: Address,
    /// The disk of the node's data folder, if the test limits it.
    pub(crate) disk: Option<SmallDisk>,
    pub(crate) dir: TempDir,
    store_port: u16,
    _store: Running,
}

impl World {
    /// Starts all parts; they are ready when this returns.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self::start_in(dir, None).await
    }

    /// Starts all parts, with the engine's data on the disk that `mount` mounts at the given path, where the
    /// node sees it.
    pub(crate) async fn start_with_engine_on(mount: impl FnOnce(&Path) -> SmallDisk) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self::start_with(dir, None, Engine::start_on(|at| Some(mount(at)))).await
    }

    /// Starts all parts, and gives the node a data folder on a disk of this size.
    pub(crate) async fn start_on_small_disk(mib: u32) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        // Mounted before the engine starts, whose mount namespace would not see it later.
        let disk = SmallDisk::mount(&dir.path().join("data"), mib);
        Self::start_in(dir, Some(disk)).await
    }

    /// Starts all parts, and gives the node a data folder on an ext4 of this size, in a sparse file.
    pub(crate) async fn start_on_ext4(mib: u64) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = SmallDisk::mount_ext4(&dir.path().join("data"), mib);
        Self::start_in(dir, Some(disk)).await
    }

    /// Starts all parts, with a disk of this size and of at most so many files and folders.
    pub(crate) async fn start_on_few_inodes(mib: u32, inodes: u32) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let options = format!("size={mib}m,nr_inodes={inodes}");
        let disk = SmallDisk::mount_with(&dir.path().join("data"), &options);
        Self::start_in(dir, Some(disk)).await
    }

    /// Starts all parts, and gives the node a data folder whose `jobs` are on another file system.
    pub(crate) async fn start_with_jobs_elsewhere() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = SmallDisk::mount(&dir.path().join("data/jobs"), 64);
        Self::start_in(dir, Some(disk)).await
    }

    async fn start_in(dir: TempDir, disk: Option<SmallDisk>) -> Self {
        Self::start_with(dir, disk, Engine::start()).await
    }

    async fn start_with(dir: TempDir, disk: Option<SmallDisk>, engine: Engine) -> Self {
        let store_port = free_port();
        let listen = format!("127.0.0.1:{store_port}");
        let store = Running::start(
            Command::new(PROGRAM)
                .args(["store", "--listen", &listen, "--dir"])
                .arg(dir.path().join("store"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(dir.path().join("store.log")).expect("a log")),
        );
        let (nats, anvil) = (Nats::start(), Anvil::start());
        engine.import_busybox().await;
        let contract = anvil.deploy().await;
        eventually("the store listens", PATIENCE, || {
            std::net::TcpStream::connect(("127.0.0.1", store_port)).ok()
        });
        Self { nats, engine, anvil, contract, disk, dir, store_port, _store: store }
    }

    /// The store's address.
    pub(crate) fn store(&self) -> String {
        format!("http://127.0.0.1:{}", self.store_port)
    }

    /// The program with only those environment variables that a node of this world needs.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("NATS_URL", self.nats.url())
            .env("DOCKER_HOST", self.engine.host())
            .env("JOB_CGROUP_PARENT", self.engine.groups_at())
            .env("OPBNB_RPC_URL", &self.anvil.rpc_url)
            .env("REPUTATION_CONTRACT_ADDRESS", self.contract.to_string())
            .env("AGENT_PRIVATE_KEY", Anvil::key_hex(1))
            .env("PINATA_API_URL", self.store())
            .env("PINATA_JWT", JWT)
            .env("PINATA_RATE_PER_MIN", "60000")
            .env("IPFS_GATEWAYS", self.store())
            .env("DATA_DIR", self.dir.path().join("data"))
            .env("GPU_MODE", "none")
            .env("JOB_SLOTS", "2")
            .env("JOB_LOCAL_IMAGES", "busybox:test")
            .env("DISK_FREE_MIN_MIB", "64")
            .env("FETCH_GIVE_UP_S", "2")
            .env("LOG_LEVEL", "debug")
            .stdin(Stdio::null());
        command
    }

    /// The node's address.
    pub(crate) fn agent_address() -> Address {
        Anvil::key(1).address()
    }

    /// Starts the node, which takes jobs when this returns.
    pub(crate) fn agent(&self, settings: &[(&str, &str)]) -> Agent {
        let agent = self.start_agent(settings);
        agent.wait_for("waiting for jobs on jobs.dispatch");
        agent
    }

    /// Starts the node without waiting.
    pub(crate) fn start_agent(&self, settings: &[(&str, &str)]) -> Agent {
        self.start_agent_with(&["run"], settings)
    }

    /// The settings of another node beside the first: the key of this account of the chain, and its own data
    /// folder.
    pub(crate) fn beside(&self, account: usize) -> [(&'static str, String); 2] {
        let data = self.dir.path().join(format!("data-{account}"));
        [
            ("AGENT_PRIVATE_KEY", Anvil::key_hex(account).to_owned()),
            ("DATA_DIR", data.display().to_string()),
        ]
    }

    /// Starts the node without root's capabilities for other users' files.
    pub(crate) fn start_agent_without_rights(&self, settings: &[(&str, &str)]) -> Agent {
        let node = self.command(&["run"]);
        let mut command = Command::new(tool("setpriv"));
        let rights = "-dac_override,-dac_read_search,-fowner";
        command.args(["--bounding-set", rights, "--inh-caps", rights]).arg(node.get_program());
        command.args(node.get_args()).env_clear().stdin(Stdio::null());
        command.envs(node.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.dir.path());
        self.start_command(command, settings)
    }

    /// Starts the node in a shell with umask 077.
    pub(crate) fn start_agent_under_mask(&self, settings: &[(&str, &str)]) -> Agent {
        let node = self.command(&["run"]);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "umask 077; exec \"$0\" run"]).arg(node.get_program());
        shell.env_clear().current_dir(self.dir.path()).stdin(Stdio::null());
        shell.envs(node.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.start_command(shell, settings)
    }

    /// Starts the node with these arguments.
    pub(crate) fn start_agent_with(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Agent {
        self.start_command(self.command(arguments), settings)
    }

    fn start_command(&self, mut command: Command, settings: &[(&str, &str)]) -> Agent {
        let log = self.dir.path().join(format!("agent-{}.log", free_port()));
        command.envs(settings.iter().copied());
        command.stdout(Stdio::null()).stderr(File::create(&log).expect("a log"));
        Agent { running: Running::start(&mut command), log }
    }

    /// Publishes a job of the image `busybox:test` with these further keys to the node.
    pub(crate) fn publish(&self, id: &str, more: &Value) {
        self.publish_raw(&job(id, more).to_string());
    }

    /// Publishes a message to the node unchanged, with nats-py.
    pub(crate) fn publish_raw(&self, body: &str) {
        self.publish_to(&format!("jobs.dispatch.{}", Self::agent_address()), body);
    }

    /// Publishes a message on any subject.
    pub(crate) fn publish_to(&self, subject: &str, body: &str) {
        let file = self.dir.path().join("body");
        std::fs::write(&file, body).expect("the body is written");
        let script = "await js.publish(args[0], open(args[1], 'rb').read())";
        self.nats.python(script, &[subject, &file.display().to_string()]);
    }

    /// All statuses of a job in the stream, in order.
    pub(crate) fn statuses(&self, id: &str) -> Vec<Value> {
        let subject = format!("jobs.status.*.{id}");
        let script = "
sub = await js.subscribe(args[0], stream='STATUS', ordered_consumer=True)
info = await sub.consumer_info()
for _ in range(info.num_pending + info.delivered.consumer_seq):
    print((await sub.next_msg(timeout=10)).data.decode())";
        let lines = self.nats.python(script, &[&subject]);
        lines.lines().map(|line| serde_json::from_str(line).expect("a status is JSON")).collect()
    }

    /// Whether the server has a stream of this name.
    pub(crate) fn has_stream(&self, name: &str) -> bool {
        let script = "print(any([s.config.name == args[0] for s in await js.streams_info()]))";
        self.nats.python(script, &[name]) == "True"
    }

    /// Waits for a job's terminal status and returns all its statuses; they must be gapless with one end.
    pub(crate) fn outcome(&self, id: &str) -> Vec<Value> {
        // The node reads a flooded log for up to a minute after the job's exit.
        let statuses = eventually(&format!("job {id} ends"), PATIENCE * 2, || {
            let statuses = self.statuses(id);
            let ended = statuses.last().is_some_and(|last| last["status"] != "processing");
            ended.then_some(statuses)
        });
        let seqs: Vec<u64> = statuses.iter().filter_map(|status| status["seq"].as_u64()).collect();
        assert_eq!(seqs, (1..=statuses.len() as u64).collect::<Vec<_>>(), "{statuses:?}");
        let ends = statuses.iter().filter(|status| status["status"] != "processing").count();
        assert_eq!(ends, 1, "{statuses:?}");
        statuses
    }

    /// The number of messages in the queue of jobs, delivered or not.
    pub(crate) fn queued(&self) -> u64 {
        let said = self.nats.python("print((await js.stream_info('JOBS')).state.messages)", &[]);
        said.parse().expect("a number")
    }

    /// The names of all containers of jobs, running or not.
    pub(crate) async fn containers(&self) -> Vec<String> {
        let mut names = self.all_containers().await;
        names.retain(|name| !name.starts_with("/lamda-probe-"));
        names
    }

    /// The names of all containers, with the node's short-lived probes of its engine and its cards; not the
    /// networks that it keeps ready.
    pub(crate) async fn all_containers(&self) -> Vec<String> {
        let all = bollard::query_parameters::ListContainersOptionsBuilder::default().all(true);
        let list = self.engine.client().list_containers(Some(all.build())).await;
        let names = list.expect("the engine answers").into_iter().filter_map(|one| one.names);
        let is_kept = |name: &String| {
            ["/lamda-none-", "/lamda-internet-"].iter().any(|kind| name.starts_with(kind))
        };
        names.flatten().filter(|name| !is_kept(name)).collect()
    }

    /// Waits until no job has a container, a folder or a message left.
    pub(crate) async fn wait_until_clean(&self) {
        let mut left = String::new();
        for _ in 0..600 {
            let containers = self.all_containers().await;
            let folders = self.job_folders();
            let queued = if containers.is_empty() && folders == 0 { self.queued() } else { 1 };
            if containers.is_empty() && folders == 0 && queued == 0 {
                return;
            }
            left = format!("{containers:?}, {folders} folders, {queued} messages");
            tokio::task::yield_now().await;
            std::thread::park_timeout(Duration::from_millis(50));
        }
        panic!("not clean: {left}");
    }

    /// The number of jobs, on any node, with a folder or with remains in the trash.
    fn job_folders(&self) -> usize {
        let entries = std::fs::read_dir(self.dir.path()).expect("the world's folder").flatten();
        let data = entries.filter(|one| one.file_name().to_string_lossy().starts_with("data"));
        let folders =
            data.flat_map(|one| ["jobs", "jobs/.trash"].map(|name| one.path().join(name)));
        let count = |folder| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.filter(|entry| entry.file_name() != ".trash").count()
        };
        folders.map(count).sum()
    }

    /// The path of a file in a job's output folder, once it is there and not empty.
    pub(crate) fn output_file(&self, job: &str, name: &str) -> Option<PathBuf> {
        let path = self.dir.path().join("data/jobs").join(job).join("1/output").join(name);
        std::fs::metadata(&path).is_ok_and(|file| file.len() > 0).then_some(path)
    }

    /// The content of a CID, as a plain client gets it from the store.
    pub(crate) async fn content(&self, cid: &str) -> Vec<u8> {
        let answer = reqwest::get(format!("{}/ipfs/{cid}", self.store())).await;
        answer.expect("the store answers").bytes().await.expect("a body").to_vec()
    }

    /// Pins bytes as any client of Pinata does, and returns their CID.
    pub(crate) async fn pin(&self, bytes: &[u8]) -> String {
        let part = reqwest::multipart::Part::bytes(bytes.to_vec()).file_name("input");
        let form = reqwest::multipart::Form::new()
            .part("file", part)
            .text("pinataOptions", r#"{"cidVersion":1}"#);
        let url = format!("{}/pinning/pinFileToIPFS", self.store());
        let request = reqwest::Client::new().post(url).bearer_auth("any").multipart(form);
        let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        answer["IpfsHash"].as_str().expect("a CID").to_owned()
    }
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) running: Running,
    log: PathBuf,
}

impl Agent {
    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        read(&self.log)
    }

    /// Waits until its log holds `text`.
    pub(crate) fn wait_for(&self, text: &str) {
        let what = format!("{text:?} in the log {}", self.log.display());
        let found = std::panic::catch_unwind(|| {
            eventually(&what, PATIENCE, || self.log().contains(text).then_some(()));
        });
        assert!(found.is_ok(), "{what}; it holds:\n{}", self.log());
    }

    /// Sends SIGTERM.
    pub(crate) fn ask_to_end(&self) {
        let pid = rustix::process::Pid::from_child(&self.running.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    }

    /// Waits until it has ended.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        let child = &mut self.running.0;
        eventually("the node ends", PATIENCE, || child.try_wait().expect("it is our child"))
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.running.0.kill().expect("it runs");
        self.running.0.wait().expect("it is our child");
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// A job of the image `busybox:test` with these further keys.
pub(crate) fn job(id: &str, more: &Value) -> Value {
    let mut body = json!({"job_id": id, "image_name": "busybox:test"});
    let fields = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(fields);
    body
}

/// `/bin/sh -c script` as a job's command.
pub(crate) fn shell(script: &str) -> Value {
    json!({"command": ["/bin/sh", "-c", script]})
}

/// A job that runs `script`, with these further keys.
pub(crate) fn shell_with(script: &str, more: &Value) -> Value {
    let mut job = shell(script);
    let fields = more.as_object().expect("an object").clone();
    job.as_object_mut().expect("an object").extend(fields);
    job
}

/// The last of a job's statuses.
pub(crate) fn last(statuses: &[Value]) -> &Value {
    statuses.last().expect("there are statuses")
}

/// The stages of a job's statuses, separated by spaces.
pub(crate) fn stages(statuses: &[Value]) -> String {
    let names = statuses.iter().map(|status| status["stage"].as_str().unwrap_or("?"));
    names.collect::<Vec<_>>().join(" ")
}
