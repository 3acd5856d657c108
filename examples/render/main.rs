//! The job of `scripts/demo`: a small ray tracer without dependencies.
//!
//! It reads a scene from `INPUT_PATH`, prints its progress to stdout, and writes a PNG to
//! `OUTPUT_PATH`. A job needs no other interface to the agent.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "stdout and stderr are a job's log")]

mod png;
mod scene;
mod vector;

use std::env;
use std::fs;
use std::process::ExitCode;

use scene::Scene;

const WHERE_INPUTS_LIE: &str = "/input/input";
const WHERE_OUTPUTS_GO: &str = "/output/output";

fn main() -> ExitCode {
    match render() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn render() -> Result<String, String> {
    let input = path("INPUT_PATH", WHERE_INPUTS_LIE);
    let output = path("OUTPUT_PATH", WHERE_OUTPUTS_GO);
    let text = fs::read_to_string(&input).map_err(|err| format!("{input}: {err}"))?;
    let scene: Scene = text.parse()?;
    let (width, height) = (scene.width, scene.height);
    println!("rendering {} spheres at {width} x {height}", scene.spheres.len());
    let mut pixels = Vec::with_capacity(3 * usize::from(width) * usize::from(height));
    for row in 0..height {
        for column in 0..width {
            pixels.extend(scene.pixel(column, row));
        }
        let (before, after) = (percent(row, height), percent(row + 1, height));
        if before / 10 != after / 10 {
            println!("{after} %");
        }
    }
    let picture = png::encode(u32::from(width), u32::from(height), &pixels);
    fs::write(&output, &picture).map_err(|err| format!("{output}: {err}"))?;
    Ok(format!("wrote {} bytes to {output}", picture.len()))
}

fn path(variable: &str, usual: &str) -> String {
    let set = env::var_os(variable).and_then(|value| value.into_string().ok());
    set.unwrap_or_else(|| usual.to_owned())
}

fn percent(rows: u16, of: u16) -> u32 {
    100 * u32::from(rows) / u32::from(of)
}
