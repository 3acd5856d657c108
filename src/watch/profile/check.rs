//! Makes a profile of its tables.
//!
//! Must hold: what a profile names exists, names are unique, and everything is bounded; the first mistake is told
//! with its table and key.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bounds::{is_name, is_text, names, span};
use super::grammars::grammars;
use super::written as file;
use super::{
    Backends, Bootnodes, Chain, ChainKind, Dht, Earning, Idle, Log, Port, Process, Profile,
    Template,
};
use super::{shelf, template};
use crate::fleet::rule::Rule;
use crate::watch::grammar::Grammar;
use crate::watch::meaning::{Cause, Classifier, FIELDS_MAX, Means};
use crate::watch::pattern::Pattern;

/// How long past its time a program counts as silent if the profile doesn't say, in seconds.
const GRACE_S: u64 = 60;

/// Variables that each profile has: the home of the program's owner, and the name under which it is watched.
pub(super) const GIVEN: [&str; 2] = ["home", "name"];

/// A variable that is filled in when a key is looked up.
const ROUND: &str = "round";

/// The profile that these tables are. The error is a clause with the table and the key.
pub(super) fn profile(name: &str, tables: file::Tables) -> Result<Profile, String> {
    is_name(&tables.name).map_err(|what| format!("name: {what}"))?;
    if tables.name != name {
        return Err(format!("name: the file is called {name:?}, its profile {:?}", tables.name));
    }
    is_text(&tables.about).map_err(|what| format!("about: {what}"))?;
    let variables = variables(tables.variables)?;
    let known = Known(&variables);
    let mut all = grammars(shelf::grammars()?, "the standard grammars")?;
    all.extend(grammars(tables.grammar, "")?);
    let logs = logs(tables.log, &known, &all)?;
    let causes = causes(tables.cause)?;
    let means = means(tables.means, &logs, &causes)?;
    let mut classifiers = BTreeMap::new();
    for log in &logs {
        let classifier = Classifier::new(&log.name, &means, &causes).map_err(|err| {
            format!("[[means]], match: all patterns of {:?} together: {err}", log.name)
        })?;
        classifiers.insert(log.name.clone(), Arc::new(classifier));
    }
    Rule::all(tables.rule.clone()).map_err(|err| format!("[[rule]]: {err}"))?;
    Ok(Profile {
        name: tables.name,
        about: tables.about,
        logs,
        grammars: all,
        means,
        classifiers,
        causes,
        process: process(tables.process, &known)?,
        ports: ports(tables.port, &known)?,
        idle: tables.idle.as_ref().map(idle).transpose()?,
        dht: tables.dht.map(|table| dht(table, &known)).transpose()?,
        chain: tables.chain.map(|table| chain(table, &known)).transpose()?,
        earning: tables.earning.as_ref().map(earning).transpose()?,
        backends: backends(tables.backend, &known)?,
        rules: tables.rule,
        variables,
    })
}

/// The variables that templates may name.
struct Known<'a>(&'a BTreeMap<String, String>);

impl Known<'_> {
    /// A template whose variables are all known, or are this one.
    fn template(&self, text: &str, also: &str) -> Result<Template, String> {
        is_text(text)?;
        let template = Template::parse(text)?;
        let is_known =
            |name: &str| self.0.contains_key(name) || GIVEN.contains(&name) || name == also;
        if let Some(name) = template.variables().find(|name| !is_known(name)) {
            return Err(format!("{{{name}}} is none of [variables]"));
        }
        Ok(template)
    }

    fn at(&self, place: &str, key: &str, text: &str) -> Result<Template, String> {
        self.template(text, "").map_err(|what| format!("{place}, {key}: {what}"))
    }

    fn all(
        &self,
        place: &str,
        key: &str,
        texts: &[String],
        max: usize,
    ) -> Result<Vec<Template>, String> {
        if texts.len() > max {
            return Err(format!("{place}, {key}: more than {max}"));
        }
        texts.iter().map(|text| self.at(place, key, text)).collect()
    }
}

fn variables(written: BTreeMap<String, file::Scalar>) -> Result<BTreeMap<String, String>, String> {
    if written.len() > 32 {
        return Err("[variables]: there are more than 32".to_owned());
    }
    let variables: BTreeMap<String, String> =
        written.into_iter().map(|(name, value)| (name, value.text())).collect();
    let known = Known(&variables);
    for (name, value) in &variables {
        let wrong =
            |what: String| format!("[variables], {}: {what}", crate::report::one_line(name, 40));
        if !template::is_name(name) {
            return Err(wrong("a variable is 1 to 32 of a-z0-9_".to_owned()));
        }
        if GIVEN.contains(&name.as_str()) || name == ROUND {
            return Err(wrong("this one is always there: choose another name".to_owned()));
        }
        known.template(value, "").map_err(wrong)?;
    }
    Ok(variables)
}

fn logs(
    written: Vec<file::Log>,
    known: &Known<'_>,
    grammars: &BTreeMap<String, Arc<Grammar>>,
) -> Result<Vec<Log<Template>>, String> {
    names("log", "name", 16, written.iter().map(|it| it.name.as_str()))?;
    let one = |written: file::Log| {
        let place = format!("[[log]] {:?}", written.name);
        let is_open = written.grammar.contains('{');
        if !is_open && !grammars.contains_key(&written.grammar) {
            let there: Vec<&str> = grammars.keys().map(String::as_str).collect();
            let wrong = crate::report::one_line(&written.grammar, 40);
            return Err(format!("{place}, grammar: {wrong:?} is none of {}", there.join(", ")));
        }
        Ok(Log {
            path: known.at(&place, "path", &written.path)?,
            grammar: known.at(&place, "grammar", &written.grammar)?,
            is_optional: written.optional,
            name: written.name,
        })
    };
    written.into_iter().map(one).collect()
}

fn causes(written: Vec<file::Cause>) -> Result<Vec<Cause>, String> {
    names("cause", "id", 64, written.iter().map(|it| it.id.as_str()))?;
    let one = |written: file::Cause| {
        let place = format!("[[cause]] {:?}", written.id);
        is_text(&written.says).map_err(|what| format!("{place}, says: {what}"))?;
        is_text(&written.remedy).map_err(|what| format!("{place}, remedy: {what}"))?;
        let pattern = written.pattern.as_deref().map(Pattern::new).transpose();
        let pattern = pattern.map_err(|err| format!("{place}, match: {err}"))?;
        Ok(Cause { id: written.id, says: written.says, remedy: written.remedy, pattern })
    };
    written.into_iter().map(one).collect()
}

fn means(
    written: Vec<file::Means>,
    logs: &[Log<Template>],
    causes: &[Cause],
) -> Result<Vec<Means>, String> {
    if written.len() > 128 {
        return Err("[[means]]: there are more than 128".to_owned());
    }
    let one = |(number, written): (usize, file::Means)| {
        let wrong = |key: &str, what: String| format!("[[means]] {number}, {key}: {what}");
        let shown = |text: &str| crate::report::one_line(text, 40);
        if let Some(log) =
            written.log.as_ref().filter(|name| !logs.iter().any(|it| it.name == **name))
        {
            return Err(wrong("in", format!("there is no [[log]] {:?}", shown(log))));
        }
        if let Some(cause) =
            written.cause.as_ref().filter(|id| !causes.iter().any(|it| it.id == **id))
        {
            return Err(wrong("cause", format!("there is no [[cause]] {:?}", shown(cause))));
        }
        let pattern =
            Pattern::new(&written.pattern).map_err(|err| wrong("match", err.to_string()))?;
        if pattern.groups().count() > FIELDS_MAX {
            return Err(wrong("match", format!("it has more than {FIELDS_MAX} named groups")));
        }
        let file::Means { log, is: kind, level, cause, .. } = written;
        Ok(Means { log, pattern, kind, level, cause })
    };
    (1..).zip(written).map(one).collect()
}

fn process(written: file::Process, known: &Known<'_>) -> Result<Process<Template>, String> {
    let one = |key: &str, text: Option<String>| {
        text.map(|text| known.at("[process]", key, &text)).transpose()
    };
    Ok(Process {
        command: one("command", written.command)?,
        unit: one("unit", written.unit)?,
        container: one("container", written.container)?,
        screens: known.all("[process]", "screens", &written.screens, 8)?,
    })
}

fn ports(written: Vec<file::Port>, known: &Known<'_>) -> Result<Vec<Port<Template>>, String> {
    names("port", "name", 16, written.iter().map(|it| it.name.as_str()))?;
    let one = |written: file::Port| {
        let place = format!("[[port]] {:?}", written.name);
        let host = written.host.unwrap_or_else(|| "127.0.0.1".to_owned());
        Ok(Port {
            host: known.at(&place, "host", &host)?,
            port: known.at(&place, "port", &written.number.text())?,
            is_optional: written.optional,
            name: written.name,
        })
    };
    written.into_iter().map(one).collect()
}

fn idle(written: &file::Idle) -> Result<Idle, String> {
    Ok(Idle {
        longest: span("[idle]", "longest_s", written.longest_s)?,
        grace: span("[idle]", "grace_s", written.grace_s.unwrap_or(GRACE_S))?,
    })
}

fn dht(written: file::Dht, known: &Known<'_>) -> Result<Dht<Template>, String> {
    let wrong = |what: String| format!("[dht], text_keys: {what}");
    if written.text_keys.len() > 16 || written.byte_keys.len() + written.text_keys.len() == 0 {
        return Err(wrong("one to sixteen keys, of bytes or of text".to_owned()));
    }
    let texts = written.text_keys.iter().map(|text| known.template(text, ROUND).map_err(wrong));
    let bootnodes = match written.bootnodes {
        file::Bootnodes::One(text) if text == "chain" => Bootnodes::Chain,
        file::Bootnodes::One(text) => {
            Bootnodes::These(vec![known.at("[dht]", "bootnodes", &text)?])
        }
        file::Bootnodes::Many(texts) => {
            Bootnodes::These(known.all("[dht]", "bootnodes", &texts, 64)?)
        }
    };
    Ok(Dht {
        text_keys: texts.collect::<Result<_, _>>()?,
        byte_keys: known.all("[dht]", "byte_keys", &written.byte_keys, 16)?,
        bootnodes,
        expiration: span("[dht]", "expiration_s", written.expiration_s)?,
    })
}

fn chain(written: file::Chain, known: &Known<'_>) -> Result<Chain<Template>, String> {
    let file::ChainKind::SwarmCoordinator = written.kind;
    Ok(Chain {
        kind: ChainKind::SwarmCoordinator,
        contract: known.at("[chain]", "contract", &written.contract)?,
        rpc: known.at("[chain]", "rpc", &written.rpc)?,
        chain_id: known.at("[chain]", "chain_id", &written.id.text())?,
    })
}

fn earning(written: &file::Earning) -> Result<Earning, String> {
    Ok(Earning {
        first: span("[earning]", "first_s", written.first_s)?,
        every: span("[earning]", "every_s", written.every_s)?,
    })
}

fn backends(
    written: Vec<file::Backend>,
    known: &Known<'_>,
) -> Result<Vec<Backends<Template>>, String> {
    names("backend", "name", 8, written.iter().map(|it| it.name.as_str()))?;
    let one = |written: file::Backend| {
        let place = format!("[[backend]] {:?}", written.name);
        Ok(Backends {
            hosts: known.at(&place, "hosts", &written.hosts)?,
            coordinator: known.at(&place, "coordinator", &written.coordinator)?,
            name: written.name,
        })
    };
    written.into_iter().map(one).collect()
}
