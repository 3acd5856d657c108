//! Which images this host can run, judged by their processor architecture.
//!
//! The engine gives no warning: it starts a program for any processor, which then dies with `exec format
//! error`, as if that were the job's fault.
//!
//! Must hold: an image that does not name its architecture is let through.

use std::path::Path;

/// Where the kernel lists its handlers for other processors' programs (`binfmt_misc`). The engine uses this
/// host's kernel, since it sees this node's files.
const HANDLERS: &str = "/proc/sys/fs/binfmt_misc";

/// Architectures as Go names them, and as QEMU's handlers are called.
const QEMU: [(&str, &str); 8] = [
    ("386", "i386"),
    ("amd64", "x86_64"),
    ("arm", "arm"),
    ("arm64", "aarch64"),
    ("mips64le", "mips64el"),
    ("ppc64le", "ppc64le"),
    ("riscv64", "riscv64"),
    ("s390x", "s390x"),
];

/// Whether a host with an engine of this architecture runs programs for the image's: its own, one that its
/// own includes, or one that has a handler.
pub(super) async fn runs(engine: &str, image: &str) -> bool {
    if runs_itself(engine, image) {
        return true;
    }
    let image = image.to_owned();
    tokio::task::spawn_blocking(move || is_emulated(Path::new(HANDLERS), &image))
        .await
        .unwrap_or(false)
}

fn runs_itself(engine: &str, image: &str) -> bool {
    image.is_empty()
        || engine.is_empty()
        || engine == image
        || matches!((engine, image), ("amd64", "386") | ("arm64", "arm"))
}

fn is_emulated(handlers: &Path, image: &str) -> bool {
    let names = QEMU.iter().filter(|(go, _)| *go == image).map(|(_, qemu)| format!("qemu-{qemu}"));
    // Apple's translator, in a virtual machine on a Mac.
    let rosetta = (image == "amd64").then(|| "rosetta".to_owned());
    let is_on = |name: String| {
        let said = std::fs::read_to_string(handlers.join(name));
        said.is_ok_and(|said| said.starts_with("enabled"))
    };
    names.chain(rosetta).any(is_on)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_runs_its_own_programs_and_those_that_a_handler_stands_for() {
        for (engine, image, runs) in [
            ("amd64", "amd64", true),
            ("amd64", "", true),
            ("amd64", "386", true),
            ("arm64", "arm", true),
            ("amd64", "arm64", false),
            ("386", "amd64", false),
        ] {
            assert_eq!(runs_itself(engine, image), runs, "{engine} {image}");
        }
        let handlers = tempfile::tempdir().unwrap();
        assert!(!is_emulated(handlers.path(), "arm64"));
        let handler = handlers.path().join("qemu-aarch64");
        std::fs::write(&handler, "disabled\ninterpreter /usr/bin/qemu-aarch64\n").unwrap();
        assert!(!is_emulated(handlers.path(), "arm64"));
        std::fs::write(&handler, "enabled\ninterpreter /usr/bin/qemu-aarch64\n").unwrap();
        assert!(is_emulated(handlers.path(), "arm64"));
        assert!(!is_emulated(handlers.path(), "../qemu-aarch64"));
    }
}
