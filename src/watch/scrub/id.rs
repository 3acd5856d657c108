//! Long words: keys, wallets, tokens, serial numbers. The ids of peers are public, and stay.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::bytes::{at, is_hex, is_word, run, run_back};

/// So many digits of hex in a row are a key, a hash or a wallet.
const HEX_MIN: usize = 16;

/// The shortest text without a form of its own that is taken for a secret if it looks random.
const BLOB_MIN: usize = 40;

/// The shortest line of nothing but base64 that is taken for a part of a key, and the shortest one with padding.
const LINE_MIN: usize = 48;
const PADDED_MIN: usize = 8;

/// The shortest part of a URL's path that is taken for a key if it looks random, and how much of a URL is looked at.
const URL_KEY_MIN: usize = 20;
const URL_MAX: usize = 2_048;

/// The longest secret that is looked for, in bytes.
const SECRET_MAX: usize = 64 * 1024;

/// How many letters stand at least behind the start of a vendor's secret within a word.
const BEHIND_MIN: usize = 16;

/// How many letters of such a secret are looked at.
const SECRET_LOOK_MAX: usize = 64;

/// How the secrets begin that vendors give out, those without a dash.
const VENDORS: [&[u8]; 16] = [
    b"hf_",
    b"ghp_",
    b"gho_",
    b"ghu_",
    b"ghs_",
    b"ghr_",
    b"github_pat_",
    b"AKIA",
    b"ASIA",
    b"AIza",
    b"npm_",
    b"sk_live_",
    b"sk_test_",
    b"rk_live_",
    b"dckr_pat_",
    b"nvapi_",
];

/// The words before the first dash of secrets that vendors give out.
const DASHED_VENDORS: [&[u8]; 8] =
    [b"sk", b"glpat", b"xoxb", b"xoxp", b"xoxa", b"nvapi", b"pypi", b"dop_v1"];

/// How a web token begins: `{"` in base64.
static WEB_TOKEN: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"eyJ"));

/// Whether a word is the id of a peer or of content.
fn is_public(word: &[u8]) -> bool {
    let is_base58 = |byte: &u8| byte.is_ascii_alphanumeric() && !b"0OIl".contains(byte);
    let is_base32 = |byte: &u8| matches!(byte, b'a'..=b'z' | b'2'..=b'7');
    match word.len() {
        46 => word.starts_with(b"Qm") && word.iter().all(is_base58),
        52 => word.starts_with(b"12D3KooW") && word.iter().all(is_base58),
        53 => word.starts_with(b"16Uiu2HA") && word.iter().all(is_base58),
        59 => word.starts_with(b"baf") && word.iter().all(is_base32),
        _ => false,
    }
}

/// What is secret within a word, or begins with it.
pub(super) fn long_word(bytes: &[u8], word: &Range<usize>, found: &mut Vec<Range<usize>>) {
    let text = bytes.get(word.clone()).unwrap_or_default();
    if is_public(text) {
        return;
    }
    hex(bytes, word, found);
    if let Some(head) = vendor_head(text) {
        found.push(word.start + head..token_end(bytes, word.start + head));
    }
}

/// Where in a word a vendor's secret begins: at its start, or behind what an escape left there, as in `3Dhf_…`. Behind
/// such a start words alone, as in `load_hf_model_from_checkpoint`, are no secret.
fn vendor_head(word: &[u8]) -> Option<usize> {
    if VENDORS.iter().any(|head| word.starts_with(head)) {
        return Some(0);
    }
    let is_head = |start: usize| {
        let rest = word.get(start..).unwrap_or_default();
        let is_it = |head: &&&[u8]| head.first() == rest.first() && rest.starts_with(head);
        let head = VENDORS.iter().find(is_it);
        let secret = head.and_then(|head| rest.get(head.len()..)).unwrap_or_default();
        secret.len() >= BEHIND_MIN && is_mixed(secret)
    };
    (1..word.len().saturating_sub(BEHIND_MIN)).find(|start| is_head(*start))
}

/// Whether there is anything but small letters and `_`, near the start: the search takes as long for any word.
fn is_mixed(text: &[u8]) -> bool {
    text.iter().take(SECRET_LOOK_MAX).any(|it| it.is_ascii_digit() || it.is_ascii_uppercase())
}

/// Web tokens: JSON in base64, which begins with `{"`.
pub(super) fn web_tokens(bytes: &[u8], found: &mut Vec<Range<usize>>) {
    let mut done = 0;
    for start in WEB_TOKEN.find_iter(bytes) {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric();
        let word = run_back(bytes, start, 60, is_part)..run(bytes, start, 60, is_part);
        if start >= done && !bytes.get(word).is_some_and(is_public) {
            done = token_end(bytes, start);
            if done - start >= HEX_MIN {
                found.push(start..done);
            }
        }
    }
}

/// Where a token ends that begins here.
fn token_end(bytes: &[u8], start: usize) -> usize {
    let end = run(bytes, start, SECRET_MAX, |byte| is_word(byte) || b"-.+/=".contains(&byte));
    run_back(bytes, end, 8, |byte| byte == b'.').max(start)
}

/// The runs of hex that are long enough, but no digits behind a decimal point.
fn hex(bytes: &[u8], word: &Range<usize>, found: &mut Vec<Range<usize>>) {
    let mut here = word.start;
    while here < word.end {
        let end = run(bytes, here, word.end - here, is_hex);
        if end - here >= HEX_MIN {
            let is_decimal = || {
                is_fraction(bytes, here..end)
                    && here >= 2
                    && at(bytes, here - 1) == b'.'
                    && at(bytes, here - 2).is_ascii_digit()
            };
            if here > word.start || !is_decimal() {
                let has_head = here >= 2
                    && at(bytes, here - 2) == b'0'
                    && matches!(at(bytes, here - 1), b'x' | b'X');
                found.push(here - 2 * usize::from(has_head)..end);
            }
        }
        here = end + 1;
    }
}

/// Whether these are the digits behind a decimal point, with an exponent or without.
fn is_fraction(bytes: &[u8], span: Range<usize>) -> bool {
    let text = bytes.get(span.clone()).unwrap_or_default();
    let digits = run(bytes, span.start, span.len(), |byte| byte.is_ascii_digit());
    let rest = text.get(digits - span.start..).unwrap_or_default();
    match rest {
        [] => true,
        // `e-10`: the sign ends the word.
        [b'e' | b'E'] => {
            matches!(at(bytes, span.end), b'-' | b'+') && at(bytes, span.end + 1).is_ascii_digit()
        }
        [b'e' | b'E', exponent @ ..] => {
            exponent.len() <= 3 && exponent.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

/// A long text around this place that looks random, as the lines of a key file do. Returns where the text ends
/// that was looked at: no place before it needs another look.
pub(super) fn blob(bytes: &[u8], here: usize, found: &mut Vec<Range<usize>>) -> usize {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte);
    let start = run_back(bytes, here, SECRET_MAX, is_part);
    let end = run(bytes, here, SECRET_MAX, is_part);
    let text = bytes.get(start..end).unwrap_or_default();
    if text.len() < BLOB_MIN || text.split(|byte| !byte.is_ascii_alphanumeric()).any(is_public) {
        return end;
    }
    if is_random(text) {
        found.push(start..end);
    }
    end
}

/// Whether letters and digits follow each other as in a random text.
fn is_random(text: &[u8]) -> bool {
    let count = |is: fn(&u8) -> bool| text.iter().filter(|byte| is(byte)).count();
    let kind = |byte: u8| match byte {
        b'a'..=b'z' => Some(0),
        b'A'..=b'Z' => Some(1),
        b'0'..=b'9' => Some(2),
        _ => None,
    };
    let is_change = |two: &&[u8]| match (kind(at(two, 0)), kind(at(two, 1))) {
        (Some(one), Some(other)) => one != other,
        _ => false,
    };
    let changes = text.windows(2).filter(is_change).count();
    // Of random letters and digits six of ten neighbours differ in kind, of words and paths one or two.
    count(u8::is_ascii_lowercase) > 0
        && count(u8::is_ascii_uppercase) * 6 > text.len()
        && count(u8::is_ascii_digit) > 0
        && changes * 3 > text.len()
}

/// Keys in the path of a URL, whose part behind `://` begins here: `https://rpc.example/v2/KEY`.
pub(super) fn url_keys(bytes: &[u8], from: usize, found: &mut Vec<Range<usize>>) {
    let is_url = |byte: u8| !byte.is_ascii_whitespace() && !b"\"'<>`?#".contains(&byte);
    let end = run(bytes, from, URL_MAX, is_url);
    let is_key = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
    let mut here = run(bytes, from, end - from, |byte| byte != b'/');
    while here < end {
        let next = run(bytes, here + 1, end - here, |byte| byte != b'/').min(end);
        let part = bytes.get(here + 1..next).unwrap_or_default();
        // What ends the sentence is no part of it.
        let length = run_back(part, part.len(), 4, |byte| b".,;:)]}".contains(&byte));
        let part = part.get(..length).unwrap_or_default();
        if part.len() >= URL_KEY_MIN
            && part.iter().all(is_key)
            && !is_public(part)
            && is_random(part)
        {
            found.push(here + 1..here + 1 + part.len());
        }
        here = next.max(here + 1);
    }
}

/// A line of nothing but base64: a part of a key file or of a certificate, whose head stood on a line before.
pub(super) fn encoded_line(bytes: &[u8]) -> Option<Range<usize>> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    let text = bytes.trim_ascii();
    // Most lines have a space among their first bytes.
    if !text.iter().all(is_part) || text.first() == Some(&b'/') {
        return None;
    }
    if text.split(|byte| !byte.is_ascii_alphanumeric()).any(is_public) {
        return None;
    }
    let has = |is: fn(&u8) -> bool| text.iter().any(is);
    let is_padded = text.len().is_multiple_of(4) && text.ends_with(b"=");
    let is_mixed = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    let is_long = text.len() >= LINE_MIN && is_mixed && has(u8::is_ascii_digit);
    let is_key = text.len() >= PADDED_MIN && is_padded && has(u8::is_ascii_alphanumeric);
    let start = bytes.len() - bytes.trim_ascii_start().len();
    (is_long || is_key).then(|| start..start + text.len())
}

/// A UUID, or a hardware address with dashes, whose first part ends this word.
pub(super) fn dashed(bytes: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let start = run_back(bytes, word.end, word.len(), is_hex);
    let length = word.end - start;
    let parts: &[usize] = match length {
        2 => &[2, 2, 2, 2, 2],
        8.. => &[4, 4, 4, 12],
        _ => return None,
    };
    let mut end = word.end;
    for part in parts {
        let to = run(bytes, end + 1, *part, is_hex);
        if at(bytes, end) != b'-' || to - end - 1 != *part {
            return None;
        }
        end = to;
    }
    Some(start..run(bytes, end, SECRET_MAX, is_hex))
}

/// A secret that a vendor gives out, which has a dash after its first word, or behind what an escape left before that.
pub(super) fn vendor(bytes: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let name = bytes.get(word.clone())?;
    let end = || run(bytes, word.end, SECRET_MAX, |byte| is_word(byte) || byte == b'-');
    // Google's keys may have a dash anywhere.
    if DASHED_VENDORS.contains(&name) || name.starts_with(b"AIza") {
        let end = end();
        return (end - word.end > HEX_MIN).then_some(word.start..end);
    }
    let head = DASHED_VENDORS.iter().find(|head| name.ends_with(head))?;
    let start = word.end - head.len();
    // `task-` and `disk-` end like one of them.
    let is_escaped = match start - word.start {
        1 => word.start > 0 && at(bytes, word.start - 1) == b'\\',
        2 => word.start > 0 && at(bytes, word.start - 1) == b'%',
        _ => false,
    };
    let is_divided = at(bytes, start.saturating_sub(1)) == b'_';
    if !is_escaped && !is_divided {
        return None;
    }
    let end = end();
    let is_secret = end - word.end > BEHIND_MIN && is_mixed(bytes.get(word.end..end)?);
    is_secret.then_some(start..end)
}

/// The token of a Telegram bot, whose number ends before this colon.
pub(super) fn bot(bytes: &[u8], colon: usize) -> Option<Range<usize>> {
    let start = run_back(bytes, colon, 12, |byte| byte.is_ascii_digit());
    if colon - start < 6 {
        return None;
    }
    let end = run(bytes, colon + 1, SECRET_MAX, |byte| is_word(byte) || byte == b'-');
    (end - colon > 30).then_some(start..end)
}
