//! Copying files out of a container's own layer, which no mount shows.

use lamda_node::container::ContainerRuntime as _;

use super::{Bench, names};

#[tokio::test]
async fn what_a_job_left_in_its_own_files_is_copied_out() {
    let bench = Bench::start().await;
    let script =
        "mkdir -p /tmp/m/sub; echo 1 > /tmp/m/a; echo 2 > /tmp/m/sub/b; chmod 4777 /tmp/m/a";
    let (id, _) = bench.finish(&bench.shell(script)).await;
    let dest = tempfile::tempdir().unwrap();
    bench.docker.copy_out(&id, "/tmp/m", dest.path(), 1 << 20).await.unwrap();
    let copied = dest.path().join("m");
    assert_eq!(names(&copied), ["a", "sub"]);
    assert_eq!(std::fs::read(copied.join("sub/b")).unwrap(), b"2\n");
    let mode = std::os::unix::fs::MetadataExt::mode(&copied.join("a").metadata().unwrap());
    assert_eq!(mode & 0o7111, 0, "{mode:o}");
}

#[tokio::test]
async fn links_arrive_as_links_and_pipes_as_no_files() {
    let bench = Bench::start().await;
    let script = "cd /tmp; mkdir soft hard pipe; ln -s /etc/passwd soft/x; mkfifo pipe/x
        echo 1 > hard/a; ln hard/a hard/b";
    let (id, ending) = bench.finish(&bench.shell(script)).await;
    assert_eq!(ending.exit.code, 0, "{ending:?}");
    let dest = tempfile::tempdir().unwrap();
    for path in ["/tmp/soft", "/tmp/pipe", "/tmp/hard"] {
        bench.docker.copy_out(&id, path, dest.path(), 1 << 20).await.unwrap();
    }
    let at = |path: &str| dest.path().join(path);
    assert_eq!(std::fs::read_link(at("soft/x")).unwrap().to_str(), Some("/etc/passwd"));
    assert!(!at("pipe/x").symlink_metadata().unwrap().is_file());
    assert_eq!(std::fs::read(at("hard/a")).unwrap(), b"1\n");
    assert_eq!(std::fs::read(at("hard/b")).unwrap(), b"1\n");
}
