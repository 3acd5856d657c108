//! Builds the program of the tool image (`probe/`) and hands its path to the node, which embeds it.
//!
//! A static program needs a flag of its own for the whole of its dependencies, so it gets a cargo run of its
//! own, in a target folder of its own. That run is offline: its dependencies are some of the node's, which
//! cargo has fetched by now (docs/adr/0031-tool-image.md).

use std::path::{Path, PathBuf};
use std::process::Command;

/// Set by whoever calls cargo, for the node; the program of the tool image is built the same way for all.
const FOREIGN: [&str; 6] = [
    "RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
];

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script everything in variables")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=probe");
    println!("cargo::rerun-if-changed=Cargo.lock");
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let target = std::env::var("TARGET")?;
    let target_dir = Path::new(&std::env::var("OUT_DIR")?).join("probe");
    let mut cargo = Command::new(std::env::var("CARGO")?);
    for name in FOREIGN {
        cargo.env_remove(name);
    }
    let built = cargo
        .args(["build", "--quiet", "--locked", "--offline", "--package", "lamda-probe"])
        .args(["--profile", "probe", "--target", &target, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .current_dir(&root)
        .status()?;
    if !built.success() {
        return Err(
            "the program of the tool image (probe/) can't be built. It is linked statically: \
            the C library's static half must be installed (libc6-dev, glibc-static)"
                .into(),
        );
    }
    let program = target_dir.join(target).join("probe/lamda-probe");
    println!("cargo::rustc-env=LAMDA_PROBE={}", program.display());
    Ok(())
}
