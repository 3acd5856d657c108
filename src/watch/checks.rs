//! The checks of the original Linux agent: from what was found on the machine to UP or DOWN with its reason code.
//!
//! Must hold: the settings have the original's names and the reasons its words, so that whoever reads its `meta`
//! reads ours; what could not be found out is neither UP nor DOWN. Pure: [`crate::host::process`] gathers the facts.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::pattern::Pattern;
use crate::usage::Unknown;

/// The command lines of the watched program where `ALLOW_REGEX` is not set: the launchers of today and of old, and
/// the daemon of its network.
const ALLOW: &str = r"(rgym_exp|code_gen_exp)\.runner\.swarm_launcher|hivemind_cli/p2pd|(^|[/ ])rl-swarm( |$)|python[^ ]* .*rgym_exp";

/// Command lines that only start the program, where `DENY_REGEX` is not set.
const DENY: &str = r"run_rl_swarm\.sh|while true|sleep 60";

/// The daemon of the program's network.
const P2PD: &str = "hivemind_cli/p2pd";

/// Longest name of a session, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// The longest age that a log may be allowed, in seconds: a week.
const AGE_MAX_S: u64 = 7 * 86_400;

/// What one fact is, or why it isn't known.
pub type Fact<T> = Result<T, Unknown>;

/// Where the program's network daemon has to run (`REQUIRE_P2PD`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum P2pd {
    /// Nowhere (`false`).
    No,
    /// Anywhere on this machine (`any`).
    Any,
    /// In the session of screen (`screen`).
    Screen,
}

/// What is checked.
#[derive(Debug, Clone)]
pub struct Checks {
    /// The session of screen that the program runs in (`SCREEN_NAME`).
    pub screen: String,
    /// The program's command lines (`ALLOW_REGEX`).
    pub allow: Pattern,
    /// Command lines that don't count as the program's (`DENY_REGEX`).
    pub deny: Pattern,
    /// Whether the program may run outside of the session (`PROC_FALLBACK_WITHOUT_SCREEN`).
    pub may_be_elsewhere: bool,
    /// The command lines of its network daemon.
    pub daemon: Pattern,
    /// Where that has to run (`REQUIRE_P2PD`).
    pub p2pd: P2pd,
    /// The port on this machine that has to be open (`CHECK_PORT`, `PORT`).
    pub port: Option<u16>,
    /// The file that has to change, and how old its last change may be (`LOG_FILE`, `LOG_MAX_AGE`).
    pub log: Option<(PathBuf, Duration)>,
}

impl Checks {
    /// Reads the settings, with the original's defaults. The error has each setting that is wrong, and why.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<(&'static str, String)>> {
        let mut wrong = Vec::new();
        let get = |name: &str| get(name).map(|it| it.trim().to_owned()).filter(|it| !it.is_empty());
        let mut pattern = |name: &'static str, default: &str| {
            let written = get(name);
            let pattern = Pattern::new(written.as_deref().unwrap_or(default));
            pattern.map_err(|why| wrong.push((name, why.to_string())))
        };
        let (allow, deny) = (pattern("ALLOW_REGEX", ALLOW), pattern("DENY_REGEX", DENY));
        let daemon =
            Pattern::new(P2PD).map_err(|why| wrong.push(("REQUIRE_P2PD", why.to_string())));
        let screen = get("SCREEN_NAME").unwrap_or_else(|| "gensyn".to_owned());
        if screen.len() > NAME_BYTES_MAX || screen.contains(['/', '\0']) {
            wrong.push(("SCREEN_NAME", "it can't be the name of a session".to_owned()));
        }
        let mut flag = |name: &'static str, default: bool| match get(name).as_deref() {
            None => default,
            Some("true" | "1" | "yes") => true,
            Some("false" | "0" | "no") => false,
            Some(_) => {
                wrong.push((name, "it is neither true nor false".to_owned()));
                default
            }
        };
        let (check_port, may_be_elsewhere) =
            (flag("CHECK_PORT", true), flag("PROC_FALLBACK_WITHOUT_SCREEN", true));
        let mut number = |name: &'static str, default: u64, most: u64| match get(name) {
            None => default,
            Some(text) => {
                text.parse().ok().filter(|it| (1..=most).contains(it)).unwrap_or_else(|| {
                    wrong.push((name, format!("it is no whole number from 1 to {most}")));
                    default
                })
            }
        };
        let port = u16::try_from(number("PORT", 3000, u64::from(u16::MAX))).unwrap_or(u16::MAX);
        let age = Duration::from_secs(number("LOG_MAX_AGE", 300, AGE_MAX_S));
        let p2pd = match get("REQUIRE_P2PD").as_deref() {
            None | Some("false") => P2pd::No,
            Some("any" | "true") => P2pd::Any,
            Some("screen") => P2pd::Screen,
            Some(_) => {
                wrong.push(("REQUIRE_P2PD", "it is none of false, any and screen".to_owned()));
                P2pd::No
            }
        };
        match (allow, deny, daemon) {
            (Ok(allow), Ok(deny), Ok(daemon)) if wrong.is_empty() => Ok(Self {
                screen,
                allow,
                deny,
                daemon,
                may_be_elsewhere,
                p2pd,
                port: check_port.then_some(port),
                log: get("LOG_FILE").map(|path| (PathBuf::from(path), age)),
            }),
            _ => Err(wrong),
        }
    }
}

/// What was found on the machine at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Whether the session of screen is there.
    pub session: Fact<bool>,
    /// Whether the program runs in it.
    pub in_session: Fact<bool>,
    /// Whether the program runs anywhere.
    pub anywhere: Fact<bool>,
    /// Whether its network daemon runs in the session.
    pub p2pd_in_session: Fact<bool>,
    /// Whether its network daemon runs anywhere.
    pub p2pd_anywhere: Fact<bool>,
    /// Whether the port is open.
    pub port: Fact<bool>,
    /// How long ago the log changed; `None` if there is no such file.
    pub log_age: Fact<Option<Duration>>,
}

/// Why the program is down, in the original's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The session is there, and nothing of the program in it.
    EmptySession,
    /// The session has the program, but not its network daemon.
    NoP2pdInSession,
    /// There is neither the session nor the program.
    Nothing,
    /// The program runs without its network daemon.
    NoP2pd,
    /// The port is closed.
    PortClosed(u16),
    /// The log did not change for too long, or is not there.
    StaleLog,
}

impl Reason {
    /// What its owner can do.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::EmptySession => "The program in the session has ended: start it there again.",
            Self::NoP2pdInSession | Self::NoP2pd => {
                "The network daemon (p2pd) has ended: stop the program, remove stale p2pd processes, start it again."
            }
            Self::Nothing => "Neither the session nor the program runs: start it.",
            Self::PortClosed(_) => {
                "Look whether the login page is still needed; if not, set CHECK_PORT=false."
            }
            Self::StaleLog => {
                "The program runs but says nothing: look at its log, and at LOG_MAX_AGE (an idle node may be silent for 15 minutes)."
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptySession => f.write_str("empty_screen_no_runtime"),
            Self::NoP2pdInSession => f.write_str("no_p2pd_in_screen"),
            Self::Nothing => f.write_str("no_screen_no_proc"),
            Self::NoP2pd => f.write_str("no_p2pd"),
            Self::PortClosed(port) => write!(f, "port_closed_{port}"),
            Self::StaleLog => f.write_str("stale_log"),
        }
    }
}

/// What the checks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// All that is checked is well.
    Up,
    /// Something is not.
    Down(Reason),
    /// Nothing is known to be wrong, but this could not be found out.
    Unknown {
        /// What, as a clause.
        what: &'static str,
        /// Why not.
        why: Unknown,
    },
}

impl Answer {
    /// The original's word; `None` if neither is known.
    pub const fn status(self) -> Option<&'static str> {
        match self {
            Self::Up => Some("UP"),
            Self::Down(_) => Some("DOWN"),
            Self::Unknown { .. } => None,
        }
    }
}

/// Judges the facts in the original's order: the first thing that is wrong is the reason.
pub fn judge(checks: &Checks, facts: &Facts) -> Answer {
    let mut unknown = None;
    let steps =
        [program(checks, facts), p2pd(checks, facts), port(checks, facts), log(checks, facts)];
    for step in steps {
        match step {
            Answer::Up => {}
            Answer::Down(reason) => return Answer::Down(reason),
            step @ Answer::Unknown { .. } => unknown = unknown.or(Some(step)),
        }
    }
    unknown.unwrap_or(Answer::Up)
}

/// A check that wants this to be so.
fn wants(fact: Fact<bool>, what: &'static str, reason: Reason) -> Answer {
    match fact {
        Ok(true) => Answer::Up,
        Ok(false) => Answer::Down(reason),
        Err(why) => Answer::Unknown { what, why },
    }
}

fn program(checks: &Checks, facts: &Facts) -> Answer {
    match facts.session {
        Ok(true) => {
            wants(facts.in_session, "whether the program runs in the session", Reason::EmptySession)
        }
        Ok(false) if !checks.may_be_elsewhere => Answer::Down(Reason::Nothing),
        Ok(false) => wants(facts.anywhere, "whether the program runs", Reason::Nothing),
        // Without the sessions in sight, a program that runs is enough, and one that doesn't is down in any case.
        Err(why) => match facts.anywhere {
            Ok(true) if checks.may_be_elsewhere => Answer::Up,
            Ok(false) => Answer::Down(Reason::Nothing),
            _ => Answer::Unknown { what: "whether the session is there", why },
        },
    }
}

fn p2pd(checks: &Checks, facts: &Facts) -> Answer {
    let what = "whether the network daemon runs";
    let reason = if facts.session == Ok(true) { Reason::NoP2pdInSession } else { Reason::NoP2pd };
    match checks.p2pd {
        P2pd::No => Answer::Up,
        P2pd::Any => wants(facts.p2pd_anywhere, what, reason),
        P2pd::Screen if facts.session == Ok(false) => Answer::Down(Reason::NoP2pd),
        P2pd::Screen => wants(facts.p2pd_in_session, what, reason),
    }
}

fn port(checks: &Checks, facts: &Facts) -> Answer {
    let Some(port) = checks.port else { return Answer::Up };
    wants(facts.port, "whether the port is open", Reason::PortClosed(port))
}

fn log(checks: &Checks, facts: &Facts) -> Answer {
    let Some((_, most)) = &checks.log else { return Answer::Up };
    let is_fresh = facts.log_age.map(|age| age.is_some_and(|age| age <= *most));
    wants(is_fresh, "when the log changed", Reason::StaleLog)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Facts = Facts {
        session: Ok(true),
        in_session: Ok(true),
        anywhere: Ok(true),
        p2pd_in_session: Ok(true),
        p2pd_anywhere: Ok(true),
        port: Ok(true),
        log_age: Ok(Some(Duration::from_mins(5))),
    };

    fn checks(set: &[(&str, &str)]) -> Checks {
        read(set).unwrap()
    }

    fn read(set: &[(&str, &str)]) -> Result<Checks, Vec<(&'static str, String)>> {
        Checks::read(|name| {
            set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn code(checks: &Checks, facts: &Facts) -> String {
        match judge(checks, facts) {
            Answer::Up => "UP".to_owned(),
            Answer::Down(reason) => reason.to_string(),
            Answer::Unknown { what, .. } => what.to_owned(),
        }
    }

    #[test]
    fn the_first_thing_that_is_wrong_is_told_by_the_originals_code() {
        let all = checks(&[("REQUIRE_P2PD", "screen"), ("LOG_FILE", "/x.log")]);
        assert_eq!(code(&all, &WELL), "UP");
        let stale = Facts { log_age: Ok(Some(Duration::from_secs(301))), ..WELL };
        let closed = Facts { port: Ok(false), ..stale };
        let no_p2pd = Facts { p2pd_in_session: Ok(false), ..closed };
        let empty = Facts { in_session: Ok(false), ..no_p2pd };
        let gone = Facts { session: Ok(false), anywhere: Ok(false), ..empty };
        for (facts, wanted) in [
            (stale, "stale_log"),
            (Facts { log_age: Ok(None), ..WELL }, "stale_log"),
            (closed, "port_closed_3000"),
            (no_p2pd, "no_p2pd_in_screen"),
            (empty, "empty_screen_no_runtime"),
            (gone, "no_screen_no_proc"),
            (Facts { session: Ok(false), ..WELL }, "no_p2pd"),
        ] {
            assert_eq!(code(&all, &facts), wanted);
            assert_eq!(judge(&all, &facts).status(), Some("DOWN"));
        }
    }

    #[test]
    fn a_program_outside_of_the_session_counts_unless_its_owner_says_no() {
        let outside = Facts { session: Ok(false), in_session: Ok(false), ..WELL };
        assert_eq!(code(&checks(&[]), &outside), "UP");
        let strict = checks(&[("PROC_FALLBACK_WITHOUT_SCREEN", "false")]);
        assert_eq!(code(&strict, &outside), "no_screen_no_proc");
    }

    #[test]
    fn what_is_not_checked_does_not_count() {
        let none = checks(&[("CHECK_PORT", "false")]);
        let facts = Facts {
            port: Ok(false),
            log_age: Ok(None),
            p2pd_in_session: Ok(false),
            p2pd_anywhere: Ok(false),
            ..WELL
        };
        assert_eq!(code(&none, &facts), "UP");
    }

    #[test]
    fn what_could_not_be_found_out_is_neither_up_nor_down_and_hides_nothing_that_is_known() {
        let all = checks(&[("LOG_FILE", "/x.log"), ("REQUIRE_P2PD", "any")]);
        let blind = Err(Unknown::Denied);
        for (facts, wanted) in [
            (Facts { port: blind, ..WELL }, "whether the port is open"),
            (Facts { in_session: blind, ..WELL }, "whether the program runs in the session"),
            (Facts { p2pd_anywhere: blind, ..WELL }, "whether the network daemon runs"),
            (Facts { log_age: Err(Unknown::Denied), ..WELL }, "when the log changed"),
            (Facts { in_session: blind, port: Ok(false), ..WELL }, "port_closed_3000"),
            (Facts { session: blind, ..WELL }, "UP"),
            (Facts { session: blind, anywhere: Ok(false), ..WELL }, "no_screen_no_proc"),
            (Facts { session: blind, anywhere: blind, ..WELL }, "whether the session is there"),
        ] {
            assert_eq!(code(&all, &facts), wanted, "{facts:?}");
        }
    }

    #[test]
    fn the_settings_have_the_originals_defaults_and_each_wrong_one_is_told() {
        let plain = checks(&[("LOG_FILE", ""), ("SCREEN_NAME", " ")]);
        assert_eq!(
            (plain.screen.as_str(), plain.port, plain.log.is_none()),
            ("gensyn", Some(3000), true)
        );
        let line = "/usr/bin/python3 -m code_gen_exp.runner.swarm_launcher --config-path x";
        assert!(plain.allow.is_match(line) && !plain.deny.is_match(line));
        assert!(plain.deny.is_match("bash ./run_rl_swarm.sh"));
        let wrong = [
            ("ALLOW_REGEX", "(rl-swarm"),
            ("DENY_REGEX", "((a{1000}){1000}){1000}"),
            ("CHECK_PORT", "maybe"),
            ("PORT", "0"),
            ("LOG_MAX_AGE", "soon"),
            ("REQUIRE_P2PD", "never"),
            ("SCREEN_NAME", "../x"),
        ];
        let told = read(&wrong).unwrap_err();
        for (name, _) in wrong {
            let (_, why) = told.iter().find(|(told, _)| *told == name).expect(name);
            assert!(why.len() < 220 && !why.contains('\n'), "{name}: {why}");
        }
        assert_eq!(told.len(), wrong.len());
    }
}
