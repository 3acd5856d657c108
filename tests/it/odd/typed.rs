//! What people type: settings, files with settings, arguments.

use serde_json::Value;

use crate::support::anvil::Anvil;
use crate::support::ipfs::Store;
use crate::support::nvml::FakeNvml;
use crate::support::program::Program;

/// A key of a development chain, worthless if it leaks.
const HEX: &str = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";
const REQUESTER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

/// A `.env` as a person wrote it, and what `run` and `doctor` say about it.
struct Row {
    name: &'static str,
    env: String,
    /// The exit code of `run`, which opens no part before all settings are right.
    code: i32,
    /// A text that both outputs have.
    says: &'static str,
    /// A text that neither output may have.
    never: &'static str,
}

fn row(name: &'static str, env: impl Into<String>, says: &'static str) -> Row {
    Row { name, env: env.into(), code: 64, says, never: "hunter" }
}

fn rows() -> Vec<Row> {
    vec![
        Row {
            never: HEX,
            ..row(
                "a space in the key's line",
                format!("# mine\nAGENT_PRIVATE_KEY={HEX}= x\n"),
                ".env: its line 2 (AGENT_PRIVATE_KEY) can't be used: its value has a space",
            )
        },
        row(
            "a space in the token's line",
            "PINATA_JWT=c2Vjhunter= oops",
            ".env: its line 1 (PINATA_JWT) can't be used: its value has a space",
        ),
        row(
            "a secret where a name belongs",
            "A=1\nhunter2= hunter 3\nhunter4",
            ".env: its line 3 can't be used: it is neither NAME=value nor a # comment",
        ),
        row(
            "a list that is a variable of a shell",
            "JOB_ALLOWED_REQUESTERS=$BOSS",
            ".env: its line 1 (JOB_ALLOWED_REQUESTERS) can't be used: nothing is put in place of a $",
        ),
        row(
            "a list of nobody",
            "JOB_ALLOWED_REQUESTERS=",
            "JOB_ALLOWED_REQUESTERS: its list names nobody",
        ),
        row(
            "a proxy of another kind",
            "PINATA_JWT=x\nALL_PROXY=socks5://u:hunter2@127.0.0.1:1080",
            "ALL_PROXY: it names a SOCKS proxy, and this program speaks to HTTP proxies only",
        ),
        row(
            "a proxy that is none, in lower case",
            "PINATA_JWT=x\nhttps_proxy=ftp://hunter2",
            "HTTPS_PROXY: it is no URL of an HTTP proxy",
        ),
        row("registries of nobody", "JOB_REGISTRIES=''", "JOB_REGISTRIES: its list is empty"),
        row(
            "a folder in a variable of a shell",
            "DATA_DIR=\"$HOME/x\"",
            ".env: its line 1 (DATA_DIR) can't be used",
        ),
        // The mark is not part of the first name.
        row("a byte order mark", "\u{feff}CHAIN_ID=x\n", "CHAIN_ID: \"x\" is not a whole number"),
    ]
}

#[test]
fn what_is_wrong_with_a_file_of_settings_is_told_and_no_value_is() {
    for Row { name, env, code, says, never } in rows() {
        let program = Program::with(&[]);
        program.write(".env", &env);
        // `Program` sets it, and the environment has precedence over the file.
        let command = |args: &[&str]| {
            let mut command = program.command(args);
            let output = command.env_remove("DATA_DIR").output().expect("it starts");
            let told = [output.stdout, output.stderr].concat();
            (output.status.code(), String::from_utf8(told).expect("UTF-8"))
        };
        let (ended, ran) = command(&["run"]);
        let (_, checked) = command(&["doctor"]);
        assert_eq!(ended, Some(code), "{name}: {ran}");
        for told in [ran, checked] {
            assert!(told.contains(says), "{name}: {told}");
            assert!(!told.contains(never), "{name}: {told}");
        }
    }
}

/// Usable `.env` files, and `doctor`'s advice.
#[test]
fn what_is_unwise_in_a_file_of_settings_is_told() {
    let twice = format!("JOB_ALLOWED_REQUESTERS={REQUESTER}\nLOG_LEVEL=info\nLOG_LEVEL=debug\n");
    for (name, env, says) in [
        (
            "a setting that stands twice",
            twice.as_str(),
            "LOG_LEVEL stands twice in .env, and line 2",
        ),
        (
            "a setting that is mistyped",
            "JOB_ALOWED_REQUESTERS=0x1\n",
            "line 1 of .env sets nothing, its name is no setting's: is JOB_ALLOWED_REQUESTERS meant?",
        ),
    ] {
        let keys = [("PINATA_JWT", "x"), ("AGENT_PRIVATE_KEY", HEX), ("DOCKER_HOST", "unix:///x")];
        let mut program = Program::with(&keys);
        program.set("OPBNB_RPC_URL", "http://127.0.0.1:1");
        program.set("REPUTATION_CONTRACT_ADDRESS", REQUESTER);
        program.set("NATS_URL", "nats://127.0.0.1:1");
        program.set("IPFS_GATEWAYS", "http://127.0.0.1:1");
        program.set("PINATA_API_URL", "http://127.0.0.1:1");
        program.write(".env", env);
        let output = program.command(&["doctor"]).output().expect("it starts");
        let told = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(told.contains(says), "{name}: {told}");
    }
}

/// Files with a secret and a byte order mark, as an editor on Windows saves them.
#[test]
fn a_marked_file_is_read_as_one_without_the_mark() {
    let program = Program::with(&[]);
    program.write("phrase", "\u{feff}correct horse\r\n");
    let made = program.run(&["key", "new", "--keystore", "k.json", "--passphrase-file", "phrase"]);
    let address = made.stdout().split_whitespace().next().expect("its address").to_owned();
    let text = std::fs::read_to_string(program.path("k.json")).expect("the keystore");
    program.write("k.json", &format!("\u{feff}{text}"));
    program.write("plain", "correct horse\n");
    let mut program = program;
    for (name, value) in [("AGENT_KEYSTORE", "k.json"), ("AGENT_KEYSTORE_PASSPHRASE_FILE", "plain")]
    {
        let value = program.path(value);
        program.set(name, &value);
    }
    program.write(".env", "\u{feff}LOG_LEVEL=info\n");
    let doctor = program.run(&["doctor"]).stdout();
    assert!(doctor.contains(&format!("ok    key: {address} from ")), "{doctor}");
}

/// `doctor`'s check of a service, with an HTTP proxy in the environment at which nothing listens.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_named_where_it_is_asked_and_never_asked_for_this_machine() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::start(dir.path()).await;
    for (name, proxy, url, begins, says) in [
        ("this machine", "HTTP_PROXY", store.url.as_str(), "ok", ""),
        (
            "elsewhere",
            "HTTP_PROXY",
            "http://192.0.2.7:5080",
            "fail",
            "(through the proxy http://127.0.0.1:1)",
        ),
        ("elsewhere by TLS", "https_proxy", "https://192.0.2.7", "fail", "(through the proxy http"),
    ] {
        let mut program = Program::with(&[("PINATA_JWT", "hunter2"), ("PINATA_API_URL", url)]);
        program.set(proxy, "http://u:hunter3@127.0.0.1:1");
        let told = program.run(&["doctor"]).stdout();
        let line = told.lines().find(|line| line.contains("  pinning service: "));
        let line = line.expect("a line about it");
        assert!(line.starts_with(begins) && line.contains(says), "{name}: {line}");
        assert!(!told.contains("hunter"), "{told}");
    }
}

/// `doctor`'s checks of gateways and endpoints, with such a proxy.
#[tokio::test(flavor = "multi_thread")]
async fn gateways_and_endpoints_are_asked_through_a_proxy_like_the_pinning_service() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::start(dir.path()).await;
    let anvil = Anvil::start();
    let contract = anvil.deploy().await.to_string();
    let through = "(through the proxy http://127.0.0.1:1)";
    for (gateway, endpoint, begins, says) in [
        (store.url.as_str(), anvil.rpc_url.as_str(), "ok", ""),
        ("http://192.0.2.7:5080", "http://192.0.2.7:8545", "fail", through),
    ] {
        let program = Program::with(&[
            ("PINATA_JWT", "x"),
            ("AGENT_PRIVATE_KEY", Anvil::key_hex(1)),
            ("REPUTATION_CONTRACT_ADDRESS", &contract),
            ("IPFS_GATEWAYS", gateway),
            ("OPBNB_RPC_URL", endpoint),
            ("GPU_MODE", "none"),
            ("HTTP_PROXY", "http://u:hunter3@127.0.0.1:1"),
        ]);
        let told = program.run(&["doctor"]).stdout();
        for name in ["  gateways: ", "  chain: "] {
            let line = told.lines().find(|line| line.contains(name));
            let line = line.unwrap_or_else(|| panic!("{told}"));
            assert!(line.starts_with(begins) && line.contains(says), "{line}");
            assert!(!line.contains("hunter"), "{line}");
        }
    }
}

#[test]
fn utf_16_is_told_by_its_name_wherever_it_can_come_from() {
    let wide: Vec<u8> = "\u{feff}-----BEGIN".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for setting in
        ["NATS_CREDS", "NATS_NKEY_FILE", "NATS_TOKEN_FILE", "NATS_TLS_CA", "AGENT_KEYSTORE"]
    {
        let mut program = Program::with(&[("JOB_AUTH", "open")]);
        let phrase = program.write("phrase", "correct horse");
        program.set("AGENT_KEYSTORE_PASSPHRASE_FILE", &phrase);
        let file = program.write("file", "");
        std::fs::write(&file, &wide).expect("the file");
        program.set(setting, &file);
        let told = program.run(&["doctor"]).stdout();
        assert!(told.contains("it is UTF-16 text: save it as UTF-8"), "{setting}: {told}");
    }
    let program = Program::with(&[]);
    let file = program.write("receipt", "\u{feff}{}");
    let marked = program.run(&["verify", "receipt"]).both();
    std::fs::write(&file, "{}").expect("the file");
    assert_eq!(marked, program.run(&["verify", "receipt"]).both());
    std::fs::write(&file, &wide).expect("the file");
    let told = program.run(&["verify", "receipt"]).both();
    assert!(told.contains("receipt can't be read: it is UTF-16 text"), "{told}");
}

/// Cards as a driver reports them, and `doctor`'s check of them.
#[test]
fn cards_without_memory_of_their_own_are_kept_and_lost_ones_are_told() {
    let driver = "driver 580.1\ncuda 13000\n";
    for (name, cards, grade, says) in [
        (
            "a chip with the host's memory",
            "unified\ngpu GPU-1 0 0 NVIDIA GB10\n",
            "ok",
            "(the host's)",
        ),
        (
            "one of two lost",
            "gpu GPU-1 85899345920 0 NVIDIA H100\ngpu GPU-2 85899345920 15 NVIDIA H100\n",
            "warn",
            "GPU 1 is left out: ",
        ),
        (
            "the only one lost",
            "gpu GPU-2 85899345920 15 NVIDIA H100\n",
            "fail",
            "GPU 0 is left out: ",
        ),
    ] {
        let library = FakeNvml::build(&format!("{driver}{cards}"));
        let path = library.library();
        let program = Program::with(&[("NVML_LIB", path.to_str().expect("a path in UTF-8"))]);
        let report: Value =
            serde_json::from_str(&program.run(&["doctor", "--json"]).stdout()).expect("one object");
        let checks = report["checks"].as_array().expect("checks");
        let check = checks.iter().find(|check| check["name"] == "gpu").expect("the cards'");
        assert_eq!(check["status"], grade, "{name}: {check}");
        assert!(
            check["detail"].as_str().is_some_and(|text| text.contains(says)),
            "{name}: {check}"
        );
    }
}
