//! The real source of variables: the process's environment, then `.env` in the working directory.
//!
//! Must hold: a problem with the file is described by the line's number and, if the name is a setting's, that
//! name; nothing else of the file is quoted, since any of it may be a secret.

mod lines;

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::env::{Lookup, Problem, is_private};
use super::secrecy::is_secret;
use super::terminal::Terminal;
use crate::text::utf8;
use lines::{Line, Reference, Value};

/// The file's name; only the working directory is searched.
const FILE: &str = ".env";

/// Contains every setting (a test compares), so a name found there is not a secret.
const EXAMPLE: &str = include_str!("../../../.env.example");

/// Settings whose value is a secret or may contain one: a `$` in it is taken as a part of it.
pub(super) const SECRETS: [&str; 16] = [
    "ADMIN_TOKEN",
    "AGENT_PRIVATE_KEY",
    "ALERT_WEBHOOK_URL",
    "EVENTS_REDIS_URL",
    "HUB_PING_URL",
    "IPFS_GATEWAY_TOKEN",
    "NATS_URL",
    "NTFY_URL",
    "OPBNB_RPC_URL",
    "PINATA_JWT",
    "SHARED_SECRET",
    "SIDECAR_HUB_SECRET",
    "SIDECAR_PING_URL",
    "SMTP_URL",
    "SOLLOL_REDIS_URL",
    "TELEGRAM_BOT_TOKEN",
];

/// Largest file that is read; all settings together take a few kilobytes.
const BYTES_MAX: u64 = 1 << 20;

/// Most problems that are reported: a file that is not a `.env` has one in every line.
const PROBLEMS_MAX: usize = 20;

/// Most letters by which a name may differ from a setting's and still be taken for a typo of it.
const TYPOS_MAX: usize = 2;

/// The process's environment, with `.env` for what it does not set. The environment itself is never written.
#[derive(Debug, Default)]
pub struct Environment {
    file: HashMap<String, Zeroizing<String>>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Environment {
    /// Reads `.env`, if there is one.
    pub fn read() -> Self {
        Self::read_from(Path::new(FILE))
    }

    /// Reads the file at this path.
    pub(super) fn read_from(path: &Path) -> Self {
        let mut environment = Self::default();
        // Opening a pipe would wait for a writer; reading a device may never end.
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            environment.problem("it is no regular file", "OPBNB_RPC_URL=https://…");
            return environment;
        }
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return environment,
            Err(_) => {
                environment.problem("it is there but can't be read", "chmod 600 .env");
                return environment;
            }
        };
        // Allocated in full from the start: a vector that grows leaves unwiped copies behind.
        let size = file.metadata().map_or(0, |metadata| metadata.len().min(BYTES_MAX));
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1));
        match file.take(BYTES_MAX + 1).read_to_end(&mut bytes) {
            Ok(read) if read as u64 > BYTES_MAX => {
                environment.problem("it is larger than 1 MiB", "OPBNB_RPC_URL=https://…");
            }
            Ok(_) => environment.take_text(&bytes),
            Err(_) => environment.problem("it is there but can't be read", "chmod 600 .env"),
        }
        if environment.holds_a_secret()
            && let Ok(metadata) = std::fs::metadata(path)
            && let Err(what) = is_private(path, &metadata)
        {
            environment.warnings.push(what);
        }
        environment
    }

    fn take_text(&mut self, bytes: &[u8]) {
        let text = match utf8(bytes) {
            Ok(text) => text,
            Err(what) => return self.problem(what, "OPBNB_RPC_URL=https://…"),
        };
        let mut numbers = HashMap::new();
        for Line { number, name, value } in lines::parse(text, |name| setting(name).is_some()) {
            let known = name.as_deref().and_then(setting);
            match (name, value) {
                (Some(name), Ok(value)) => {
                    self.heed(number, known, &name, &value);
                    let first = *numbers.entry(name.clone()).or_insert(number);
                    if first == number {
                        self.file.insert(name, value.text);
                    } else if let Some(known) = known {
                        self.warnings.push(format!(
                            "{known} stands twice in .env, and line {first} counts: remove it \
                             there or in line {number}"
                        ));
                    }
                }
                (_, Err(what)) => self.bad_line(number, known, what),
                (None, Ok(_)) => {}
            }
        }
    }

    /// Checks a well-formed line for what its writer perhaps did not mean: a shell variable, a mistyped name.
    fn heed(&mut self, number: usize, known: Option<&str>, name: &str, value: &Value) {
        match known {
            Some(known) => {
                let secret = SECRETS.contains(&known);
                if value.reference == Reference::Whole
                    || (value.reference == Reference::Part && !secret)
                {
                    let what = "nothing is put in place of a $: write the value itself, or put \
                                single quotes around it where the $ is meant";
                    self.bad_line(number, Some(known), what);
                }
            }
            None => {
                if let Some(near) = mistyped(name) {
                    self.warnings.push(format!(
                        "line {number} of .env sets nothing, its name is no setting's: is {near} \
                         meant?"
                    ));
                }
            }
        }
    }

    /// Problems of the file itself.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Warnings about the file itself: what works but is unwise.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether one of its values is itself a secret, and not the name of a file that holds one.
    fn holds_a_secret(&self) -> bool {
        self.file.iter().any(|(name, value)| is_secret(name, value))
    }

    fn bad_line(&mut self, number: usize, known: Option<&str>, what: &str) {
        if self.problems.len() == PROBLEMS_MAX {
            return;
        }
        let of = known.map(|name| format!(" ({name})")).unwrap_or_default();
        let name = known.unwrap_or("NAME");
        self.problem(
            &format!("its line {number}{of} can't be used: {what}"),
            &format!("{name}='a value with spaces or special characters'"),
        );
    }

    fn problem(&mut self, what: &str, example: &str) {
        let (variable, what, example) = (FILE.to_owned(), what.to_owned(), example.to_owned());
        self.problems.push(Problem { variable, what, example });
    }
}

impl Lookup for Environment {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    fn get(&self, name: &str) -> Option<String> {
        match std::env::var(name) {
            Ok(value) => Some(value),
            Err(std::env::VarError::NotPresent) => {
                self.file.get(name).map(|value| value.to_string())
            }
            Err(std::env::VarError::NotUnicode(value)) => {
                Some(value.to_string_lossy().into_owned())
            }
        }
    }

    fn can_ask(&self) -> bool {
        Terminal::open().is_ok()
    }
}

/// The setting of this name, as a constant of this program and so safe to show.
fn setting(name: &str) -> Option<&'static str> {
    settings().find(|setting| *setting == name)
}

/// The names of all settings.
fn settings() -> impl Iterator<Item = &'static str> {
    let lines = EXAMPLE.lines().filter_map(|line| line.trim_start_matches("# ").split_once('='));
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    lines.map(|(name, _)| name).filter(move |name| name.bytes().all(plain))
}

/// The setting that an unknown name is perhaps a typo of.
fn mistyped(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_uppercase();
    // Short names are close to too many that other programs use.
    (name.len() >= 7).then(|| settings().find(|setting| distance(setting, &name) <= TYPOS_MAX))?
}

/// The Levenshtein distance; `usize::MAX` if the lengths alone differ too much.
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > TYPOS_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let put = row[j].min(row[j + 1]) + 1;
            diagonal = std::mem::replace(&mut row[j + 1], put.min(diagonal + usize::from(x != y)));
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Environment {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Environment::read_from(file.path())
    }

    #[test]
    fn a_file_is_read_with_comments_quotes_and_windows_line_ends() {
        let read = read("# comment\r\nLAMDA_T_A=1\r\nexport LAMDA_T_B='x # y'\nLAMDA_T_A=2\n");
        assert_eq!(read.get("LAMDA_T_A").as_deref(), Some("1"));
        assert_eq!(read.get("LAMDA_T_B").as_deref(), Some("x # y"));
        assert_eq!(read.get("LAMDA_T_C"), None);
        assert!(read.problems().is_empty());
    }

    fn told(read: &Environment) -> String {
        let problems = read.problems().iter().map(ToString::to_string);
        problems.chain(read.warnings().iter().cloned()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_line_that_can_not_be_read_is_told_by_its_number_and_setting_and_never_by_its_value() {
        let hex = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";
        for (text, says) in [
            (format!("AGENT_PRIVATE_KEY={hex}= x"), "its line 1 (AGENT_PRIVATE_KEY) can't"),
            ("A=1\nPINATA_JWT=c2VjhunterABC= oops".into(), "its line 2 (PINATA_JWT) can't"),
            ("PINATA_JWT=\"hunter2\nhunter3 hunter4\n".into(), "its line 1 (PINATA_JWT) can't"),
            ("\nhunter2=hunter3 hunter4".into(), "its line 2 can't"),
            ("hunter2".into(), "its line 1 can't"),
        ] {
            let read = read(&text);
            let told = told(&read);
            assert!(told.contains(says), "{told}");
            assert!(!told.contains("hunter") && !told.contains(hex), "{told}");
        }
    }

    #[test]
    fn values_are_literal_and_what_a_shell_would_replace_is_refused_by_name() {
        let env = read("PINATA_JWT=abc$def\nNATS_URL=nats://u:pa$$w0rd@h\n");
        assert_eq!(env.get("PINATA_JWT").as_deref(), Some("abc$def"));
        assert_eq!(env.get("NATS_URL").as_deref(), Some("nats://u:pa$$w0rd@h"));
        assert_eq!(told(&env), "");
        for text in ["JOB_ALLOWED_REQUESTERS=$BOSS", "DATA_DIR=${HOME}/x", "PINATA_JWT=$hunter"] {
            let told = told(&read(text));
            let name = text.split('=').next().unwrap();
            let says = format!("its line 1 ({name}) can't be used: nothing is put in place of a $");
            assert!(told.contains(&says) && !told.contains("hunter"), "{told}");
        }
        assert_eq!(told(&read("NATS_USER='$x'")), "");
    }

    #[test]
    fn a_mark_a_doubled_and_a_mistyped_name_are_seen() {
        let marked = read("\u{feff}PINATA_JWT=1\n");
        assert_eq!((marked.get("PINATA_JWT").as_deref(), &*told(&marked)), (Some("1"), ""));
        let twice = told(&read("A=1\nPINATA_JWT=hunter1\nA=2\n\nPINATA_JWT=hunter2\n"));
        assert!(twice.contains("PINATA_JWT stands twice in .env, and line 2 counts"), "{twice}");
        assert!(twice.contains("in line 5") && !twice.contains("hunter"), "{twice}");
        for name in ["JOB_ALLOWED_REQUESTER", "job_allowed_requesters", "JOB_ALOWED_REQESTERS"] {
            let near = told(&read(&format!("{name}=0x1")));
            assert_eq!(near.matches("is JOB_ALLOWED_REQUESTERS meant?").count(), 1, "{near}");
        }
        assert_eq!(told(&read("NATS_PASSWORD=x\nMINIO_URL=y\nHOME=z")), "");
        let wide: Vec<u8> = "\u{feff}A=1".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), wide).unwrap();
        assert!(told(&Environment::read_from(file.path())).contains("save it as UTF-8"));
    }

    /// No message of ours contains four characters of the secret's alphabet in a row.
    const PIECE: usize = 4;

    proptest::proptest! {
        #[test]
        fn no_piece_of_a_secret_is_told_however_a_file_is_mangled(
            secret in "[Q-Zx-z5-9]{24,64}",
            cuts in proptest::collection::vec((0_usize..400, "[=\\\\'\"$# \t\n{}]{0,3}"), 0..12),
            swallowed in proptest::collection::vec(0_usize..400, 0..6),
        ) {
            let mut text: Vec<char> = format!(
                "# mine\nAGENT_PRIVATE_KEY={secret}\nPINATA_JWT='{secret}'\nNATS_URL=nats://u:{secret}@h\n\
                 export IPFS_GATEWAY_TOKEN=\"{secret}\" # {secret}\n{secret}={secret}\n"
            ).chars().collect();
            for (at, piece) in cuts {
                let at = at.min(text.len());
                text.splice(at..at, piece.chars());
            }
            for at in swallowed {
                if at < text.len() {
                    text.remove(at);
                }
            }
            let told = told(&read(&text.into_iter().collect::<String>()));
            let pieces: Vec<char> = secret.chars().collect();
            for piece in pieces.windows(PIECE) {
                let piece: String = piece.iter().collect();
                proptest::prop_assert!(!told.contains(&piece), "{}", told);
            }
        }
    }

    #[test]
    fn a_file_with_secrets_that_others_can_read_earns_a_warning() {
        use std::os::unix::fs::PermissionsExt;

        for (text, mode, warned) in [
            ("AGENT_PRIVATE_KEY=hunter2\n", 0o644, true),
            ("NATS_URL=nats://u:hunter2@h\n", 0o640, true),
            ("OPBNB_RPC_URL=https://rpc.example/v2/hunter2\n", 0o644, true),
            ("PINATA_API_URL=https://u:hunter2@h\n", 0o644, true),
            ("PINATA_JWT=hunter2\n", 0o600, false),
            ("NATS_URL=nats://h\nAGENT_KEYSTORE_PASSPHRASE_FILE=/x\nPINATA_JWT=\n", 0o644, false),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).unwrap();
            let warnings = Environment::read_from(file.path()).warnings().concat();
            assert_eq!(!warnings.is_empty(), warned, "{text}");
            assert!(
                !warned || warnings.contains(&format!("open to others (mode {mode:04o})")),
                "{warnings}"
            );
            assert!(!warnings.contains("hunter"), "{warnings}");
        }
    }

    #[test]
    fn a_pipe_or_a_folder_in_its_place_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join(".env");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        for path in [pipe.as_path(), dir.path()] {
            let told = told(&Environment::read_from(path));
            assert!(told.contains("no regular file"), "{told}");
        }
    }

    #[test]
    fn no_file_is_no_problem() {
        let nowhere = Environment::read_from(Path::new("/nonexistent/.env"));
        assert!(nowhere.problems().is_empty());
    }
}
