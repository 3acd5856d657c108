//! What every `ContainerRuntime` must do, tested on the fake and on the real engine.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lamda_node::container::fake::{Fake, Script};
use lamda_node::container::{
    ContainerId, ContainerRuntime, ContainerSpec, EndedBy, Error, FoundState, LogChunk, LogStream,
    Mount,
};
use lamda_node::ids::Address;
use lamda_node::node::GpuUuid;
use tokio::sync::mpsc;

use super::{Bench, mounts, names, node, run, spec, watch};
use crate::support::engine::GPUS;

/// The behaviours of a test's container.
enum Job {
    /// Ends at once with this code.
    Exits(i32),
    /// Writes `out` and `err` to its two streams.
    Prints,
    /// Writes a thousand lines.
    Chatters,
    /// Runs until it is asked to stop.
    Waits,
    /// Runs until it is killed.
    Defies,
}

/// A runtime that can make such containers.
trait Subject {
    type Runtime: ContainerRuntime;
    fn runtime(&self) -> &Self::Runtime;
    fn spec(&self, name: &str, job: &Job) -> ContainerSpec;
    /// Waits until the job's own command runs: a signal before that is lost.
    async fn begun(&self, id: &ContainerId);
}

impl Subject for Bench {
    type Runtime = lamda_node::container::docker::Docker;

    async fn begun(&self, id: &ContainerId) {
        let client = self.engine.client();
        let listed = async {
            loop {
                let processes = client.top_processes(&id.0, None).await.expect("it runs");
                let mut rows = processes.processes.into_iter().flatten().flatten();
                if rows.any(|word| word.starts_with("sleep")) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_mins(1), listed).await.expect("its command runs");
    }

    fn runtime(&self) -> &Self::Runtime {
        &self.docker
    }

    fn spec(&self, name: &str, job: &Job) -> ContainerSpec {
        let script = match job {
            Job::Exits(code) => format!("exit {code}"),
            Job::Prints => "echo out; echo err >&2".to_owned(),
            Job::Chatters => "yes | head -n 1000".to_owned(),
            Job::Waits => "sleep 1000".to_owned(),
            Job::Defies => "trap '' TERM; while :; do sleep 1000; done".to_owned(),
        };
        ContainerSpec {
            command: Some(["sh", "-c", &script].map(str::to_owned).to_vec()),
            ..spec(name, &self.image_id)
        }
    }
}

struct Simulation {
    fake: Fake,
    image_id: String,
}

impl Simulation {
    async fn start() -> Self {
        let gpus = GPUS.map(|uuid| GpuUuid::new(uuid).unwrap()).to_vec();
        let fake = Fake::new(Duration::from_millis(10), gpus);
        let image_id = fake.image("busybox:test").await.expect("an image").id;
        Self { fake, image_id }
    }
}

impl Subject for Simulation {
    type Runtime = Fake;

    async fn begun(&self, _: &ContainerId) {}

    fn runtime(&self) -> &Fake {
        &self.fake
    }

    fn spec(&self, name: &str, job: &Job) -> ContainerSpec {
        let chunk = |stream, text: &'static str| LogChunk { stream, bytes: text.into() };
        let usual = Script {
            writes_output: false,
            log: Some(Vec::new()),
            ..Script::succeeds_after(Duration::ZERO)
        };
        let for_ever = Duration::from_secs(1000);
        let script = match job {
            Job::Exits(code) => Script { code: *code, ..usual },
            Job::Prints => {
                let log = [chunk(LogStream::Stdout, "out\n"), chunk(LogStream::Stderr, "err\n")];
                Script { log: Some(log.to_vec()), ..usual }
            }
            Job::Chatters => {
                Script { log: Some(vec![chunk(LogStream::Stdout, "y\n"); 1000]), ..usual }
            }
            Job::Waits => Script { run_for: for_ever, ..usual },
            Job::Defies => Script { run_for: for_ever, ignores_stop: true, ..usual },
        };
        self.fake.script(name, script);
        spec(name, &self.image_id)
    }
}

/// Makes each of these functions a test of both runtimes.
macro_rules! held_by_both {
    ($($name:ident,)*) => {
        mod fake {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Simulation::start().await).await;
            })*
        }
        mod docker {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Bench::start().await).await;
            })*
        }
    };
}

held_by_both! {
    a_container_runs_once_however_often_it_is_asked_for,
    a_container_that_was_created_is_found_and_not_made_again,
    a_running_container_is_found_and_taken_over,
    the_exit_and_the_output_are_told_again_to_a_later_caller,
    an_exit_is_told_though_nobody_reads_the_output,
    an_exit_is_told_though_the_reader_has_left,
    a_job_that_obeys_is_stopped_and_one_that_defies_is_killed,
    a_running_container_can_be_removed_and_is_gone,
    only_a_container_that_never_ran_can_be_withdrawn,
    a_name_that_another_node_holds_is_not_taken_over,
    an_image_that_is_not_there_is_worth_another_pull,
    a_host_folder_that_is_not_there_is_not_the_jobs_fault,
    a_card_that_is_not_there_leaves_a_container_that_never_ran,
    a_file_and_a_folder_are_copied_out,
    a_link_is_copied_out_as_a_link,
    what_is_too_large_or_not_there_is_not_copied_out,
}

async fn a_container_runs_once_however_often_it_is_asked_for(subject: impl Subject) {
    let runtime = subject.runtime();
    let spec = subject.spec("once", &Job::Exits(7));
    let first = run(runtime, &spec).await.unwrap();
    assert!(first.started_now);
    let exit = watch(runtime, &first.id).await.unwrap().exit;
    assert_eq!((exit.code, exit.oom, exit.ended_by), (7, false, EndedBy::Itself));
    assert!(exit.started_at <= exit.finished_at, "{exit:?}");

    let again = run(runtime, &spec).await.unwrap();
    assert_eq!((again.id, again.started_now), (first.id.clone(), false));
    assert_eq!(watch(runtime, &first.id).await.unwrap().exit, exit, "it did not run again");
    assert_eq!(runtime.list(node()).await.unwrap()[0].state, FoundState::Exited);
}

async fn a_running_container_is_found_and_taken_over(subject: impl Subject) {
    let runtime = subject.runtime();
    let spec = subject.spec("found", &Job::Waits);
    let first = run(runtime, &spec).await.unwrap();
    let again = run(runtime, &spec).await.unwrap();
    assert_eq!((again.id, again.started_now), (first.id.clone(), false));

    let found = runtime.list(node()).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, first.id);
    assert_eq!(found[0].job_id.as_ref(), Some(&spec.job_id));
    assert_eq!(found[0].attempt, 3);
    assert_eq!(found[0].state, FoundState::Running);
    assert_eq!(runtime.list(Address::new([1; 20])).await.unwrap(), []);
}

async fn the_exit_and_the_output_are_told_again_to_a_later_caller(subject: impl Subject) {
    let runtime = subject.runtime();
    let id = run(runtime, &subject.spec("prints", &Job::Prints)).await.unwrap().id;
    for _ in 0..2 {
        let ending = watch(runtime, &id).await.unwrap();
        assert_eq!(ending.exit.code, 0);
        assert_eq!((ending.stdout.as_str(), ending.stderr.as_str()), ("out\n", "err\n"));
    }
}

async fn an_exit_is_told_though_nobody_reads_the_output(subject: impl Subject) {
    let runtime = subject.runtime();
    let id = run(runtime, &subject.spec("stuck", &Job::Chatters)).await.unwrap().id;
    let (sink, unread) = mpsc::channel(1);
    let told = AtomicUsize::new(0);
    let gone = || {
        told.fetch_add(1, Ordering::Relaxed);
    };
    assert_eq!(runtime.follow(&id, sink, &gone).await.unwrap().code, 0);
    assert_eq!(told.into_inner(), 1, "that its processes are gone");
    drop(unread);
}

async fn an_exit_is_told_though_the_reader_has_left(subject: impl Subject) {
    let runtime = subject.runtime();
    let id = run(runtime, &subject.spec("left", &Job::Chatters)).await.unwrap().id;
    let (sink, _) = mpsc::channel(1);
    assert_eq!(runtime.follow(&id, sink, &|| ()).await.unwrap().code, 0);
}

async fn a_job_that_obeys_is_stopped_and_one_that_defies_is_killed(subject: impl Subject) {
    let runtime = subject.runtime();
    let obeys = run(runtime, &subject.spec("obeys", &Job::Waits)).await.unwrap().id;
    subject.begun(&obeys).await;
    runtime.stop(&obeys, Duration::from_secs(100)).await.unwrap();
    let exit = watch(runtime, &obeys).await.unwrap().exit;
    assert_eq!((exit.code, exit.ended_by), (128 + 15, EndedBy::Engine));

    let defies = run(runtime, &subject.spec("defies", &Job::Defies)).await.unwrap().id;
    runtime.stop(&defies, Duration::from_secs(1)).await.unwrap();
    let exit = watch(runtime, &defies).await.unwrap().exit;
    assert_eq!((exit.code, exit.ended_by), (128 + 9, EndedBy::Engine));

    runtime.stop(&defies, Duration::from_secs(100)).await.unwrap();
    runtime.remove(&defies).await.unwrap();
    runtime.stop(&defies, Duration::from_secs(100)).await.unwrap();
}

async fn a_running_container_can_be_removed_and_is_gone(subject: impl Subject) {
    let runtime = subject.runtime();
    let id = run(runtime, &subject.spec("removed", &Job::Waits)).await.unwrap().id;
    for _ in 0..2 {
        runtime.remove(&id).await.unwrap();
    }
    let (sink, _unread) = mpsc::channel(1);
    let followed = runtime.follow(&id, sink, &|| ()).await;
    assert!(matches!(&followed, Err(Error::Gone(gone)) if *gone == id), "{followed:?}");
    assert_eq!(runtime.list(node()).await.unwrap(), []);
}

async fn a_name_that_another_node_holds_is_not_taken_over(subject: impl Subject) {
    let runtime = subject.runtime();
    let ours = subject.spec("held", &Job::Waits);
    run(runtime, &ours).await.unwrap();
    let theirs = run(runtime, &ContainerSpec { node: Address::new([1; 20]), ..ours }).await;
    assert!(matches!(theirs, Err(Error::Engine { .. })), "{theirs:?}");
}

async fn an_image_that_is_not_there_is_worth_another_pull(subject: impl Subject) {
    let image_id = format!("sha256:{}", "0".repeat(64));
    let spec = ContainerSpec { image_id, ..subject.spec("no-image", &Job::Exits(0)) };
    let told = run(subject.runtime(), &spec).await;
    assert!(matches!(told, Err(Error::Pull { .. })), "{told:?}");
}

async fn a_host_folder_that_is_not_there_is_not_the_jobs_fault(subject: impl Subject) {
    let runtime = subject.runtime();
    let mount =
        Mount { host: "/nonexistent/in".into(), target: "/input".to_owned(), read_only: true };
    let spec = ContainerSpec { mounts: vec![mount], ..subject.spec("mount", &Job::Exits(0)) };
    let told = run(runtime, &spec).await;
    assert!(matches!(told, Err(Error::Engine { .. })), "{told:?}");
    assert_eq!(runtime.list(node()).await.unwrap(), []);
}

async fn a_card_that_is_not_there_leaves_a_container_that_never_ran(subject: impl Subject) {
    let runtime = subject.runtime();
    let gpus = vec![GpuUuid::new("GPU-unknown").unwrap()];
    let told = run(runtime, &ContainerSpec { gpus, ..subject.spec("card", &Job::Exits(0)) }).await;
    assert!(
        matches!(&told, Err(Error::Gpu { reason }) if reason.contains("unknown device")),
        "{told:?}"
    );
    assert_eq!(runtime.list(node()).await.unwrap()[0].state, FoundState::Created);
}

async fn only_a_container_that_never_ran_can_be_withdrawn(subject: impl Subject) {
    let runtime = subject.runtime();
    let created = runtime.create(&subject.spec("created", &Job::Exits(0))).await.unwrap();
    let exits = run(runtime, &subject.spec("exits", &Job::Exits(0))).await.unwrap().id;
    let (sink, _unread) = mpsc::channel(1);
    runtime.follow(&exits, sink, &|| ()).await.unwrap();
    let runs = run(runtime, &subject.spec("runs", &Job::Waits)).await.unwrap().id;
    for (id, is_gone) in [(&created, true), (&created, true), (&exits, false), (&runs, false)] {
        assert_eq!(runtime.withdraw(id).await.unwrap(), is_gone, "{id}");
    }
    assert_eq!(runtime.list(node()).await.unwrap().len(), 2);
}

async fn a_container_that_was_created_is_found_and_not_made_again(subject: impl Subject) {
    let runtime = subject.runtime();
    let spec = subject.spec("created", &Job::Exits(0));
    let id = runtime.create(&spec).await.unwrap();
    assert_eq!(runtime.create(&spec).await.unwrap(), id);
    let found = runtime.list(node()).await.unwrap();
    assert_eq!((found.len(), found[0].state), (1, FoundState::Created));
    runtime.remove(&id).await.unwrap();
    let told = runtime.start(&id).await;
    assert!(matches!(told, Err(Error::Gone(_))), "it is not made again by a start: {told:?}");
}

async fn a_file_and_a_folder_are_copied_out(subject: impl Subject) {
    let (id, folder) = exited_with_output(&subject, |output| {
        std::fs::create_dir_all(output.join("model/empty")).unwrap();
        std::fs::write(output.join("model/weights"), vec![7; 300_000]).unwrap();
        std::fs::write(output.join("score"), "0.9").unwrap();
    })
    .await;
    let dest = folder.path().join("dest");
    std::fs::create_dir(&dest).unwrap();
    for path in ["/output/model", "/output/score"] {
        subject.runtime().copy_out(&id, path, &dest, 400_000).await.unwrap();
    }
    assert_eq!(names(&dest), ["model", "score"]);
    assert_eq!(names(&dest.join("model")), ["empty", "weights"]);
    assert_eq!(std::fs::read(dest.join("model/weights")).unwrap(), vec![7; 300_000]);
    assert_eq!(std::fs::read(dest.join("score")).unwrap(), b"0.9");
}

async fn a_link_is_copied_out_as_a_link(subject: impl Subject) {
    let (id, folder) = exited_with_output(&subject, |output| {
        std::fs::create_dir(output.join("model")).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", output.join("model/link")).unwrap();
    })
    .await;
    let dest = folder.path().join("dest");
    for (path, at) in [("/output/model", "model/link"), ("/output/model/link", "link")] {
        std::fs::create_dir(&dest).unwrap();
        subject.runtime().copy_out(&id, path, &dest, 1000).await.unwrap();
        assert_eq!(std::fs::read_link(dest.join(at)).unwrap(), Path::new("/etc/shadow"));
        std::fs::remove_dir_all(&dest).unwrap();
    }
}

async fn what_is_too_large_or_not_there_is_not_copied_out(subject: impl Subject) {
    let (id, folder) = exited_with_output(&subject, |output| {
        std::fs::write(output.join("score"), "0.9").unwrap();
    })
    .await;
    let runtime = subject.runtime();
    let told = runtime.copy_out(&id, "/output/score", folder.path(), 2).await;
    assert!(matches!(&told, Err(Error::TooLarge { bytes_max: 2, .. })), "{told:?}");
    let told = runtime.copy_out(&id, "/output/nothing", folder.path(), 2).await;
    assert!(matches!(&told, Err(Error::NoSuchPath { .. })), "{told:?}");
    runtime.remove(&id).await.unwrap();
    let told = runtime.copy_out(&id, "/output/score", folder.path(), 2).await;
    assert!(matches!(&told, Err(Error::Gone(_))), "{told:?}");
}

/// A container that has exited and left an output.
async fn exited_with_output(
    subject: &impl Subject,
    output: impl FnOnce(&Path),
) -> (ContainerId, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mounts = mounts(&folder);
    output(&folder.path().join("out"));
    let spec = ContainerSpec { mounts, ..subject.spec("copied", &Job::Exits(0)) };
    let id = run(subject.runtime(), &spec).await.unwrap().id;
    watch(subject.runtime(), &id).await.unwrap();
    (id, folder)
}

#[tokio::test]
async fn a_simulated_jobs_output_is_its_input_under_a_line_that_says_so() {
    let Simulation { fake, image_id } = Simulation::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mounts = mounts(&folder);
    std::fs::write(folder.path().join("in/input"), "question\n").unwrap();
    let id = run(&fake, &ContainerSpec { mounts, ..spec("job", &image_id) }).await.unwrap().id;
    let ending = watch(&fake, &id).await.unwrap();
    assert_eq!(ending.exit.code, 0);
    assert!(ending.stdout.starts_with("simulated: "), "{}", ending.stdout);
    let output = std::fs::read_to_string(folder.path().join("out/output")).unwrap();
    let (first, rest) = output.split_once('\n').unwrap();
    assert!(first.starts_with("simulated: "), "{first}");
    assert_eq!(rest, "question\n");
}
