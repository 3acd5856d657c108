//! Settings of the hub. Where the original monitor has a setting, it has the same name here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::env::{Env, Problems, Variable, shown};
use super::hub_file::{HubFile, hub_file};
use super::{hub_links, jobs};
use crate::hub::{Links, Public, Settings};

const SHARED_SECRET: Variable = Variable::new("SHARED_SECRET", "super-long-random-secret");
const DOWN_THRESHOLD_SEC: Variable = Variable::new("DOWN_THRESHOLD_SEC", "180");
const SITE_TITLE: Variable = Variable::new("SITE_TITLE", "Gensyn Nodes");
const ADMIN_TOKEN: Variable = Variable::new("ADMIN_TOKEN", "another-long-random-secret");
const PRUNE_DAYS: Variable = Variable::new("PRUNE_DAYS", "0");
const DB_PATH: Variable = Variable::new("DB_PATH", "/var/lib/lamda-node/hub.db");
const HUB_LISTEN: Variable = Variable::new("HUB_LISTEN", "127.0.0.1:8080");
const HUB_PUBLIC: Variable = Variable::new("HUB_PUBLIC", "full");
const HUB_KEYS: Variable = Variable::new("HUB_KEYS", "chain");
const HUB_RULES: Variable = Variable::new("HUB_RULES", "/etc/lamda-node/hub.toml");
/// What the hub can do without; read by their own parts.
const NATS_URL: Variable = Variable::new("NATS_URL", "nats://localhost:4222");
const OPBNB_RPC_URL: Variable =
    Variable::new("OPBNB_RPC_URL", "https://opbnb-testnet-rpc.bnbchain.org");

/// The database's name in the data folder.
const FILE: &str = "hub.db";

/// A shorter secret can be guessed.
const SECRET_BYTES_MIN: usize = 8;

/// Longest title, in characters.
const TITLE_CHARS_MAX: usize = 80;

/// A week without a beat is no threshold any more.
const THRESHOLD_S: (u64, u64) = (5, 7 * 86_400);

/// A hundred years.
const PRUNE_DAYS_MAX: u64 = 36_500;

/// Reads everything that the hub needs.
pub fn hub(env: &mut Env<'_>) -> Result<(Settings, Links), Problems> {
    let settings = read(env);
    env.finish(settings)
}

/// Reads where the hub's database is, and its rules.
pub fn hub_past(env: &mut Env<'_>) -> Result<(PathBuf, HubFile), Problems> {
    let (db, file) = (db(env), rules(env));
    env.finish(db.zip(file))
}

/// Reads only where the hub's database is.
pub fn hub_db(env: &mut Env<'_>) -> Result<PathBuf, Problems> {
    let db = db(env);
    env.finish(db)
}

pub(super) fn read(env: &mut Env<'_>) -> Option<(Settings, Links)> {
    let listen = listen(env);
    let shared_secret = shared_secret(env);
    let admin_token = admin_token(env);
    let threshold = env.seconds(DOWN_THRESHOLD_SEC, THRESHOLD_S, 180);
    let days = env.number(PRUNE_DAYS, (0, PRUNE_DAYS_MAX), 0);
    let (title, db, file) = (title(env), db(env), rules(env));
    let public = public(env, listen);
    let keys = env.choice(HUB_KEYS, &[("chain", true), ("enrolled", false)]);
    let without = without(env);
    let place = listen.map(|listen| format!("http://{listen}/")).unwrap_or_default();
    let links = hub_links::read(env, &place, file.clone().unwrap_or_default());
    if let (Some(one), Some(Some(other))) = (&shared_secret, &admin_token)
        && one.expose() == other.expose()
    {
        env.problem(ADMIN_TOKEN, "it is the same as SHARED_SECRET, which every node knows");
    }
    let settings = Settings {
        listen: listen?,
        title: title?,
        shared_secret: shared_secret?,
        admin_token: admin_token?,
        down_threshold: threshold?,
        prune: days.map(|days| (days > 0).then(|| Duration::from_secs(days * 86_400)))?,
        db: db?,
        public: public?,
        is_only_here: !env.is_set(HUB_PUBLIC),
        takes_chains_keys: keys?,
        rules: file?.rules,
        without,
    };
    Some((settings, links?))
}

fn listen(env: &mut Env<'_>) -> Option<SocketAddr> {
    let set = env.is_set(HUB_LISTEN);
    let text = match env.text(HUB_LISTEN) {
        None if set => return None,
        text => text.unwrap_or_else(|| HUB_LISTEN.example.to_owned()),
    };
    let parsed = text.parse().map_err(|_| format!("{} is no IP address with a port", shown(&text)));
    env.keep(HUB_LISTEN, parsed)
}

fn shared_secret(env: &mut Env<'_>) -> Option<crate::secret::Secret> {
    if !env.is_set(SHARED_SECRET) {
        env.problem(
            SHARED_SECRET,
            "it is not set: it is what nodes prove with that they are yours",
        );
        return None;
    }
    token(env, SHARED_SECRET)
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn admin_token(env: &mut Env<'_>) -> Option<Option<crate::secret::Secret>> {
    if env.is_set(ADMIN_TOKEN) { token(env, ADMIN_TOKEN).map(Some) } else { Some(None) }
}

/// A secret that stands in a head of a request.
fn token(env: &mut Env<'_>, variable: Variable) -> Option<crate::secret::Secret> {
    let secret = env.secret(variable)?;
    let text = secret.expose();
    let what = if text.len() < SECRET_BYTES_MIN {
        Some(format!("it has fewer than {SECRET_BYTES_MIN} characters, and could be guessed"))
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Some("it has a space or a letter that can't stand in a head of a request".to_owned())
    } else {
        None
    };
    env.keep(variable, what.map_or(Ok(secret), Err))
}

fn title(env: &mut Env<'_>) -> Option<String> {
    let set = env.is_set(SITE_TITLE);
    match env.text(SITE_TITLE) {
        None if set => None,
        None => Some("lamda-node hub".to_owned()),
        Some(title) if title.chars().count() > TITLE_CHARS_MAX => {
            env.problem(SITE_TITLE, format!("it has more than {TITLE_CHARS_MAX} characters"));
            None
        }
        title => title,
    }
}

/// `DB_PATH`, or the hub's file in the data folder.
fn db(env: &mut Env<'_>) -> Option<PathBuf> {
    let set = env.is_set(DB_PATH);
    let dir = jobs::data_dir(env);
    match env.path(DB_PATH) {
        None if set => None,
        None => Some(dir?.join(FILE)),
        path => path,
    }
}

/// On this machine alone everybody may look; elsewhere the owner says so.
fn public(env: &mut Env<'_>, listen: Option<SocketAddr>) -> Option<Public> {
    let set = env.is_set(HUB_PUBLIC);
    let words = [("full", Public::Full), ("status", Public::Status), ("off", Public::Off)];
    let chosen = env.choice(HUB_PUBLIC, &words)?;
    let listen = listen?;
    let is_seen = !listen.ip().is_loopback();
    if is_seen && set && chosen == Public::Full {
        env.warn(format!(
            "HUB_PUBLIC=full and HUB_LISTEN={listen}: whoever reaches it sees the addresses of your machines"
        ));
    }
    Some(if is_seen && !set { Public::Off } else { chosen })
}

fn rules(env: &mut Env<'_>) -> Option<HubFile> {
    let set = env.is_set(HUB_RULES);
    match env.path(HUB_RULES) {
        None if set => None,
        None => Some(HubFile::default()),
        Some(path) => env.keep(HUB_RULES, hub_file(&path)),
    }
}

fn without(env: &mut Env<'_>) -> Vec<&'static str> {
    let mut without = Vec::new();
    if !env.is_set(NATS_URL) {
        without.push("no NATS_URL: nodes are heard by their beats alone");
    }
    if !env.is_set(OPBNB_RPC_URL) {
        without.push("no OPBNB_RPC_URL: the chain is not read");
    }
    without
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn settings(changes: &[(&str, &str)]) -> (Result<Settings, Problems>, Vec<String>) {
        let mut variables: HashMap<String, String> =
            [("SHARED_SECRET", "super-long"), ("DATA_DIR", "/data")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        variables.extend(changes.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        let mut env = Env::new(&variables);
        let settings = hub(&mut env).map(|(settings, _)| settings);
        (settings, env.take_warnings())
    }

    fn told(changes: &[(&str, &str)]) -> String {
        settings(changes).0.map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn the_originals_settings_work_and_the_rest_has_defaults() {
        let (settings, warnings) =
            settings(&[("DOWN_THRESHOLD_SEC", "120"), ("SITE_TITLE", "Mine"), ("PRUNE_DAYS", "7")]);
        let settings = settings.unwrap();
        assert_eq!(settings.down_threshold, Duration::from_mins(2));
        assert_eq!((settings.title.as_str(), settings.db.to_str()), ("Mine", Some("/data/hub.db")));
        assert_eq!(settings.prune, Some(Duration::from_hours(168)));
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
        assert_eq!((settings.public, settings.rules.len()), (Public::Full, 3));
        assert!(settings.admin_token.is_none() && settings.without.len() == 2);
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn a_secret_that_is_missing_or_short_or_everybodys_is_told_and_never_shown() {
        assert!(told(&[("SHARED_SECRET", "")]).contains("SHARED_SECRET: it is not set"));
        let short = told(&[("SHARED_SECRET", "hunter2")]);
        assert!(short.contains("fewer than 8") && !short.contains("hunter2"), "{short}");
        let spaced = told(&[("ADMIN_TOKEN", "hunter2 hunter2")]);
        assert!(spaced.contains("ADMIN_TOKEN: it has a space") && !spaced.contains("hunter2"));
        let same = told(&[("ADMIN_TOKEN", "super-long")]);
        assert!(same.contains("ADMIN_TOKEN: it is the same"), "{same}");
    }

    #[test]
    fn what_others_see_without_a_login_is_nothing_unless_the_owner_says_so() {
        let elsewhere = ("HUB_LISTEN", "0.0.0.0:8080");
        assert_eq!(settings(&[elsewhere]).0.unwrap().public, Public::Off);
        let (open, warnings) = settings(&[elsewhere, ("HUB_PUBLIC", "full")]);
        assert_eq!(open.unwrap().public, Public::Full);
        assert!(warnings[0].contains("sees the addresses"), "{warnings:?}");
        assert_eq!(settings(&[("HUB_PUBLIC", "off")]).0.unwrap().public, Public::Off);
    }

    #[test]
    fn every_wrong_value_is_told_with_its_name() {
        let wrong = [
            ("HUB_LISTEN", "8080"),
            ("HUB_PUBLIC", "some"),
            ("DOWN_THRESHOLD_SEC", "3m"),
            ("PRUNE_DAYS", "-1"),
            ("HUB_KEYS", "all"),
            ("DB_PATH", "$HOME/x"),
            ("HUB_RULES", "/nonexistent/hub.toml"),
        ];
        let told = told(&wrong);
        for (name, _) in wrong {
            assert!(told.contains(&format!("\n  {name}: ")), "{name}: {told}");
        }
    }
}
