//! A Docker Engine for one test, never the user's: dockerd and its containerd in mount, network and PID
//! namespaces that end with the test, with its data in memory.
//!
//! The namespaces' first process is a shell that only reaps. So dockerd can be stopped and started
//! again as on a host: its data stay, and so do the containers that would stay there. A killed dockerd
//! takes its containerd with it, but no container.
//!
//! The network namespace has only loopback, so a registry at a fixed port inside it can't clash with
//! another test's.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use lamda_node::container::ImagePolicy;
use lamda_node::container::docker::{Config, Docker};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::small_disk::SmallDisk;
use super::tools::{Running, eventually, tool};

/// The cards that the engine's GPU hook knows.
pub(crate) const GPUS: [&str; 2] =
    ["GPU-fa4e0000-0000-4000-8000-000000000000", "GPU-fa4e0000-0000-4000-8000-000000000001"];

/// The limit for a part of the engine to start or end on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The first process: it keeps the data in memory, where they end with the mount namespace, and reaps
/// what dockerd leaves behind, so that its children are seen to end. "$0" is the folder.
const HOST: &str = "mkdir -p \"$0/data\" && { mountpoint -q \"$0/data\" || \
    mount -t tmpfs tmpfs \"$0/data\"; } && ip link set lo up && \
    touch \"$0/ready\" && while :; do sleep 1000 & wait $!; done";

/// An engine; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Engine {
    dir: TempDir,
    /// The namespaces' first process.
    init: Pid,
    host: Running,
    daemon: Option<Running>,
    /// The disk of its data, if the test chose it.
    pub(crate) disk: Option<SmallDisk>,
    options: &'static [&'static str],
}

impl Engine {
    /// Starts an engine that answers. Must be called on the test's own thread: the engine is killed when the
    /// thread that started it ends, however the test ends.
    pub(crate) fn start() -> Self {
        Self::begin(|_| None, &[])
    }

    /// The same, with its data on the disk that `mount` mounts at the given path. The host sees it there too.
    pub(crate) fn start_on(mount: impl FnOnce(&Path) -> Option<SmallDisk>) -> Self {
        Self::begin(mount, &[])
    }

    /// Starts it with more options of dockerd's.
    pub(crate) fn start_with(options: &'static [&'static str]) -> Self {
        Self::begin(|_| None, options)
    }

    fn begin(
        mount: impl FnOnce(&Path) -> Option<SmallDisk>,
        options: &'static [&'static str],
    ) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = mount(&dir.path().join("data"));
        for part in ["dockerd", "containerd", "runc"] {
            tool(part);
        }
        let host = Running::start(
            Command::new(tool("setpriv"))
                .args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork"])
                .args(["--kill-child", "--mount-proc", "--propagation", "private"])
                .args(["sh", "-c", HOST])
                .arg(dir.path())
                .stdin(Stdio::null()),
        );
        let ready = dir.path().join("ready");
        eventually("the engine's host is there", PATIENCE, || ready.exists().then_some(()));
        let init = child_of(&host).expect("a process in the namespaces");
        let mut engine = Self { dir, init, host, daemon: None, disk, options };
        engine.start_daemon();
        engine
    }

    /// Starts dockerd on the data of the last one, of which none may run; it answers when this returns.
    pub(crate) fn start_daemon(&mut self) {
        self.start_daemon_with(&[]);
    }

    /// Starts it with further arguments.
    pub(crate) fn start_daemon_with(&mut self, arguments: &[&str]) {
        assert!(self.daemon.is_none(), "a dockerd runs");
        let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support-c");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(hook).chain(std::env::split_paths(&path)));
        let at = |name: &str| self.dir.path().join(name);
        let log = File::options().create(true).append(true).open(at("log")).expect("a log");
        let mut command = Command::new(tool("setpriv"));
        command.args(["--pdeathsig", "KILL", "nsenter", "--mount", "--net", "--pid", "--target"]);
        command.arg(self.init.as_raw_nonzero().to_string()).arg("--").arg(tool("dockerd"));
        command.arg("--host").arg(self.host()).arg("--data-root").arg(at("data"));
        command.arg("--exec-root").arg(at("exec")).arg("--pidfile").arg(at("pid"));
        command.arg("--cgroup-parent").arg(Path::new("/").join(cgroup(&self.dir)));
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--userland-proxy=false"]);
        command.args(["--iptables=false", "--ip6tables=false", "--ip-masq=false"]);
        command.args(self.options).args(arguments);
        command.env("PATH", path.expect("a PATH")).env("FAKE_GPUS", GPUS.join(","));
        command.env("FAKE_GPU_FAILURE", at("gpu-failure")).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.daemon = Some(Running::start(&mut command));
        let socket = self.socket();
        eventually("dockerd answers", PATIENCE, || ping(&socket).ok());
    }

    /// Ends dockerd with SIGTERM, as a host's service manager does; it stops its containers.
    pub(crate) fn stop_daemon(&mut self) {
        self.ask_daemon_to_end();
        self.wait_for_daemons_end();
    }

    /// The first half of [`Engine::stop_daemon`]: sends SIGTERM.
    pub(crate) fn ask_daemon_to_end(&self) {
        kill_process(self.dockerd(), Signal::TERM).expect("dockerd runs");
    }

    /// The second half of [`Engine::stop_daemon`]: waits for the end.
    pub(crate) fn wait_for_daemons_end(&mut self) {
        let mut daemon = self.daemon.take().expect("a dockerd");
        eventually("dockerd ends", PATIENCE, || daemon.0.try_wait().ok().flatten());
    }

    /// Kills dockerd and its containerd; the containers go on.
    pub(crate) fn kill_daemon(&mut self) {
        kill_process(self.dockerd(), Signal::KILL).expect("dockerd runs");
        self.wait_for_daemons_end();
    }

    /// Kills dockerd and every process in its containers: the state after a power cut.
    pub(crate) fn cut_power(&mut self) {
        // In the PID namespace, -1 means every process except the first.
        self.inside("kill -KILL -1").status().expect("nsenter runs");
        self.wait_for_daemons_end();
    }

    /// The number of containers with a living process, whether dockerd runs or not.
    pub(crate) fn living(&self) -> usize {
        // Each container's first process is the engine's init.
        let found = self.inside("pgrep -x -c docker-init").output().expect("nsenter runs");
        String::from_utf8_lossy(&found.stdout).trim().parse().unwrap_or(0)
    }

    /// A shell script in the engine's mount and PID namespaces.
    fn inside(&self, script: &str) -> Command {
        let mut command = Command::new(tool("nsenter"));
        command.args(["--target", &self.init.as_raw_nonzero().to_string()]);
        command.args(["--mount", "--pid", "--", "sh", "-c", script]);
        command
    }

    fn dockerd(&self) -> Pid {
        child_of(self.daemon.as_ref().expect("a dockerd")).expect("dockerd has a process")
    }

    /// For `DOCKER_HOST`.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// For `JOB_CGROUP_PARENT`: where this engine has its containers anyway.
    pub(crate) fn groups_at(&self) -> String {
        format!("/{}", cgroup(&self.dir).to_string_lossy())
    }

    /// The adapter under test.
    pub(crate) fn docker(&self) -> Docker {
        Docker::connect(&self.config()).expect("an address")
    }

    /// Settings of the adapter: any registry and the local image `busybox:test` are allowed.
    pub(crate) fn config(&self) -> Config {
        let images = ImagePolicy::new(&["*"], &["busybox:test"]).expect("a policy");
        Config { images, group_parent: Some(self.groups_at()), ..Config::new(self.host()) }
    }

    /// A plain client, for what the adapter does not do.
    pub(crate) fn client(&self) -> bollard::Docker {
        bollard::Docker::connect_with_host(&self.host()).expect("an address")
    }

    /// Imports the image `busybox:test`, made of this machine's static busybox with a link for each of its
    /// commands, and returns its id.
    pub(crate) async fn import_busybox(&self) -> String {
        self.import_marked("").await
    }

    /// Imports it with a file `/mark` of this content, unless that is empty: another image.
    pub(crate) async fn import_marked(&self, mark: &str) -> String {
        self.import(mark, &[]).await
    }

    /// Loads `busybox:test` as an image for this processor architecture.
    pub(crate) async fn load_for(&self, architecture: &str) {
        let layer = busybox_root("");
        let digest = format!("sha256:{:x}", Sha256::digest(&layer));
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        });
        let manifest = json!([{"Config": "config.json", "RepoTags": ["busybox:test"], "Layers": ["layer.tar"]}]);
        self.load(vec![
            ("config.json".to_owned(), config.to_string().into_bytes()),
            ("manifest.json".to_owned(), manifest.to_string().into_bytes()),
            ("layer.tar".to_owned(), layer),
        ])
        .await;
    }

    /// Loads the image that these files describe, as `docker save` writes them.
    pub(crate) async fn load(&self, files: Vec<(String, Vec<u8>)>) {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut file = tar::Header::new_gnu();
            file.set_mode(0o644);
            file.set_size(content.len() as u64);
            archive.append_data(&mut file, name, content.as_slice()).expect("a file");
        }
        let archive = bollard::body_full(archive.into_inner().expect("an archive").into());
        let options = bollard::query_parameters::ImportImageOptionsBuilder::default().build();
        let client = self.client();
        let load = client.import_image(options, archive, None);
        load.try_for_each(|_| async { Ok(()) }).await.expect("it is loaded");
    }

    /// Imports it with these lines of a Dockerfile.
    pub(crate) async fn import(&self, mark: &str, lines: &[&str]) -> String {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        let options = bollard::query_parameters::CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo("busybox")
            .tag("test")
            .changes(lines)
            .build();
        let client = self.client();
        let root = bollard::body_full(busybox_root(mark).into());
        let import = client.create_image(Some(options), Some(root), None);
        import.try_for_each(|_| async { Ok(()) }).await.expect("busybox is imported");
        client.inspect_image("busybox:test").await.expect("it is there").id.expect("an id")
    }

    /// Mounts an empty file system over this folder in the engine's mount namespace only.
    pub(crate) fn hide(&self, folder: &Path) {
        let script = format!("mount -t tmpfs tmpfs '{}'", folder.display());
        assert!(self.inside(&script).status().expect("nsenter runs").success(), "{script}");
    }

    /// Unmounts what [`Engine::hide`] mounted.
    pub(crate) fn show(&self, folder: &Path) {
        let script = format!("umount '{}'", folder.display());
        assert!(self.inside(&script).status().expect("nsenter runs").success(), "{script}");
    }

    /// Moves the calling thread into the engine's network namespace, so that what the adapter itself asks comes
    /// from there. For good: the test has to have its other parts already.
    pub(crate) fn enter_network(&self) {
        let path = format!("/proc/{}/ns/net", self.init.as_raw_nonzero());
        let namespace = File::open(path).expect("the namespace");
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind)).expect("root");
    }

    /// A shell script as on the engine's host: in its mount, PID and network namespaces.
    pub(crate) fn on_host(&self, script: &str) -> Command {
        let mut command = Command::new(tool("nsenter"));
        command.args(["--target", &self.init.as_raw_nonzero().to_string()]);
        command.args(["--mount", "--pid", "--net", "--", "sh", "-c", script]);
        command
    }

    /// A program in the engine's network namespace.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(tool("nsenter"));
        let target = self.init.as_raw_nonzero().to_string();
        command.args(["--target", &target, "--net", "--"]).arg(program);
        command
    }

    /// Waits until something listens on this port in the engine's network namespace.
    pub(crate) fn wait_for_port(&self, port: u16) {
        let tables = ["tcp", "tcp6"]
            .map(|table| format!("/proc/{}/net/{table}", self.init.as_raw_nonzero()));
        let listens = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().and_then(|address| address.rsplit_once(':'));
            // The third field after the address is the state: 0A is a listener.
            local.is_some_and(|(_, at)| at == format!("{port:04X}")) && fields.nth(1) == Some("0A")
        };
        eventually(&format!("port {port} listens"), PATIENCE, || {
            let read = |table| std::fs::read_to_string(table).unwrap_or_default();
            tables.iter().any(|table| read(table).lines().any(listens)).then_some(())
        });
    }

    /// Makes the GPU hook `fail`, `hang`, lose a card (`card UUID`), or `say TEXT` and fail.
    pub(crate) fn break_gpus(&self, how: &str) {
        std::fs::write(self.dir.path().join("gpu-failure"), how).expect("the mark is set");
    }

    /// Takes the card of this number away from every running container, as a service manager does that reads its
    /// units anew and writes the rules for devices that it knows.
    pub(crate) fn take_card_away(&self, number: u32) {
        let groups = Path::new("/sys/fs/cgroup/devices").join(cgroup(&self.dir));
        // A job's container is one level below its own group.
        for group in folders(&groups)
            .iter()
            .flat_map(|group| folders(group).into_iter().chain([group.clone()]))
        {
            let rule = format!("c 195:{number} rw");
            std::fs::write(group.join("devices.deny"), rule).expect("a rule is taken away");
        }
    }

    /// Makes the GPU hook work again.
    pub(crate) fn mend_gpus(&self) {
        std::fs::remove_file(self.dir.path().join("gpu-failure")).expect("the mark is taken away");
    }

    /// Kills the engine and its containers.
    pub(crate) fn kill(&mut self) {
        // When the first process of a PID namespace dies, all others die too; `unshare` waits for it.
        kill_process(self.init, Signal::KILL).ok();
        self.host.0.wait().ok();
        self.daemon = None;
    }

    /// The number of control groups that containers have left or still use.
    pub(crate) fn groups(&self) -> usize {
        let own = cgroup(&self.dir);
        let root = Path::new("/sys/fs/cgroup");
        let roots = folders(root).into_iter().chain([root.to_owned()]);
        roots.map(|hierarchy| folders(&hierarchy.join(&own)).len()).sum()
    }

    /// The groups that jobs have to themselves, in any hierarchy.
    pub(crate) fn groups_of_jobs(&self) -> Vec<PathBuf> {
        let own = cgroup(&self.dir);
        let root = Path::new("/sys/fs/cgroup");
        let roots = folders(root).into_iter().chain([root.to_owned()]);
        let mut all: Vec<PathBuf> =
            roots.flat_map(|hierarchy| folders(&hierarchy.join(&own))).collect();
        let is_jobs = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lamda-"))
        };
        all.retain(is_jobs);
        all
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }
}

impl Drop for Engine {
    #[expect(clippy::print_stderr, reason = "the log explains a failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(20)..].join("\n");
            eprintln!("the engine's last words:\n{tail}");
        }
        // A passed test ends dockerd in order, with its containers; a failed one saves the time.
        if self.daemon.is_some() && !std::thread::panicking() {
            self.stop_daemon();
        }
        self.kill();
        let group = cgroup(&self.dir);
        for hierarchy in folders(Path::new("/sys/fs/cgroup")) {
            remove_groups(&hierarchy.join(&group));
        }
        remove_groups(&Path::new("/sys/fs/cgroup").join(&group));
    }
}

/// One request on its own connection: a starting dockerd accepts it and stays silent.
fn ping(socket: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")?;
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    if start.ends_with(b"200") { Ok(()) } else { Err(std::io::ErrorKind::Other.into()) }
}

/// The cgroup of one engine's containers.
fn cgroup(dir: &TempDir) -> OsString {
    let mut name = OsString::from("lamda-test");
    name.push(dir.path().file_name().expect("a name"));
    name
}

/// Removes a cgroup and those below it. They are empty: their processes are gone.
fn remove_groups(group: &Path) {
    for below in folders(group) {
        remove_groups(&below);
    }
    std::fs::remove_dir(group).ok();
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// The first child of a process: what `unshare` forked into its namespaces.
fn child_of(parent: &Running) -> Option<Pid> {
    let id = parent.0.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok().and_then(Pid::from_raw)
}

/// The files of `busybox:test`.
pub(super) fn busybox_root(mark: &str) -> Vec<u8> {
    let busybox = tool("busybox");
    let listed = Command::new(&busybox).arg("--list").output().expect("busybox runs");
    let applets = String::from_utf8(listed.stdout).expect("its commands");
    let mut root = tar::Builder::new(Vec::new());
    root.append_path_with_name(&busybox, "bin/busybox").expect("busybox");
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        root.append_link(&mut link, format!("bin/{applet}"), "busybox").expect("a link");
    }
    let mut folder = tar::Header::new_gnu();
    folder.set_entry_type(tar::EntryType::Directory);
    folder.set_mode(0o1777);
    folder.set_size(0);
    root.append_data(&mut folder, "tmp/", std::io::empty()).expect("a folder");
    if !mark.is_empty() {
        let mut file = tar::Header::new_gnu();
        file.set_mode(0o644);
        file.set_size(mark.len() as u64);
        root.append_data(&mut file, "mark", mark.as_bytes()).expect("a file");
    }
    root.into_inner().expect("an archive")
}
