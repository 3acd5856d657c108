//! Secrets by their names: `password=…`, `"token": "…"`, `--api-key …`, `Authorization: Bearer …`.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::bytes::{at, is_word, run, run_back};

/// The longest name that is looked at, in bytes.
const NAME_MAX: usize = 40;

/// How the names of secrets end, in lower case, with `_` between words.
const SECRETS: [&str; 58] = [
    "secret",
    "secrets",
    "token",
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "api_key",
    "apikey",
    "api_keys",
    "private_key",
    "privatekey",
    "priv_key",
    "privkey",
    "secret_key",
    "secretkey",
    "access_key",
    "accesskey",
    "access_key_id",
    "auth_key",
    "encryption_key",
    "signing_key",
    "ssh_key",
    "wandb_key",
    "account_key",
    "credential",
    "credentials",
    "mnemonic",
    "seed_phrase",
    "seedphrase",
    "recovery_phrase",
    "authorization",
    "cookie",
    "session_id",
    "sessionid",
    "jwt",
    "serial",
    "serial_number",
    "serialnumber",
    "serial_no",
    "s/n",
    "imei",
    "gpu_sn",
    "card_sn",
    "db_pass",
    "user_pass",
    "admin_pass",
    "root_pass",
    "smtp_pass",
    "redis_pass",
    "rpc_pass",
    "nats_pass",
    "mqtt_pass",
    "mysql_pass",
    "postgres_pass",
    "mail_pass",
];

/// Those of them whose values are several words, up to the end of the line.
const WHOLE_LINES: [&str; 6] =
    ["mnemonic", "seed_phrase", "seedphrase", "recovery_phrase", "authorization", "cookie"];

/// What a value is that says that there is none.
const NOTHING: [&[u8]; 5] = [b"none", b"null", b"true", b"false", b"undefined"];

/// The last two letters of [`SECRETS`]: nearly every other name is told by them.
const ENDS: [&[u8; 2]; 23] = [
    b"et", b"ts", b"en", b"rd", b"ds", b"wd", b"se", b"de", b"ey", b"ys", b"id", b"al", b"ls",
    b"ic", b"on", b"ie", b"wt", b"er", b"no", b"/n", b"ei", b"sn", b"ss",
];

/// What a name of a secret holds anywhere.
const STRONG: [&str; 3] = ["secret", "password", "private_key"];

/// Whether the name ends like this, whatever its case and whatever stands between its words.
fn ends_as(name: &[u8], known: &[u8]) -> bool {
    let ends = name.iter().rev().zip(known.iter().rev());
    name.len() >= known.len()
        && ends.into_iter().all(|(byte, known)| match byte {
            b'-' | b'.' | b' ' => *known == b'_',
            byte => byte.to_ascii_lowercase() == *known,
        })
}

/// The name of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name {
    is_whole_line: bool,
    /// It is `auth`, which also names a state.
    is_auth: bool,
}

impl Name {
    /// The secret that a name is for, if it is for one.
    fn of(name: &[u8]) -> Option<Self> {
        // `TOKEN_2` is one too.
        let end = name.iter().rposition(u8::is_ascii_alphabetic)? + 1;
        let name = name.get(..end)?;
        let is = |known: &&str| ends_as(name, known.as_bytes());
        let last =
            [at(name, end.saturating_sub(2)), at(name, end - 1)].map(|c| c.to_ascii_lowercase());
        // Its last word, whatever stands before it in the line.
        let last_word = name.rsplit(|byte| !byte.is_ascii_alphanumeric()).next();
        let is_serial = || last_word.is_some_and(|word| word.eq_ignore_ascii_case(b"sn"));
        let is_secret = || ENDS.contains(&&last) && (SECRETS.iter().any(is) || is_serial());
        let is_auth = last == *b"th" && ends_as(name, b"auth");
        if !is_auth && !is_secret() && !holds_strong(name) {
            return None;
        }
        Some(Self { is_whole_line: WHOLE_LINES.iter().any(is), is_auth })
    }
}

/// A name whose value is one word.
const WORD: Name = Name { is_whole_line: false, is_auth: false };

/// Whether one of [`STRONG`] stands anywhere in the name.
fn holds_strong(name: &[u8]) -> bool {
    let starts = (0..name.len().saturating_sub(5))
        .filter(|at| matches!(name.get(*at), Some(b's' | b'S' | b'p' | b'P')));
    let is_here = |start: usize| {
        let here = |known: &&str| {
            name.get(start..start + known.len()).is_some_and(|it| ends_as(it, known.as_bytes()))
        };
        STRONG.iter().any(here)
    };
    starts.into_iter().any(is_here)
}

/// The value behind this `=` or `:`, if what stands before names a secret.
pub(super) fn value_after(bytes: &[u8], separator: usize) -> Option<Range<usize>> {
    let name = name_before(bytes, separator)?;
    // `auth::x` is a path. Its value is not looked for: a line of such names would take the square of its length.
    if name.is_auth && at(bytes, separator) == b':' && at(bytes, separator + 1) == b':' {
        return None;
    }
    let from = run(bytes, separator, 4, |byte| b"=:>".contains(&byte));
    let from = run(bytes, from, 64, |byte| byte == b' ' || byte == b'\t');
    let span = value(bytes, from, name)?;
    // `auth: failed` is a state, `auth=x` and `"auth": "x"` are none.
    let is_state = || {
        let is_small =
            |span| bytes.get(span).is_some_and(|it: &[u8]| it.iter().all(u8::is_ascii_lowercase));
        at(bytes, separator) == b':' && span.start == from && is_small(span.clone())
    };
    (!name.is_auth || !is_state()).then_some(span)
}

/// What stands below a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Below {
    /// One word.
    Word,
    /// Several.
    Line,
}

/// What is awaited on the next line, if this one ends with the name of a secret and nothing behind it.
pub(super) fn name_at_end(text: &[u8]) -> Option<Below> {
    // As in YAML, which has its long texts below a bar or an arrow.
    let block = [&b"|-"[..], b">-", b"|", b">"].iter().find_map(|end| text.strip_suffix(*end));
    let text = block.unwrap_or(text).trim_ascii_end();
    let separator = text.len().checked_sub(1).filter(|last| b":=".contains(&at(text, *last)))?;
    let name = name_before(text, separator).filter(|name| !name.is_auth)?;
    Some(if name.is_whole_line { Below::Line } else { Below::Word })
}

/// Whether a value says that there is none.
pub(super) fn is_nothing(text: &[u8]) -> bool {
    NOTHING.iter().any(|known| text.eq_ignore_ascii_case(known))
}

/// The name of a secret before this `=` or `:`.
fn name_before(bytes: &[u8], separator: usize) -> Option<Name> {
    let space_from = run_back(bytes, separator, 16, |byte| byte == b' ' || byte == b'\t');
    let quote_from = run_back(bytes, space_from, 6, |byte| b"\"'`\\])".contains(&byte));
    // Most colons stand in times.
    let is_number = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let number = run_back(bytes, quote_from, NAME_MAX, is_number);
    if number == 0 || !is_word(at(bytes, number - 1)) {
        return None;
    }
    let is_name = |byte: u8| is_word(byte) || b"-./".contains(&byte);
    let mut start = run_back(bytes, quote_from, NAME_MAX, is_name);
    // `private key`, `Serial Number`: up to two words more.
    for _ in 0..2 {
        let before = run_back(bytes, start, 1, |byte| byte == b' ');
        if before < start && start < quote_from {
            start = run_back(bytes, before, NAME_MAX, is_name);
        }
    }
    Name::of(bytes.get(start..quote_from)?)
}

/// The value of an option of a command, `--token …`, which begins here.
pub(super) fn option(bytes: &[u8], here: usize) -> Option<Range<usize>> {
    let from = run(bytes, here, 6, |byte| byte == b'-');
    if from - here > 3 {
        return key_file(bytes, here, from);
    }
    let end = run(bytes, from, NAME_MAX, |byte| is_word(byte) || byte == b'-');
    let value_from = run(bytes, end, 16, |byte| byte == b' ');
    if value_from == end {
        return None;
    }
    if bytes.get(from..end) == Some(b"user") {
        return user(bytes, here, end);
    }
    value(bytes, value_from, Name::of(bytes.get(from..end)?)?)
}

/// The password of an option that begins here and ends there, `-u NAME:PASSWORD`; two numbers are a user and a group.
pub(super) fn user(bytes: &[u8], here: usize, end: usize) -> Option<Range<usize>> {
    if here > 0 && !b" \"'".contains(&at(bytes, here - 1)) {
        return None;
    }
    // Also as an item of a list: `'-u', 'NAME:PASSWORD'`.
    let from = run(bytes, end, 6, |byte| b" ,\"'".contains(&byte));
    let name_end = run(bytes, from, NAME_MAX, |byte| is_word(byte) || b"-@.".contains(&byte));
    let name = bytes.get(from..name_end)?;
    let is_pair = from > end && name_end > from && at(bytes, name_end) == b':';
    let quote = at(bytes, from.saturating_sub(1));
    let password_end = if matches!(quote, b'"' | b'\'') {
        run(bytes, name_end + 1, 256, |byte| byte != quote)
    } else {
        unquoted(bytes, name_end + 1)
    };
    let password = bytes.get(name_end + 1..password_end)?;
    let is_group = [name, password].iter().all(|it| it.iter().all(u8::is_ascii_digit));
    // `main.py:app` is a program.
    let is_file = SCRIPTS.iter().any(|end| name.ends_with(end));
    (is_pair && !is_group && !is_file && !password.is_empty()).then_some(name_end + 1..password_end)
}

/// Where a password without quotes ends: at a space, or at a quote that closes what it stands in.
fn unquoted(bytes: &[u8], from: usize) -> usize {
    let closes = |at_quote: usize| {
        let next = bytes.get(at_quote + 1).copied();
        next.is_none_or(|next| next.is_ascii_whitespace() || b",}])".contains(&next))
    };
    let limit = bytes.len().min(from + 256);
    let is_end = |here: &usize| match at(bytes, *here) {
        b' ' | b'\t' => true,
        b'"' | b'\'' => closes(*here),
        b'\\' => matches!(at(bytes, here + 1), b'"' | b'n' | b'r'),
        _ => false,
    };
    (from..limit).find(is_end).unwrap_or(limit.max(from))
}

/// How files end that `-u` is not a user of.
const SCRIPTS: [&[u8]; 4] = [b".py", b".sh", b".js", b".rb"];

/// The rest of a line in which a private key's file begins: `-----BEGIN PRIVATE KEY-----`.
fn key_file(bytes: &[u8], here: usize, from: usize) -> Option<Range<usize>> {
    let head = bytes.get(from..(from + 64).min(bytes.len()))?;
    let is_private = head.starts_with(b"BEGIN ") && head.windows(7).any(|it| it == b"PRIVATE");
    is_private.then_some(here..bytes.len())
}

/// What stands behind a word that needs no separator: `Bearer …`, `serial …`.
pub(super) fn after_word(bytes: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let name = bytes.get(word.clone())?;
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    let from = run(bytes, word.end, 8, |byte| byte == b' ' || byte == b'\t');
    match name.len() {
        6 if is(b"bearer") => {
            let span = value(bytes, from, WORD)?;
            (span.len() >= 8).then_some(span)
        }
        // Words alone, as in `password authentication failed`, are none.
        6 | 8 | 10 if [&b"passwd"[..], b"password", b"passphrase"].iter().any(|it| is(it)) => {
            let span = value(bytes, from, WORD)?;
            let has_digit = bytes.get(span.clone())?.iter().any(u8::is_ascii_digit);
            (span.len() >= 6 && has_digit).then_some(span)
        }
        6 if is(b"serial") => {
            let middle =
                run(bytes, from, 8, |byte| byte.is_ascii_alphabetic() || b".#".contains(&byte));
            let is_number = [&b"number"[..], b"no", b"no.", b"num", b"#"].iter().any(|known| {
                bytes.get(from..middle).is_some_and(|it| it.eq_ignore_ascii_case(known))
            });
            let from = if is_number { run(bytes, middle, 8, |byte| byte == b' ') } else { from };
            let end = run(bytes, from, 64, |byte| is_word(byte) || byte == b'-');
            let has_digit = bytes.get(from..end)?.iter().any(u8::is_ascii_digit);
            has_digit.then_some(from..end)
        }
        _ => None,
    }
}

/// The value that begins here.
fn value(bytes: &[u8], from: usize, name: Name) -> Option<Range<usize>> {
    let escapes = run(bytes, from, 4, |byte| byte == b'\\') - from;
    let (start, quote) = (from + escapes + 1, at(bytes, from + escapes));
    if matches!(quote, b'"' | b'\'' | b'`') {
        let end = quoted(bytes, start, quote, escapes);
        return (end > start).then_some(start..end);
    }
    let end = match at(bytes, from) {
        b'[' => run(bytes, from, bytes.len(), |byte| byte != b']') + 1,
        b'{' => run(bytes, from, bytes.len(), |byte| byte != b'}') + 1,
        _ if name.is_whole_line => run(bytes, from, bytes.len(), |byte| byte != b'"'),
        _ => bare(bytes, from),
    };
    let end = end.min(bytes.len());
    let text = bytes.get(from..end)?;
    (end > from && !is_nothing(text)).then_some(from..end)
}

/// Where a text in quotes ends: at the quote with as many escapes as the first had.
fn quoted(bytes: &[u8], start: usize, quote: u8, escapes: usize) -> usize {
    let mut here = start;
    while here < bytes.len() {
        let run_end = run(bytes, here, bytes.len(), |byte| byte != quote && byte != b'\\');
        let slashes = run(bytes, run_end, bytes.len(), |byte| byte == b'\\') - run_end;
        here = run_end + slashes;
        if at(bytes, here) == quote {
            if slashes <= escapes {
                return run_end;
            }
            here += 1;
        }
    }
    bytes.len()
}

/// Where a text without quotes ends: at a space, or where a list goes on.
fn bare(bytes: &[u8], from: usize) -> usize {
    let mut end = from;
    while let Some(&byte) = bytes.get(end) {
        let next = at(bytes, end + 1);
        let is_end = byte.is_ascii_whitespace()
            || (matches!(byte, b',' | b';' | b'&') && goes_on(bytes, end + 1))
            || (b"\"'`".contains(&byte) && end > from && b",:;)]} \0".contains(&next));
        if is_end {
            break;
        }
        end += 1;
    }
    run_back(bytes, end, end - from, |byte| b",;.)]}>\"'`".contains(&byte))
}

/// Whether another entry of a list begins here, such as `round=5` or `"round"`.
fn goes_on(bytes: &[u8], from: usize) -> bool {
    let name_end = run(bytes, from, NAME_MAX, |byte| is_word(byte) || byte == b'-');
    let next = at(bytes, from);
    next == 0
        || next.is_ascii_whitespace()
        || b"\"'`{}[]".contains(&next)
        || (name_end > from && b"=:".contains(&at(bytes, name_end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_those_of_all_names() {
        for name in SECRETS {
            let name = name.as_bytes();
            assert!(ENDS.iter().any(|end| name.ends_with(*end)), "{}", name.escape_ascii());
            assert!(Name::of(name).is_some() && Name::of(&name.to_ascii_uppercase()).is_some());
        }
        for name in ["round", "peer", "n_tokens", "cwd", "loss", "key"] {
            assert_eq!(Name::of(name.as_bytes()), None, "{name}");
        }
    }
}
