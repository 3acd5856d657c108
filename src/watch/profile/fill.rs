//! Puts an owner's values in place of a profile's variables.
//!
//! Must hold: a value that nobody asked for is refused; what is empty in the end is not watched.

use std::collections::BTreeMap;

use super::check::GIVEN;
use super::{
    Backends, Bootnodes, Chain, Dht, Filled, FilledBackends, FilledChain, FilledLog, FilledPort,
    InvalidProfile, Log, Port, Process, Profile, Template,
};
use crate::watch::pattern::Pattern;

/// The longest value, in bytes.
const VALUE_MAX: usize = 4_000;

/// The most hosts of one list.
const HOSTS_MAX: usize = 64;

/// How deep defaults name each other.
const DEPTH_MAX: usize = 8;

type Values = BTreeMap<String, String>;

impl Profile {
    /// The profile with these values. Variables without one have their default; `home` and `name` have none.
    pub fn fill(&self, given: &Values) -> Result<Filled, InvalidProfile> {
        self.filled(given).map_err(|what| InvalidProfile::new(&self.name, what))
    }

    fn filled(&self, given: &Values) -> Result<Filled, String> {
        let variables = self.values(given)?;
        let values = &variables;
        let text = |template: &Template| Some(template.fill(values)).filter(|it| !it.is_empty());
        let some = |template: &Option<Template>| template.as_ref().and_then(text);
        let process = Process {
            command: some(&self.process.command),
            unit: some(&self.process.unit),
            container: some(&self.process.container),
            screens: self.process.screens.iter().filter_map(text).collect(),
        };
        let command = process.command.as_deref().map(Pattern::new).transpose();
        let logs = self.logs.iter().filter_map(|log| self.log(log, values).transpose());
        let ports = self.ports.iter().filter_map(|it| port(it, values).transpose());
        let backends = self.backends.iter().map(|it| backends(it, values));
        let chain = self.chain.as_ref().map(|it| chain(it, values)).transpose()?;
        Ok(Filled {
            profile: self.name.clone(),
            logs: logs.collect::<Result<_, _>>()?,
            causes: self.causes.iter().map(|it| (it.id.clone(), it.clone())).collect(),
            process,
            command: command.map_err(|err| format!("[process], command: {err}"))?,
            ports: ports.collect::<Result<_, _>>()?,
            idle: self.idle,
            dht: self.dht.as_ref().map(|it| dht(it, values)),
            chain: chain.flatten(),
            earning: self.earning,
            backends: backends.collect::<Result<_, _>>()?,
            rules: self.rules.clone(),
            variables,
        })
    }

    /// The values of all variables.
    fn values(&self, given: &Values) -> Result<Values, String> {
        let is_known = |name: &str| self.variables.contains_key(name) || GIVEN.contains(&name);
        for (name, value) in given {
            let shown = crate::report::one_line(name, 40);
            if !is_known(name) {
                let there: Vec<&str> = self.variables.keys().map(String::as_str).collect();
                return Err(format!("it has no variable {shown:?}, only {}", there.join(", ")));
            }
            if value.len() > VALUE_MAX || value.chars().any(crate::report::is_obeyed) {
                return Err(format!("{shown}: a value is one line of at most {VALUE_MAX} bytes"));
            }
        }
        let mut values = given.clone();
        let mut open: Vec<(&String, Template)> = Vec::new();
        for (name, default) in self.variables.iter().filter(|(name, _)| !given.contains_key(*name))
        {
            open.push((name, Template::parse(default)?));
        }
        for _ in 0..DEPTH_MAX {
            let (ready, later): (Vec<_>, Vec<_>) = open
                .into_iter()
                .partition(|(_, text)| text.variables().all(|name| values.contains_key(name)));
            open = later;
            for (name, text) in ready {
                let value = text.fill(&values);
                values.insert(name.clone(), value);
            }
        }
        match open.first() {
            None => Ok(values),
            Some((name, text)) => {
                let lacks = text.variables().find(|it| !values.contains_key(*it));
                Err(format!("[variables], {name}: {{{}}} has no value", lacks.unwrap_or_default()))
            }
        }
    }

    fn log(&self, log: &Log<Template>, values: &Values) -> Result<Option<FilledLog>, String> {
        let path = log.path.fill(values);
        if path.is_empty() {
            return Ok(None);
        }
        let place = format!("[[log]] {:?}", log.name);
        let name = log.grammar.fill(values);
        let grammar = self.grammars.get(&name).ok_or_else(|| {
            let there: Vec<&str> = self.grammars.keys().map(String::as_str).collect();
            let name = crate::report::one_line(&name, 40);
            format!("{place}, grammar: {name:?} is none of {}", there.join(", "))
        })?;
        let classifier = self.classifiers.get(&log.name);
        Ok(Some(FilledLog {
            path,
            grammar: grammar.clone(),
            classifier: classifier.ok_or_else(|| format!("{place} has no meanings"))?.clone(),
            is_optional: log.is_optional,
            name: log.name.clone(),
        }))
    }
}

fn port(port: &Port<Template>, values: &Values) -> Result<Option<FilledPort>, String> {
    let number = port.port.fill(values);
    if number.is_empty() {
        return Ok(None);
    }
    let wrong = |key: &str, what: &str| format!("[[port]] {:?}, {key}: {what}", port.name);
    let host = port.host.fill(values);
    if host.is_empty() {
        return Err(wrong("host", "it is empty"));
    }
    let number = number.parse().ok().filter(|number| *number > 0);
    Ok(Some(FilledPort {
        name: port.name.clone(),
        host,
        port: number.ok_or_else(|| wrong("port", "a number from 1 to 65535"))?,
        is_optional: port.is_optional,
    }))
}

fn dht(dht: &Dht<Template>, values: &Values) -> Dht<String> {
    let fill = |texts: &[Template]| texts.iter().map(|text| text.fill(values)).collect();
    Dht {
        byte_keys: fill(&dht.byte_keys),
        text_keys: fill(&dht.text_keys),
        bootnodes: match &dht.bootnodes {
            Bootnodes::Chain => Bootnodes::Chain,
            Bootnodes::These(texts) => {
                let all: Vec<String> = fill(texts);
                Bootnodes::These(all.iter().flat_map(|it| listed(it)).map(str::to_owned).collect())
            }
        },
        expiration: dht.expiration,
    }
}

fn chain(chain: &Chain<Template>, values: &Values) -> Result<Option<FilledChain>, String> {
    let contract = chain.contract.fill(values);
    if contract.is_empty() {
        return Ok(None);
    }
    let digits = contract.strip_prefix("0x").unwrap_or_default();
    if digits.len() != 40 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("[chain], contract: an address is 0x and 40 digits of hex".to_owned());
    }
    let rpc: Vec<String> = listed(&chain.rpc.fill(values)).map(str::to_owned).collect();
    let is_url = |url: &String| url.starts_with("http://") || url.starts_with("https://");
    if rpc.is_empty() || rpc.len() > HOSTS_MAX || !rpc.iter().all(is_url) {
        return Err("[chain], rpc: URLs that begin with http:// or https://".to_owned());
    }
    let chain_id = chain.chain_id.fill(values).parse();
    Ok(Some(FilledChain {
        kind: chain.kind,
        contract,
        rpc,
        chain_id: chain_id.map_err(|_| "[chain], chain_id: a whole number".to_owned())?,
    }))
}

fn backends(
    group: &Backends<Template>,
    values: &Values,
) -> Result<(String, FilledBackends), String> {
    let wrong = |key: &str, what: &str| format!("[[backend]] {:?}, {key}: {what}", group.name);
    let each = "host:port, with commas between them";
    let text = group.hosts.fill(values);
    let hosts: Option<Vec<(String, u16)>> = listed(&text).map(host_and_port).collect();
    let hosts = hosts.ok_or_else(|| wrong("hosts", each))?;
    if hosts.len() > HOSTS_MAX {
        return Err(wrong("hosts", "more than 64"));
    }
    let coordinator = group.coordinator.fill(values);
    let coordinator = match coordinator.trim() {
        "" => None,
        text => Some(host_and_port(text).ok_or_else(|| wrong("coordinator", "host:port"))?),
    };
    Ok((group.name.clone(), FilledBackends { hosts, coordinator }))
}

/// The entries of a list with commas.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|it| !it.is_empty())
}

/// `host:port`, or `[address]:port`.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(address) => address,
        None if host.contains(':') => return None,
        None => host,
    };
    let is_host = !host.is_empty() && host.len() <= 253 && !host.contains(char::is_whitespace);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    is_host.then(|| (host.to_owned(), port))
}
