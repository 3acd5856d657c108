use super::*;

fn shelf() -> Shelf {
    Shelf::default()
}

fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn every_shipped_profile_is_good_and_can_be_filled() {
    let shelf = shelf();
    assert_eq!(shelf.names().count(), 4);
    for name in shelf.names() {
        let profile = shelf.get(name).unwrap();
        assert!(!profile.about.is_empty() && !profile.means.is_empty(), "{name}");
        profile.fill(&values(&[("home", "/home/x"), ("name", "a")])).unwrap();
    }
}

#[test]
fn a_node_of_a_swarm_is_described_in_full() {
    let profile = shelf().get("rl-swarm-hydra").unwrap();
    let filled =
        profile.fill(&values(&[("home", "/h"), ("name", "a"), ("unit", "swarm")])).unwrap();
    let logs: Vec<(&str, &str)> =
        filled.logs.iter().map(|log| (log.name.as_str(), log.path.as_str())).collect();
    assert_eq!(logs[0], ("swarm", "/h/rl-swarm/logs/swarm_launcher.log"));
    assert_eq!(logs.len(), 4, "a log without a path isn't watched");
    assert_eq!(filled.process.unit.as_deref(), Some("swarm"));
    assert_eq!(filled.process.container, None);
    let command = filled.command.unwrap();
    assert!(command.is_match("python -m code_gen_exp.runner.swarm_launcher --config-path x"));
    assert!(command.is_match("python -m rgym_exp.runner.swarm_launcher"));
    let chain = filled.chain.unwrap();
    assert_eq!((chain.chain_id, chain.rpc.len()), (685_685, 1));
    let dht = filled.dht.unwrap();
    assert_eq!((dht.byte_keys.len(), dht.text_keys[0].as_str()), (2, "{round}"));
    assert_eq!((dht.bootnodes, dht.expiration.as_secs()), (Bootnodes::Chain, 600));
    assert_eq!(filled.idle.unwrap().longest.as_secs(), 900);
    assert_eq!(filled.ports[0].port, 3000);
}

#[test]
fn a_program_is_known_by_what_runs_and_not_by_who_names_it() {
    let shelf = shelf();
    let cases = [
        (
            "rl-swarm-hydra",
            &[
                "/home/my user/rl-swarm/.venv/bin/python3.12 -u -m rgym_exp.runner.swarm_launcher",
                "python -m code_gen_exp.runner.swarm_launcher --config-path x",
            ][..],
            &[
                "tail -f /h/rl-swarm/logs/code.swarm_launcher",
                "SCREEN -dmS gensyn bash -c 'python -m rgym_exp.runner.swarm_launcher'",
                "/bin/bash -c python -m rgym_exp.runner.swarm_launcher",
                "/usr/bin/tail -f /x/python x.swarm_launcher",
                "SCREEN bash -c\npython -m rgym_exp.runner.swarm_launcher\n",
                "/x/python-tools/tail -f x.swarm_launcher",
                "python3 follow.py /h/code.swarm_launcher.log",
            ][..],
        ),
        (
            "rl-swarm-legacy",
            &["/x/bin/python -m hivemind_exp.gsm8k.train_single_gpu --config y"],
            &["vim hivemind_exp.py", "bash -c python -m hivemind_exp.gsm8k"],
        ),
        (
            "llama-cpp",
            &["./rpc-server -p 50052", "/opt/llama cpp/llama-server", "build/bin/ggml-rpc-server"],
            &[
                "tail -f /var/log/llama-server",
                "less /opt/rpc-server",
                "/usr/bin/gdb ./llama-server",
                "llama-server.sh",
            ],
        ),
    ];
    for (name, its, others) in cases {
        let profile = shelf.get(name).unwrap();
        let filled = profile.fill(&values(&[("home", "/h"), ("name", "a")])).unwrap();
        let command = filled.command.unwrap();
        for line in its {
            assert!(command.is_match(line), "{name}: {line}");
        }
        for line in others {
            assert!(!command.is_match(line), "{name}: {line}");
        }
    }
}

#[test]
fn an_owner_watches_any_program_with_the_generic_profile() {
    let profile = shelf().get("generic").unwrap();
    let given = [
        ("home", "/h"),
        ("name", "web"),
        ("log", "/var/log/nginx/error.log"),
        ("grammar", "nginx"),
        ("port", "80"),
        ("command", "^nginx: master"),
    ];
    let filled = profile.fill(&values(&given)).unwrap();
    assert_eq!(filled.logs[0].grammar.name, "nginx");
    assert_eq!((filled.ports[0].host.as_str(), filled.ports[0].port), ("127.0.0.1", 80));
    assert!(filled.chain.is_none() && filled.dht.is_none() && filled.idle.is_none());
    let bare = profile.fill(&values(&given[..2])).unwrap();
    assert!(bare.logs.is_empty() && bare.ports.is_empty() && bare.command.is_none());
}

#[test]
fn backends_are_a_list_of_hosts_and_ports() {
    let profile = shelf().get("llama-cpp").unwrap();
    let fill = |backends: &str| {
        profile.fill(&values(&[("home", "/h"), ("name", "a"), ("backends", backends)]))
    };
    let filled = fill("10.0.0.1:50052, box:50053,[2001:db8::1]:50054,").unwrap();
    let rpc = &filled.backends["rpc"];
    assert_eq!(rpc.hosts[2], ("2001:db8::1".to_owned(), 50_054));
    assert_eq!((rpc.hosts.len(), rpc.coordinator.as_ref().unwrap().1), (3, 8080));
    for wrong in ["box", "box:0", ":1", "2001:db8::1:1", "box:70000", "a b:1"] {
        let told = fill(wrong).unwrap_err().to_string();
        assert!(told.starts_with("profile llama-cpp: [[backend]] \"rpc\", hosts: "), "{told}");
    }
}

#[test]
fn an_owners_file_takes_the_place_of_a_shipped_one() {
    let mut shelf = shelf();
    shelf.put("generic", "name = \"generic\"\nabout = \"mine\"".to_owned()).unwrap();
    shelf.put("own", "name = \"other\"".to_owned()).unwrap();
    assert_eq!(shelf.get("generic").unwrap().about, "mine");
    shelf.put("generic", "name = \"generic\"\nabout = \"newer\"".to_owned()).unwrap();
    assert_eq!(shelf.get("generic").unwrap().about, "newer");
    let told = shelf.get("own").unwrap_err().to_string();
    assert_eq!(told, "profile own: name: the file is called \"own\", its profile \"other\"");
    let told = shelf.get("none").unwrap_err().to_string();
    assert!(told.contains("no such profile, only generic, llama-cpp"), "{told}");
}

#[test]
fn values_that_cannot_be_used_are_refused() {
    let profile = shelf().get("rl-swarm-hydra").unwrap();
    for (given, says) in [
        (&[("home", "/h"), ("name", "a"), ("rooot", "/x")][..], "it has no variable \"rooot\""),
        (&[("name", "a")], "[variables], root: {home} has no value"),
        (&[("home", "/h"), ("name", "a"), ("root", "/x\n")], "root: a value is one line"),
        (
            &[("home", "/h"), ("name", "a"), ("login_port", "0")],
            "[[port]] \"login\", port: a number",
        ),
        (&[("home", "/h"), ("name", "a"), ("contract", "0x12")], "[chain], contract: an address"),
        (&[("home", "/h"), ("name", "a"), ("rpc", "ftp://x")], "[chain], rpc: URLs"),
        (&[("home", "/h"), ("name", "a"), ("chain_id", "x")], "[chain], chain_id: a whole number"),
    ] {
        let told = profile.fill(&values(given)).unwrap_err().to_string();
        assert!(told.starts_with(&format!("profile rl-swarm-hydra: {says}")), "{told}");
    }
    let circle = "name = \"x\"\n[variables]\na = \"{b}\"\nb = \"{a}\"";
    let told = Profile::parse("x", circle).unwrap().fill(&values(&[])).unwrap_err().to_string();
    assert_eq!(told, "profile x: [variables], a: {b} has no value");
}

/// A good file with one mistake, and what is said of it.
const MISTAKES: [(&str, &str); 33] = [
    ("colour = 1", "line 2, colour: unknown field `colour`"),
    ("[[log]]\nname = \"a\"\npath = \"x\"\ncolour = 1", "line 5, [[log]] 1, colour: unknown field"),
    ("[[means]]\nmatch = 'x'\nis = \"joy\"", "line 4, [[means]] 1, is: unknown variant `joy`"),
    ("[[means]]\nis = \"note\"", "line 2, [[means]] 1: missing field `match`"),
    ("[[means]]\nmatch = '('\nis = \"note\"", "[[means]] 1, match: no pattern: "),
    ("[[means]]\nmatch = ''\nis = \"note\"", "[[means]] 1, match: the pattern is empty"),
    (
        "[[means]]\nmatch = 'a'\nis = \"note\"\n[[means]]\nmatch = '((a{100}){100}){100}'\nis = \"note\"",
        "[[means]] 2, match: the pattern takes too much memory",
    ),
    ("[[means]]\nmatch = '(?=a)'\nis = \"note\"", "[[means]] 1, match: no pattern: "),
    (
        "[[means]]\nin = \"b\"\nmatch = 'a'\nis = \"note\"",
        "[[means]] 1, in: there is no [[log]] \"b\"",
    ),
    (
        "[[means]]\nmatch = 'a'\nis = \"note\"\ncause = \"b\"",
        "[[means]] 1, cause: there is no [[cause]] \"b\"",
    ),
    (
        "[[means]]\nmatch = '(?<a>a)(?<b>a)(?<c>a)(?<d>a)(?<e>a)(?<f>a)(?<g>a)(?<h>a)(?<i>a)'\nis = \"note\"",
        "[[means]] 1, match: it has more than 8 named groups",
    ),
    (
        "[[log]]\nname = \"a\"\npath = \"{root}\"",
        "[[log]] \"a\", path: {root} is none of [variables]",
    ),
    ("[[log]]\nname = \"a\"\npath = \"{root\"", "[[log]] \"a\", path: a { without a name and }"),
    ("[[log]]\nname = \"a\"\npath = \"x\\ny\"", "[[log]] \"a\", path: it has a line end"),
    (
        "[[log]]\nname = \"a\"\npath = \"x\"\ngrammar = \"klingon\"",
        "[[log]] \"a\", grammar: \"klingon\" is none of docker, hydra",
    ),
    (
        "[[log]]\nname = \"a\"\npath = \"x\"\n[[log]]\nname = \"a\"\npath = \"y\"",
        "[[log]] 2, name: \"a\" is there twice",
    ),
    ("[[log]]\nname = \"A b\"\npath = \"x\"", "[[log]] 1, name: a name is 1 to 32 of"),
    ("[[grammar]]\nname = \"a\"\nheader = 'x'", "[[grammar]] \"a\", header: it begins with ^"),
    (
        "[[grammar]]\nname = \"a\"\nheader = '^(?<colour>x)'",
        "[[grammar]] \"a\", header: the group \"colour\" is none of time",
    ),
    (
        "[[grammar]]\nname = \"a\"\nheader = '^x'\ntime = \"%Y-%m-%d %H:%M:%S\"",
        "[[grammar]] \"a\", time: the header has no group",
    ),
    (
        "[[grammar]]\nname = \"a\"\nheader = '^(?<time>x)'\ntime = \"%H\"",
        "[[grammar]] \"a\", time: a time in this format can't be read",
    ),
    (
        "[[grammar]]\nname = \"a\"\njson = { time = [\"t\"] }",
        "[[grammar]] \"a\", json: message names",
    ),
    ("[[cause]]\nid = \"a\"\nsays = \"s\"", "line 2, [[cause]] 1: missing field `remedy`"),
    (
        "[[cause]]\nid = \"a\"\nsays = \"s\"\nremedy = \"r\"\nmatch = '['",
        "[[cause]] \"a\", match: no pattern",
    ),
    ("[variables]\nhome = \"x\"", "[variables], home: this one is always there"),
    ("[variables]\n\"A-b\" = \"x\"", "[variables], A-b: a variable is 1 to 32 of"),
    ("[variables]\na = \"{b}\"", "[variables], a: {b} is none of [variables]"),
    ("[idle]\nlongest_s = 0", "[idle], longest_s: from 1 to"),
    ("[dht]\nbootnodes = \"chain\"\nexpiration_s = 600", "[dht], text_keys: one to sixteen keys"),
    (
        "[dht]\nbyte_keys = [\"{round}\"]\nbootnodes = []\nexpiration_s = 600",
        "[dht], byte_keys: {round} is none of",
    ),
    ("[chain]\nkind = \"bank\"", "line 3, [chain], kind: unknown variant `bank`"),
    ("[[rule]]\nname = \"a\"\nwhen = { not_up_percent = 200.0 }", "[[rule]]: rule \"a\": when has"),
    ("[[means", "line 2"),
];

#[test]
fn a_mistake_is_told_with_its_table_and_key() {
    for (text, says) in MISTAKES {
        let text = format!("name = \"x\"\n{text}");
        let told = Profile::parse("x", &text).unwrap_err().to_string();
        assert!(told.starts_with(&format!("profile x: {says}")), "{told}\nof\n{text}");
        assert!(told.lines().count() == 1 && told.len() < 600, "{told}");
    }
}

#[test]
fn a_file_of_any_size_and_kind_is_bounded() {
    let name = "name = \"x\"\n".to_owned();
    for (text, says) in [
        (format!("{name}about = \"{}\"", "x".repeat(PROFILE_BYTES_MAX)), "the file has more than"),
        (format!("{name}about = \"{}\"", "x".repeat(5_000)), "about: it has more than 1000 bytes"),
        (
            format!("{name}{}", "[[means]]\nmatch = 'a'\nis = \"note\"\n".repeat(129)),
            "[[means]]: there",
        ),
        (format!("{name}[variables]\na = {}1{}", "[".repeat(500), "]".repeat(500)), "line 3"),
        (
            format!("{name}[[means]]\nmatch = '{}'\nis = \"note\"", "a".repeat(3_000)),
            "[[means]] 1, match",
        ),
    ] {
        let told = Profile::parse("x", &text).unwrap_err().to_string();
        assert!(told.starts_with(&format!("profile x: {says}")), "{told}");
    }
    // Each is small enough, all together are not.
    let mut many = format!("{name}[[log]]\nname = \"a\"\npath = \"x\"\n");
    for number in 0..128 {
        let pattern = format!("{number}(?:[a-z]{{1,200}}\\d{{1,50}}){{2}}");
        many.extend(["[[means]]\nmatch = '", &pattern, "'\nis = \"note\"\n"]);
    }
    let told = Profile::parse("x", &many).unwrap_err().to_string();
    assert!(told.contains("[[means]]"), "{told}");
}
