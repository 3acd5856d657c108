//! The real source of variables: the process's environment over `.env` in the working directory.

use std::collections::HashMap;
use std::path::Path;

use super::env::{Lookup, Problem, is_private};
use super::terminal::Terminal;

/// The file's name; other folders are not searched.
const FILE: &str = ".env";

/// The process's environment with `.env` under it. The environment itself is never written.
#[derive(Debug, Default)]
pub struct Environment {
    file: HashMap<String, String>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Environment {
    /// Reads `.env`, where there is one.
    pub fn read() -> Self {
        Self::read_from(Path::new(FILE))
    }

    fn read_from(path: &Path) -> Self {
        let mut environment = Self::default();
        let lines = match dotenvy::from_path_iter(path) {
            Ok(lines) => lines,
            Err(err) if err.not_found() => return environment,
            Err(_) => {
                environment.problem("it is there but can't be read", "chmod 600 .env");
                return environment;
            }
        };
        for line in lines {
            match line {
                // The first line of a name counts, as it does for the seeds' reader.
                Ok((name, value)) => {
                    environment.file.entry(name).or_insert(value);
                }
                Err(dotenvy::Error::LineParse(line, _)) => environment.bad_line(&line),
                Err(_) => {
                    environment.problem("it is not UTF-8 text", "OPBNB_RPC_URL=https://…");
                    break;
                }
            }
        }
        if environment.holds_a_secret()
            && let Ok(metadata) = std::fs::metadata(path)
            && let Err(what) = is_private(path, &metadata)
        {
            environment.warnings.push(what);
        }
        environment
    }

    /// What is wrong with the file itself.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// What is unwise about the file itself.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether one of its values is a secret itself, and not the name of a file that holds one.
    fn holds_a_secret(&self) -> bool {
        self.file.iter().any(|(name, value)| {
            let named =
                ["_KEY", "_JWT", "_TOKEN", "_PASSWORD"].iter().any(|end| name.ends_with(end));
            !value.is_empty() && (named || (name == "NATS_URL" && value.contains('@')))
        })
    }

    /// Tells which line it is by its name: its value may be a secret.
    fn bad_line(&mut self, line: &str) {
        let name = line.split('=').next().unwrap_or_default().trim();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let fits = plain && (1..=64).contains(&name.len()) && line.contains('=');
        let name = if fits { name } else { "NAME" };
        let what = if fits {
            format!("its line of {name} can't be read")
        } else {
            "it has a line that is neither NAME=value nor a # comment".to_owned()
        };
        self.problem(&what, &format!("{name}='a value with spaces or special characters'"));
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
            Err(std::env::VarError::NotPresent) => self.file.get(name).cloned(),
            Err(std::env::VarError::NotUnicode(value)) => {
                Some(value.to_string_lossy().into_owned())
            }
        }
    }

    fn can_ask(&self) -> bool {
        Terminal::open().is_ok()
    }
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

    #[test]
    fn a_line_that_can_not_be_read_is_told_without_its_value() {
        let read = read("PINATA_JWT=\"hunter2\nhunter3 hunter4\n");
        let told = read.problems().iter().map(ToString::to_string).collect::<String>();
        assert!(told.contains(".env") && !told.contains("hunter"), "{told}");
    }

    #[test]
    fn a_file_with_secrets_that_others_can_read_earns_a_warning() {
        use std::os::unix::fs::PermissionsExt;

        for (text, mode, warned) in [
            ("AGENT_PRIVATE_KEY=hunter2\n", 0o644, true),
            ("NATS_URL=nats://u:hunter2@h\n", 0o640, true),
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
    fn no_file_is_no_problem() {
        let nowhere = Environment::read_from(Path::new("/nonexistent/.env"));
        assert!(nowhere.problems().is_empty());
    }
}
