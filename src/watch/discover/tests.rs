//! Machines as their owners lay them out.

use super::*;

const PEER: &str = "QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ";
const ACCOUNT: &str = "0x00000000000000000000000000000000000000aa";

fn process(pid: u32, command: &str) -> Running {
    let arguments: Vec<String> = command.split(' ').map(str::to_owned).collect();
    Running {
        pid,
        kind: kind_of(&arguments).unwrap_or(Kind::Other),
        arguments,
        folder: None,
        unit: None,
        container: None,
        screen: None,
    }
}

fn launcher(pid: u32) -> Running {
    process(pid, "/x/python3 -m code_gen_exp.runner.swarm_launcher")
}

fn root(path: &str) -> Root {
    Root {
        path: path.to_owned(),
        logs: Some(format!("{path}/logs")),
        log_files: vec![HYDRA_LOG.to_owned(), "yarn.log".to_owned()],
        account: Some(ACCOUNT.to_owned()),
        peer: Some(PEER.to_owned()),
        contract: Some("0xFaD7C5e93f28257429569B854151A1B8DCD404c2".to_owned()),
    }
}

fn parsed(discovery: &Discovery) -> Vec<::toml::Table> {
    let table: ::toml::Table = ::toml::from_str(&discovery.toml).expect(&discovery.toml);
    let all = table.get("watch").and_then(|it| it.as_array()).cloned().unwrap_or_default();
    all.into_iter().map(|it| it.as_table().unwrap().clone()).collect()
}

#[test]
fn a_machine_as_the_originals_readme_lays_it_out_is_configured_without_a_question() {
    let running = Running {
        folder: Some("/home/rig/rl-swarm".to_owned()),
        screen: Some("gensyn".to_owned()),
        unit: Some("session-3.scope".to_owned()),
        ..launcher(10)
    };
    let found = Found {
        processes: vec![running],
        roots: vec![root("/home/rig/rl-swarm")],
        ..Found::default()
    };
    let discovery = discover(&found);
    assert_eq!(discovery.missing, Vec::<String>::new());
    let wanted = "\n[[watch]]\nname = \"rl-swarm\"\nprofile = \"rl-swarm-hydra\"\n\
        peer = \"QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ\"\n\
        # account: 0x00000000000000000000000000000000000000aa\n[watch.set]\n\
        contract = \"0xFaD7C5e93f28257429569B854151A1B8DCD404c2\"\n\
        root = \"/home/rig/rl-swarm\"\nscreen = \"gensyn\"\n";
    assert!(discovery.toml.ends_with(wanted), "{}", discovery.toml);
    assert_eq!(parsed(&discovery).len(), 1);
}

#[test]
fn a_program_in_a_container_is_joined_to_the_folder_that_it_writes_its_logs_to() {
    let id = "ab".repeat(32);
    let inside = Running {
        container: Some(id.clone()),
        unit: Some("docker.service".to_owned()),
        ..launcher(10)
    };
    let container = Container {
        id,
        name: "rl-swarm-gpu-1".to_owned(),
        image: "gensyn/rl-swarm".to_owned(),
        mounts: vec![("/srv/swarm/user/logs".to_owned(), "/home/gensyn/rl_swarm/logs".to_owned())],
    };
    let folder = Root { logs: Some("/srv/swarm/user/logs".to_owned()), ..root("/srv/swarm") };
    let mut found = Found {
        processes: vec![inside],
        containers: vec![container],
        roots: vec![folder],
        ..Found::default()
    };
    let discovery = discover(&found);
    let values = &discovery.proposals[0].values;
    assert_eq!(discovery.proposals.len(), 1);
    assert_eq!(values["container"], "rl-swarm-gpu-1");
    assert_eq!(values["root"], "/srv/swarm/user");
    assert!(!values.contains_key("unit"), "that is the engine's");
    found.processes.clear();
    let stopped = discover(&found);
    assert_eq!(stopped.proposals[0].values["container"], "rl-swarm-gpu-1");
    assert_eq!(stopped.missing, ["/srv/swarm: it does not run now."]);
}

#[test]
fn what_is_missing_is_told_and_not_made_up() {
    let bare = Root { path: "/a".to_owned(), ..Root::default() };
    let found = Found {
        processes: vec![launcher(77)],
        roots: vec![bare],
        could_not: vec!["/home/x can't be read.".to_owned()],
        ..Found::default()
    };
    let discovery = discover(&found);
    let all = discovery.missing.join("\n");
    for part in [
        "/home/x can't be read.",
        "/a: it does not run now",
        "/a: there is no log swarm_launcher.log yet",
        "/a: its peer id is not in the log",
        "/a: no contract",
        "process 77: its folder can't be seen",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
    let names: Vec<&str> = discovery.proposals.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["a", "rl-swarm"]);
    assert_eq!(discovery.proposals[0].values.len(), 1, "the folder alone");
}

#[test]
fn an_old_log_alone_means_the_old_program() {
    let old = Root { log_files: vec![LEGACY_LOG.to_owned()], ..root("/a/rl-swarm") };
    let found = Found { roots: vec![old], ..Found::default() };
    assert_eq!(discover(&found).proposals[0].profile, "rl-swarm-legacy");
}

#[test]
fn a_coordinator_of_llama_names_its_backends_and_backends_alone_ask_for_it() {
    let server = process(
        1,
        "/o/llama-server -m x --host 0.0.0.0 --port 9000 --rpc 10.0.0.1:50052,10.0.0.2:50052",
    );
    let backend = process(2, "rpc-server -p 50053");
    let both = Found { processes: vec![server, backend.clone()], ..Found::default() };
    let discovery = discover(&both);
    assert_eq!(discovery.proposals.len(), 1);
    assert_eq!(discovery.proposals[0].values["coordinator"], "127.0.0.1:9000");
    assert_eq!(discovery.proposals[0].values["backends"], "10.0.0.1:50052,10.0.0.2:50052");
    let alone = discover(&Found { processes: vec![backend], ..Found::default() });
    assert_eq!(alone.proposals[0].values["backends"], "127.0.0.1:50053");
    assert!(alone.missing[0].contains("set coordinator"), "{:?}", alone.missing);
}

#[test]
fn any_other_program_is_watched_by_its_unit_or_its_command_line_once() {
    let nginx = |pid, unit: Option<&str>| Running {
        unit: unit.map(str::to_owned),
        ..process(pid, "nginx: master process")
    };
    let found = Found {
        processes: vec![
            nginx(1, Some("nginx.service")),
            nginx(2, Some("nginx.service")),
            process(3, "/usr/bin/redis-server *:6379"),
            process(4, "/usr/bin/redis-server *:6379"),
        ],
        ..Found::default()
    };
    let discovery = discover(&found);
    let all: Vec<_> = discovery.proposals.iter().map(|it| (it.name.as_str(), it.profile)).collect();
    assert_eq!(all, [("nginx", "generic"), ("redis-server", "generic")]);
    assert_eq!(discovery.proposals[0].values["unit"], "nginx.service");
    let pattern = &discovery.proposals[1].values["command"];
    let pattern = super::super::pattern::Pattern::new(pattern).unwrap();
    assert!(
        pattern.is_match("/usr/bin/redis-server *:6379") && !pattern.is_match("grep redis-server")
    );
}

#[test]
fn a_program_of_an_interpreter_is_known_by_what_that_runs() {
    let mut script = process(5, "/bin/bash -c");
    script.arguments.push("while <a> {b}; do x;\ndone 🐝".to_owned());
    let found = Found {
        processes: vec![
            process(1, "/usr/bin/python3 -u main.py --port 8188"),
            process(2, "/usr/bin/python3 other.py"),
            process(3, "node --max-old-space-size=512 server.js"),
            process(4, "/opt/my-app/🐝<x>"),
            script,
        ],
        ..Found::default()
    };
    let discovery = discover(&found);
    let shelf = crate::watch::profile::Shelf::default();
    let patterns: Vec<_> = discovery
        .proposals
        .iter()
        .map(|it| {
            let mut values = it.values.clone();
            values.extend([("home", "/h".to_owned()), ("name", "a".to_owned())]);
            let values = values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            shelf.get("generic").unwrap().fill(&values).unwrap().command.unwrap()
        })
        .collect();
    assert_eq!(patterns.len(), found.processes.len());
    for (pattern, process) in patterns.iter().zip(&found.processes) {
        assert!(pattern.is_match(&process.arguments.join(" ")), "{process:?}");
    }
    for other in ["/usr/bin/python3 other.py", "/usr/bin/python3 main.pyc", "tail -f main.py"] {
        assert!(!patterns[0].is_match(other), "{other}");
    }
}

#[test]
fn a_host_of_ipv6_stands_in_brackets() {
    let server = process(1, "llama-server --host 2001:db8::7 --port 9000");
    let discovery = discover(&Found { processes: vec![server], ..Found::default() });
    assert_eq!(discovery.proposals[0].values["coordinator"], "[2001:db8::7]:9000");
}

#[test]
fn whatever_a_folder_is_called_the_file_can_be_read_and_names_are_each_once() {
    let hostile = ["/a/\"x\"\\", "/b/x\n[[watch]]", "/c/\u{202e}x", "/d/x", "/e/x", "/f/🐝"];
    let found = Found { roots: hostile.map(root).to_vec(), ..Found::default() };
    let discovery = discover(&found);
    let tables = parsed(&discovery);
    assert_eq!(tables.len(), hostile.len());
    for (table, path) in tables.iter().zip(hostile) {
        assert_eq!(table["set"]["root"].as_str(), Some(path));
    }
    let mut names: Vec<&str> = tables.iter().map(|table| table["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"x-2") && names.contains(&"program"), "{names:?}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), hostile.len());
}

#[test]
fn nothing_found_is_told_and_too_much_is_cut() {
    let none = discover(&Found::default());
    assert!(none.missing[0].starts_with("Nothing was found") && parsed(&none).is_empty());
    let many = Found {
        roots: (0..100).map(|number| root(&format!("/{number}"))).collect(),
        ..Found::default()
    };
    let discovery = discover(&many);
    assert_eq!(discovery.proposals.len(), WATCHED_MAX);
    assert!(discovery.missing.iter().any(|it| it == "Of 100 programs, the first 64 are listed."));
}

#[test]
fn all_that_is_set_are_variables_of_the_profiles_that_this_program_brings() {
    let in_unit = |command: &str| Running {
        unit: Some("x.service".to_owned()),
        folder: Some("/a".to_owned()),
        ..process(3, command)
    };
    let in_screen = Running { screen: Some("gensyn".to_owned()), ..launcher(4) };
    let in_container = Running { container: Some("ab".repeat(32)), ..launcher(5) };
    let found = Found {
        processes: vec![
            in_unit("python3 -m hivemind_exp.x"),
            in_screen,
            in_container,
            process(6, "llama-server --rpc a:1 --log-file /x.log"),
            in_unit("nginx"),
            process(7, "redis-server"),
        ],
        roots: vec![root("/b/rl-swarm")],
        ..Found::default()
    };
    let shelf = crate::watch::profile::Shelf::default();
    let proposals = discover(&found).proposals;
    assert!(proposals.len() >= 5, "{proposals:?}");
    for proposal in proposals {
        let profile = shelf.get(proposal.profile).expect(proposal.profile);
        for key in proposal.values.keys() {
            assert!(profile.variables.contains_key(*key), "{}: {key}", proposal.profile);
        }
    }
}
