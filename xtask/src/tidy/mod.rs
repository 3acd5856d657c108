//! Rules on the text of this repository that no compiler enforces: which module may import which, how
//! long a file may be, what a test must not do. Each finding names the file, the line and the rule.

mod circles;
mod environment;
mod floors;
mod source;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use source::Source;

/// Folders without files of ours, or without files written by hand.
const SKIPPED: &[&str] =
    &["target", "node_modules", ".git", ".tools", ".demo", "out", "cache", "snapshots", "lib"];

/// The extensions of the files that the rules on text read.
const TEXT_EXTENSIONS: &[&str] =
    &["rs", "md", "toml", "sh", "sol", "py", "sql", "yml", "yaml", "json", "mjs", "example", ""];

/// One violation of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// All findings in the repository at `root`.
pub(crate) fn findings(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let mut found = Vec::new();
    let mut config = Vec::new();
    let mut imports = circles::Imports::default();
    let modules = floors::top_modules(root)?;
    for path in files(root)? {
        let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).with_context(|| name.clone())?;
        text::foreign_paths(&name, &text, &mut found);
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = Source::parse(&name, &text);
        floors::check(&source, &modules, &mut found);
        text::check(&source, &mut found);
        imports.add(&source);
        if name.starts_with("src/config/") {
            config.push(source);
        }
    }
    let example = std::fs::read_to_string(root.join(".env.example")).unwrap_or_default();
    imports.check(&mut found);
    environment::check(&config, &example, &mut found);
    Ok(found)
}

/// The text files under `root`, sorted by path.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut folders, mut files) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder);
        for entry in entries.with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name().to_string_lossy().into_owned();
            let extension = path.extension().map(|e| e.to_string_lossy().into_owned());
            let extension = extension.unwrap_or_default();
            if kind.is_dir() && !is_skipped(&folder, &name) {
                folders.push(path);
            } else if kind.is_file() && TEXT_EXTENSIONS.contains(&extension.as_str()) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// `scripts/lib` is ours, `contracts/lib` is not.
fn is_skipped(folder: &Path, name: &str) -> bool {
    SKIPPED.contains(&name) && !(name == "lib" && folder.ends_with("scripts"))
}
