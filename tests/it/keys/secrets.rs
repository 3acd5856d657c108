//! The passphrase and the key's digits: where they are read from, and that none of them stays in memory.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use lamda_node::chain::keystore;
use lamda_node::secret::Secret;

use crate::support::anvil::Anvil;
use crate::support::program::PROGRAM;
use crate::support::world::{Agent, World, shell};

/// Like one from a password manager: longer than any buffer that could hold a part of it.
const PASSPHRASE: &str =
    "Yb3-quarry-oSmium-7781-velvet-KETTLE-drift-0452-anther-Pylon-66-tidewrack";

#[tokio::test]
async fn neither_the_keys_digits_nor_the_passphrase_lie_in_a_running_nodes_memory() {
    let world = World::start().await;
    let digits = Anvil::key_hex(1).trim_start_matches("0x");
    // The control: with its key in plain text, the search finds it in the same node.
    let mut plain = world.agent(&[]);
    let found = memory_holds(&plain, &[digits, PASSPHRASE]);
    assert_eq!(found, [true, false], "the search finds what is there");
    plain.kill();

    let (store, file) = keystore_of(&world, 1);
    let mut settings = vec![
        ("AGENT_PRIVATE_KEY", ""),
        ("AGENT_KEYSTORE", store.as_str()),
        ("AGENT_KEYSTORE_PASSPHRASE_FILE", file.as_str()),
        ("HEARTBEAT_INTERVAL", "1s"),
        ("LOG_LEVEL", "trace"),
    ];
    let mut agent = world.agent(&settings);
    world.publish("claim", &shell("echo x > /output/output"));
    assert_eq!(world.outcome("claim").last().expect("an end")["status"], "completed");
    agent.wait_for("heartbeat sent");
    assert_eq!(memory_holds(&agent, &[digits, PASSPHRASE]), [false, false]);
    // HMAC keeps a short passphrase as it is, and hashes a long one first.
    agent.kill();
    let short = "quarry-oSmium-7781";
    let again = world.dir.path().join("short.json");
    keystore::import(&again, &Anvil::key(1), &Secret::new(short)).expect("a keystore");
    std::fs::write(&file, short).expect("a file");
    let again = again.display().to_string();
    settings[1].1 = &again;
    let agent = world.agent(&settings);
    agent.wait_for("heartbeat sent");
    assert_eq!(memory_holds(&agent, &[digits, short]), [false, false]);
}

#[tokio::test]
async fn a_passphrase_comes_from_systemds_credentials() {
    let world = World::start().await;
    let (store, file) = keystore_of(&world, 1);
    let credentials = world.dir.path().join("credentials");
    std::fs::create_dir(&credentials).expect("a folder");
    std::fs::rename(&file, credentials.join("lamda-node-passphrase")).expect("it is moved");
    let credentials = credentials.display().to_string();
    let settings = [
        ("AGENT_PRIVATE_KEY", ""),
        ("AGENT_KEYSTORE", &*store),
        ("CREDENTIALS_DIRECTORY", &*credentials),
    ];
    let agent = world.agent(&settings);
    assert!(!agent.log().contains(PASSPHRASE), "{}", agent.log());
    assert!(agent.log().contains(&World::agent_address().to_string()), "{}", agent.log());
    // Files that other users of the host may read.
    let pid = agent.running.0.id();
    for file in ["cmdline", "environ"] {
        let seen = std::fs::read(format!("/proc/{pid}/{file}")).expect("we are root");
        assert!(!String::from_utf8_lossy(&seen).contains(PASSPHRASE), "{file}");
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let core = status.lines().find(|line| line.starts_with("Max core file size"));
    assert_eq!(core.map(|line| line.matches(" 0 ").count()), Some(2), "{status}");
}

#[test]
fn a_passphrase_is_asked_for_at_the_terminal_without_an_echo() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("key.json");
    keystore::import(&store, &Anvil::key(1), &Secret::new(PASSPHRASE)).expect("a keystore");
    let shown = at_a_terminal(dir.path(), &store, &format!("wrong\u{8}\u{15}{PASSPHRASE}\r"));
    assert!(shown.contains(&format!("Passphrase of {}: ", store.display())), "{shown}");
    assert!(!shown.contains("wrong") && !shown.contains(&PASSPHRASE[4..]), "{shown}");
    // The keystore opened: the start ends only because this machine has no GPU.
    assert!(shown.contains(&World::agent_address().to_string()), "{shown}");
    assert!(shown.contains("exit 69 echo True"), "{shown}");

    let interrupted = at_a_terminal(dir.path(), &store, "half\u{3}");
    assert!(interrupted.contains("no passphrase was given at the terminal"), "{interrupted}");
    assert!(interrupted.contains("exit 64 echo True"), "the echo is on again: {interrupted}");
    let wrong = at_a_terminal(dir.path(), &store, "another\r");
    assert!(wrong.contains("the passphrase does not open"), "{wrong}");
}

/// Runs the node at its own terminal and types; returns what the terminal showed, the exit code, and
/// whether the terminal echoes at the end.
fn at_a_terminal(dir: &Path, store: &Path, typed: &str) -> String {
    let script = "
import os, pty, sys, termios
program, typed = sys.argv[1], sys.argv[2]
pid, tty = pty.fork()
if pid == 0:
    os.execv(program, [program, 'run'])
shown = b''
while b'Passphrase' not in shown:
    shown += os.read(tty, 1024)
os.write(tty, typed.encode())
ended = b''
while True:
    try:
        more = os.read(tty, 1024)
    except OSError:
        break
    if not more:
        break
    shown += more
    ended += more
    if b'\\n' in ended:
        echo = bool(termios.tcgetattr(tty)[3] & termios.ECHO)
_, status = os.waitpid(pid, 0)
print(shown.decode(), 'exit', os.waitstatus_to_exitcode(status), 'echo', echo)
";
    let output = Command::new("python3")
        .args(["-c", script, PROGRAM, typed])
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("AGENT_KEYSTORE", store)
        .env("OPBNB_RPC_URL", "http://127.0.0.1:1")
        .env("REPUTATION_CONTRACT_ADDRESS", "0x00000000000000000000000000000000000000AA")
        .env("PINATA_JWT", "any")
        .env("NVML_LIB", "/etc/hostname")
        .env("DATA_DIR", dir.join("data"))
        .stdin(Stdio::null())
        .output()
        .expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes a keystore of this account of the chain and a file with its passphrase; returns both paths.
fn keystore_of(world: &World, account: usize) -> (String, String) {
    let (store, file) = (world.dir.path().join("key.json"), world.dir.path().join("passphrase"));
    keystore::import(&store, &Anvil::key(account), &Secret::new(PASSPHRASE)).expect("a keystore");
    std::fs::write(&file, format!("{PASSPHRASE}\n")).expect("a file");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("its mode");
    (store.display().to_string(), file.display().to_string())
}

/// Which of these texts are in the node's writable memory, ignoring case.
fn memory_holds<const N: usize>(agent: &Agent, texts: &[&str; N]) -> [bool; N] {
    let pid = agent.running.0.id();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("we are root");
    let mut memory = File::open(format!("/proc/{pid}/mem")).expect("we are root");
    let wanted = texts.map(str::to_ascii_lowercase);
    let (mut found, mut searched) = ([false; N], 0);
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
        // Read-only memory holds the program's code, and none of its input.
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').expect("a range");
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).expect("an address"));
        if memory.seek(SeekFrom::Start(from)).is_err() {
            continue;
        }
        let mut bytes =
            vec![0; usize::try_from(to - from).expect("it fits into this process's memory")];
        // Skip a range that was unmapped meanwhile.
        if memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        searched += bytes.len();
        bytes.make_ascii_lowercase();
        for (text, found) in wanted.iter().zip(&mut found) {
            *found |= memchr::memmem::find(&bytes, text.as_bytes()).is_some();
        }
    }
    assert!(searched > 1024 * 1024, "only {searched} bytes could be searched");
    found
}
