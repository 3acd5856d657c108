use proptest::prelude::*;

use super::*;

const PEER: &str = "QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ";
const NEW_PEER: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

fn check(text: &str, wanted: &str) {
    assert_eq!(scrub(text), wanted, "of {text}");
}

#[test]
fn keys_go_wherever_people_and_programs_write_them() {
    for (text, wanted) in [
        (
            "rpc https://opbnb-mainnet.g.example.com/v2/a1B2c3D4e5F6g7H8i9J0kLmN-pQ is slow",
            "rpc https://opbnb-mainnet.g.example.com/v2/[REDACTED] is slow",
        ),
        (
            "POST https://hooks.example/a/Xy1Zw2Vu3Ts4Rq5Po6Nm7Lk8.",
            "POST https://hooks.example/a/[REDACTED].",
        ),
        ("key AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY", "key [REDACTED]"),
        ("curl -u admin:hunter2 http://x", "curl -u admin:[REDACTED] http://x"),
        ("curl --user admin:hunter2 http://x", "curl --user admin:[REDACTED] http://x"),
        ("curl -u admin:20261128 http://x", "curl -u admin:[REDACTED] http://x"),
        ("curl -u john.doe:hunter2 http://x", "curl -u john.doe:[REDACTED] http://x"),
        ("['curl', '-u', 'admin:hunter2', 'x']", "['curl', '-u', 'admin:[REDACTED]', 'x']"),
        ("curl -u admin:it's http://x", "curl -u admin:[REDACTED] http://x"),
        (
            r#"{"msg":"curl -u admin:hunter2","level":"ERROR"}"#,
            r#"{"msg":"curl -u admin:[REDACTED]","level":"ERROR"}"#,
        ),
        ("2026-11-28 05:00:00 INFO SN: 1322821012345", "2026-11-28 05:00:00 INFO SN: [REDACTED]"),
        ("[INFO] GPU 0 SN: 1322821012345", "[INFO] GPU 0 SN: [REDACTED]"),
        ("MYSQL_PASS=hunter2", "MYSQL_PASS=[REDACTED]"),
        ("DB_PASS=hunter2 ./run", "DB_PASS=[REDACTED] ./run"),
        ("the PASSWORD hunter2 is wrong", "the PASSWORD [REDACTED] is wrong"),
        ("GET /?auth=x HTTP/1.1", "GET /?auth=[REDACTED] HTTP/1.1"),
        ("AUTH=abc", "AUTH=[REDACTED]"),
        (r#"{"auths":{"r":{"auth":"dXNlcjpw"}}}"#, r#"{"auths":{"r":{"auth":"[REDACTED]"}}}"#),
        ("x-auth: Abc1", "x-auth: [REDACTED]"),
        ("SN: 1322821012345", "SN: [REDACTED]"),
        ("GPU SN: 1322821012345", "GPU SN: [REDACTED]"),
        ("host-10-11-12-14.lan", "host-[REDACTED].lan"),
    ] {
        check(text, wanted);
    }
    for text in [
        "GET https://huggingface.co/deepseek-ai/DeepSeek-R1-Distill-Qwen-14B/resolve/main/x.json",
        "see https://docs.example.com/en/latest/configuration-of-the-launcher/index.html",
        "docker run -u 1000:1000 image",
        "python -u main.py:app",
        "password authentication failed for user x",
        "forward_pass=0.5 s, bypass=1, asn=13335",
        "auth: failed, depth=3, path=/x",
        "hub::auth::tests::it_is_one ok",
        "grep -u x",
    ] {
        check(text, text);
    }
}

/// The phrase of a wallet: so many words of the list.
fn phrase(count: usize, between: &str) -> String {
    let words = ["abandon", "zoo", "tree", "matrix", "Legal", "winner", "thank", "year", "wave"];
    let words: Vec<&str> = words.into_iter().cycle().take(count).collect();
    words.join(between)
}

#[test]
fn the_phrase_of_a_wallet_goes_without_its_name() {
    for count in [12, 15, 24] {
        for between in [" ", ", ", "\", \"", "  "] {
            let words = phrase(count, between);
            check(&words, "[REDACTED]");
            check(
                &format!("restored 3 from \"{words}\" yesterday"),
                "restored 3 from \"[REDACTED]\" yesterday",
            );
        }
    }
    check(&format!(r"x\n{}\n", phrase(12, " ")), r"x\n[REDACTED]\n");
    let numbered: Vec<String> =
        phrase(24, " ").split(' ').zip(1..).map(|(it, number)| format!("{number}. {it}")).collect();
    check(&numbered.join(" "), "1. [REDACTED]");
    let short = phrase(11, " ");
    for text in [
        short.as_str(),
        "some weights were not used when the model was made from this point, you should train it with more data now",
        "train this model with more data before you use it for real work, and then check what it can do",
    ] {
        check(text, text);
    }
}

#[test]
fn lines_of_a_key_file_go_without_its_head() {
    for line in [
        "MIIEowIBAAKCAQEAxyzLINE1MIIEowIBAAKCAQEAxyzLINE1MIIEowIBAAKCAQEA",
        "  MIIEowIBAAKCAQEAxyzLINE1MIIEowIBAAKCAQEAxyzLINE1MIIEowIBAAKCAQEA",
        "PEMSHORT33==",
    ] {
        let margin = &line[..line.len() - line.trim_start().len()];
        check(line, &format!("{margin}[REDACTED]"));
    }
    for line in [
        PEER,
        NEW_PEER,
        "========",
        "/usr/lib/Python3/Packages/Transformers/Models/Qwen2/Modeling",
        "loading the model took 31 s",
        "a=",
    ] {
        check(line, line);
    }
}

#[test]
fn people_and_hosts_go() {
    for (text, wanted) in [
        ("mail bob.smith+x@example.co.uk, or", "mail [REDACTED], or"),
        ("['bob@example.com', \"eve@example.com\"]", "['[REDACTED]', \"[REDACTED]\"]"),
        ("<bob@example.com>.", "<[REDACTED]>."),
        ("email=bob%40example.com&x", "email=[REDACTED]&x"),
        ("\"john smith\"@example.com", "[REDACTED]"),
        ("jürgen@bücher.example", "[REDACTED]"),
        ("bob@box:~$ ./run", "[REDACTED]:~$ ./run"),
        ("next@14.2.1 built", "next@14.2.1 built"),
        ("bob@163.com", "[REDACTED]"),
        ("from 192.168.1.10:50052.", "from [REDACTED]:50052."),
        ("[1.2.3.4,5.6.7.8]", "[[REDACTED],[REDACTED]]"),
        ("host_10.0.0.5 v1.2.3.4 x", "host_[REDACTED] v[REDACTED] x"),
        ("127.0.0.1 0.0.0.0", "127.0.0.1 0.0.0.0"),
        ("driver 535.104.05.01, torch 2.5.1", "driver 535.104.05.01, torch 2.5.1"),
        ("0.00.035.060 I x", "0.00.035.060 I x"),
        ("ip-10-0-0-7.ec2", "ip-[REDACTED].ec2"),
        ("to 2001:db8::1, fe80::1%eth0", "to [REDACTED], [REDACTED]%eth0"),
        ("[2001:db8:0:0:0:0:0:1]:8080", "[[REDACTED]]:8080"),
        ("ip6:2001:db8::7: timeout", "ip6:[REDACTED]: timeout"),
        ("::ffff:1.2.3.4 and ::1", "[REDACTED] and ::1"),
        ("std::fs::read at 02:04:54", "std::fs::read at 02:04:54"),
        ("mac aa:bb:cc:dd:ee:0f, AA-BB-CC-DD-EE-0F", "mac [REDACTED], [REDACTED]"),
        ("redis://:pw@box:6379/0", "redis://[REDACTED]@box:6379/0"),
        ("http://bob:p@ss/w@10.0.0.1/x", "http://[REDACTED]@[REDACTED]/x"),
        ("https://npm.example/@scope/x", "https://npm.example/@scope/x"),
        ("/ip4/1.2.3.4/tcp/30011/p2p/", "/ip4/[REDACTED]/tcp/30011/p2p/"),
        ("/ip6/2001:db8::1/udp/1/quic", "/ip6/[REDACTED]/udp/1/quic"),
        ("/dns4/bob.dyndns.example/tcp/1", "/dns4/[REDACTED]/tcp/1"),
        ("/home/bob/rl-swarm/x.py", "/home/[REDACTED]/rl-swarm/x.py"),
        ("['/home/bob', '/Users/eve/x']", "['/home/[REDACTED]', '/Users/[REDACTED]/x']"),
        (r"C:\Users\John Smith\x", r"C:\Users\[REDACTED]\x"),
        (r#"{"p":"C:\\Users\\bob\\x"}"#, r#"{"p":"C:\\Users\\[REDACTED]\\x"}"#),
        ("/root/x /homes/x", "/root/x /homes/x"),
        ("/home/john smith/x.py", "/home/[REDACTED]/x.py"),
        ("/Users/Pat O'Brien/Library", "/Users/[REDACTED]/Library"),
        ("cp '/home/bob' '/srv/x'", "cp '/home/[REDACTED]' '/srv/x'"),
        ("from /home/bob to /srv/x", "from /home/[REDACTED] to /srv/x"),
        ("['/home/bob', 'a/b']", "['/home/[REDACTED]', 'a/b']"),
    ] {
        check(text, wanted);
    }
}

#[test]
fn secrets_go_by_their_names_and_by_their_looks() {
    for (text, wanted) in [
        ("SECRET=abc", "SECRET=[REDACTED]"),
        ("export HF_TOKEN='a b'; x", "export HF_TOKEN='[REDACTED]'; x"),
        (r#"{"token":"a\"b","round":5}"#, r#"{"token":"[REDACTED]","round":5}"#),
        (r#""{\"api_key\": \"abc\", \"n\": 1}""#, r#""{\"api_key\": \"[REDACTED]\", \"n\": 1}""#),
        ("{'userApiKey': 'x', 'n': 1}", "{'userApiKey': '[REDACTED]', 'n': 1}"),
        ("password = hunter2, round=7", "password = [REDACTED], round=7"),
        ("(password=a,b)", "(password=[REDACTED])"),
        ("token=b'abc'", "token=[REDACTED]'"),
        ("?token=abc&round=5", "?token=[REDACTED]&round=5"),
        ("os.environ['WANDB_API_KEY'] = 'x'", "os.environ['WANDB_API_KEY'] = '[REDACTED]'"),
        ("Authorization: Bearer abc.def", "Authorization: [REDACTED]"),
        ("with Bearer abcdefgh1", "with Bearer [REDACTED]"),
        ("run --hf-token abc --round 5", "run --hf-token [REDACTED] --round 5"),
        ("private key: abc", "private key: [REDACTED]"),
        ("mnemonic: one two three", "mnemonic: [REDACTED]"),
        ("Serial Number : 1322621", "Serial Number : [REDACTED]"),
        ("serial no. AB12 and", "serial no. [REDACTED] and"),
        ("passwords: [abc, def], x", "passwords: [REDACTED], x"),
        ("password: None; max_tokens=512", "password: None; max_tokens=512"),
        ("JWT_SECRET_VALUE=a TOKEN_2=b", "JWT_SECRET_VALUE=[REDACTED] TOKEN_2=[REDACTED]"),
        ("id 550e8400-e29b-41d4-a716-446655440000.", "id [REDACTED]."),
        ("GPU-550e8400-e29b-41d4-a716-446655440000", "GPU-[REDACTED]"),
        ("to 0x7745a8FE4b8D2D2c3BB103F8dCae822746F35Da0,", "to [REDACTED],"),
        ("key_00112233445566778899", "key_[REDACTED]"),
        ("eyJhbGciOi.eyJzdWIiOi.Sfl-KxwRJ_x", "[REDACTED]"),
        ("at eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.Sfl-KxwRJ_x.", "at [REDACTED]."),
        ("hf_abcDEFghiJKLmno ok", "[REDACTED] ok"),
        ("sk-proj-abcDEFghiJKLmno ok", "[REDACTED] ok"),
        ("bot12345678:AAabcdefghijklmnopqrstuvwxyz-_12345", "bot[REDACTED]"),
        ("-----BEGIN PRIVATE KEY-----MIIE", "[REDACTED]"),
        (r"a\nhf_abcDEFghiJKLmnoPQR ok", r"a\n[REDACTED] ok"),
        ("x%3Dhf_abcDEFghiJKLmnoPQR&y", "x%3D[REDACTED]&y"),
        ("my_ghp_abcDEFghiJKLmnoPQR", "my_[REDACTED]"),
        (r"\nAKIAIOSFODNN7EXAMPLE ok", r"\n[REDACTED] ok"),
        (r"\nsk-proj-abcDEFghiJKLmno ok", r"\n[REDACTED] ok"),
        ("%3Dsk-abcdefghijkl1234567 ok", "%3D[REDACTED] ok"),
        ("xoxb-123456789012-abcDEFghi ok", "[REDACTED] ok"),
        ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq.", "[REDACTED]."),
        ("pay_1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "pay_[REDACTED]"),
        ("to 3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy,", "to [REDACTED],"),
        ("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj", "[REDACTED]"),
    ] {
        check(text, wanted);
    }
}

#[test]
fn what_says_what_a_program_does_stays() {
    for text in [
        "[2025-08-05 02:04:54,237][genrl.logging_utils.global_defs][INFO] - Starting round: 15579/1000000.",
        "loss 0.6931471805599453 lr 1e-6 at 12:30:45",
        "lr 9.313225746154785e-10, 1.4901161193847656e-08, 6.123233995736766e17",
        "convert_hf_checkpoint_to_megatron /task-scheduler-worker-thread",
        "unsloth/Qwen2-0-5B-Instruct-bnb-4bit-GGUF-Q4_K_M",
        "https://huggingface.co/Gensyn/Qwen2.5-0.5B-Instruct",
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
        "/usr/lib/python3.12/site-packages/torch/nn/modules/linear.py:125",
        "tokenizer: Qwen, n_tokens = 23, cwd: /root",
        "DistributedDataParallelCommunicationHookTypeFactory",
    ] {
        check(text, text);
    }
    let peers = format!("/p2p/{PEER} [{PEER},{NEW_PEER}] peer_{PEER}");
    check(&peers, &peers);
}

#[test]
fn hostile_lines_take_no_longer_than_others() {
    for part in [
        "a:",
        "a@",
        ":",
        "::",
        "=",
        "password=",
        "\"token\":\"",
        "\\",
        "/",
        "--",
        "1.",
        "a-",
        "eyJ",
        "hf_",
        "AKIA",
        "bc1",
        "nsk-",
        "/home/a ",
        "_1",
        "abandon ",
        "auth::",
        "auth::[",
        "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoos ",
    ] {
        let line = part.repeat(64 * 1024 / part.len());
        let begun = std::time::Instant::now();
        let _ = scrub(&line);
        assert!(begun.elapsed().as_secs() < 20, "{part}");
    }
}

/// A secret of one of the kinds, and what of it must not be found again.
fn secret() -> impl Strategy<Value = (String, String)> {
    let whole = |text: String| (text.clone(), text);
    prop_oneof![
        "[a-z][a-z0-9._+-]{0,12}[a-z0-9]@[a-z]{2,10}\\.(com|org|co\\.uk)".prop_map(whole),
        (1..224_u8, any::<u8>(), any::<u8>(), any::<u8>())
            .prop_filter("everybody's", |ip| ip.0 != 127)
            .prop_map(move |(a, b, c, d)| whole(format!("{a}.{b}.{c}.{d}"))),
        proptest::collection::vec(any::<u16>(), 8)
            .prop_map(|parts| parts.iter().map(|it| format!("{it:x}")).collect::<Vec<_>>())
            .prop_map(move |parts| whole(parts.join(":"))),
        (1..u16::MAX, 1..u16::MAX).prop_map(move |(a, b)| whole(format!("2001:{a:x}::{b:x}"))),
        "0x[0-9a-f]{40}".prop_map(|it| (it.clone(), it[2..].to_owned())),
        "[0-9a-f]{16,64}".prop_map(whole),
        "[0-9A-F]{16,64}".prop_map(whole),
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".prop_map(whole),
        ("(\\\\n|%3D|x_|)", "(hf_|ghp_|npm_)", "[A-Za-z0-9]{15}[A-Z0-9]{2}[a-z]{3}")
            .prop_map(|(before, head, rest)| (format!("{before}{head}{rest}"), rest)),
        "bc1[a-z0-9]{39,59}".prop_map(whole),
        "[13][1-9A-HJ-NP-Za-km-z]{24}[A-H][a-k]".prop_map(whole),
        "eyJ[A-Za-z0-9_-]{20,40}\\.eyJ[A-Za-z0-9_-]{20,40}\\.[A-Za-z0-9_-]{20,43}".prop_map(whole),
        (
            "(SECRET|token|password|API_KEY|hf-token|privateKey|serial_number)",
            "(=|: | = |\": \"|':')",
            "[A-Za-z0-9!#%^*+/_-]{5,30}[a-z0-9]"
        )
            .prop_map(|(name, separator, value)| (format!("{name}{separator}{value}"), value)),
        "[a-z]{1,8}:[A-Za-z0-9!%_-]{3,20}"
            .prop_map(|user| (format!("postgres://{user}@db.example/x"), user)),
        "[a-z][a-z0-9_-]{4,12}"
            .prop_map(|user| (format!("/home/{user}/rl-swarm"), format!("/{user}/"))),
        "[a-z]{3,8}[ '][a-z]{3,8}"
            .prop_map(|user| (format!("/home/{user}/rl-swarm"), format!("/{user}/"))),
        "[a-z][a-z0-9_-]{4,12}"
            .prop_map(|user| (format!("C:\\Users\\{user}\\x"), format!("\\{user}\\"))),
    ]
}

/// What may stand around a secret.
fn around() -> impl Strategy<Value = (String, String)> {
    let words = "([A-Za-z]{1,8} ){0,4}";
    let both = prop_oneof![
        Just((" ", " ")),
        Just(("[", "]")),
        Just(("['", "', 'x']")),
        Just(("{\"a\": \"", "\"}")),
        Just(("(", ").")),
        Just(("<", ">")),
        Just(("x=", ",")),
        Just(("- ", ";")),
        Just(("\"", "\"")),
        Just(("🐝 ", "!")),
        Just(("[x, ", ", y]")),
        Just(("", "")),
        Just(("\t", "\t")),
        Just(("|", "|")),
        Just(("`", "`")),
        Just(("ip:", " ")),
    ];
    (words, both, words).prop_map(|(before, (left, right), after)| {
        (format!("{before}{left}"), format!("{right} {after}"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn no_secret_is_left_wherever_it_stands(
        planted in proptest::collection::vec((secret(), around()), 1..4),
    ) {
        let parts = planted.iter().flat_map(|((text, _), (before, after))| [before, text, after]);
        let line: String = parts.map(String::as_str).collect();
        let scrubbed = scrub(&line);
        for ((_, secret), _) in &planted {
            prop_assert!(!scrubbed.contains(secret.as_str()), "{secret} of {line} is in {scrubbed}");
        }
        prop_assert_eq!(scrub(&scrubbed), scrubbed.as_ref(), "scrubbed twice");
    }

    #[test]
    fn peers_and_rounds_stay_wherever_they_stand(
        round in 0..10_000_000_u32,
        peer in "(Qm[1-9A-HJ-NP-Za-km-z]{44}|12D3KooW[1-9A-HJ-NP-Za-km-z]{44})",
        (before, after) in around(),
    ) {
        for text in [round.to_string(), peer] {
            let line = format!("{before}{text}{after}");
            prop_assert!(scrub(&line).contains(&text), "{line}");
        }
    }

    #[test]
    fn any_text_is_scrubbed_without_panic(text in "\\PC{0,300}") {
        let _ = scrub(&text);
    }
}

/// How many lines are made up: many more if asked for by `PROPTEST_CASES`.
fn cases() -> u32 {
    ProptestConfig::default().cases.max(2_000)
}
