//! Python interpreters that have nats-py loaded and run one script after the other: loading it takes longer than
//! most scripts, and a test has dozens of them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::tools::Running;

/// What each script finds loaded.
pub(crate) const IMPORTS: &str = "import asyncio, json, sys, nats\nfrom nats.js.api import *\n";

/// Reads requests, a line each, until the end of its input: each script defines `main`, and has its own names.
const LOOP: &str = "
import contextlib, io, traceback
loaded, asks = dict(globals()), sys.stdin
for line in asks:
    asked, out, error = json.loads(line), io.StringIO(), None
    names = dict(loaded)
    try:
        with contextlib.redirect_stdout(out):
            exec(asked['script'], names)
            asyncio.run(names['main'](*asked['args']))
    except BaseException:
        error = traceback.format_exc()
    print(json.dumps({'out': out.getvalue(), 'error': error}), flush=True)
";

/// One that waits for a script.
struct Interpreter {
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Ends with this process, at the latest since its input ends.
    _running: Running,
}

/// Those that no test's thread uses at present.
static IDLE: Mutex<Vec<Interpreter>> = Mutex::new(Vec::new());

/// Runs a script that defines `main`, calls that with these arguments, and returns what it prints. Panics if it
/// fails.
pub(crate) fn run(script: &str, args: &[&str]) -> String {
    let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let ready = idle().pop();
    let mut python = ready.unwrap_or_else(Interpreter::start);
    writeln!(python.asks, "{}", json!({"script": script, "args": args})).expect("python listens");
    let mut line = String::new();
    python.answers.read_line(&mut line).expect("python answers");
    idle().push(python);
    let answer: Value = serde_json::from_str(&line).expect("python answers");
    if let Some(error) = answer["error"].as_str() {
        panic!("nats-py failed:\n{error}");
    }
    answer["out"].as_str().expect("what it prints").to_owned()
}

/// The interpreter that has nats-py.
pub(crate) fn interpreter() -> PathBuf {
    let python = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tools/nv/bin/python");
    assert!(python.is_file(), "nats-py is missing: scripts/test installs it");
    python
}

impl Interpreter {
    fn start() -> Self {
        let mut command = Command::new(interpreter());
        command.arg("-u").arg("-c").arg(format!("{IMPORTS}{LOOP}"));
        // Errors are part of the answer.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = Running::start(&mut command);
        let answers = BufReader::new(running.0.stdout.take().expect("its output is piped"));
        let asks = running.0.stdin.take().expect("its input is piped");
        Self { asks, answers, _running: running }
    }
}
