//! Addresses: of people, of hosts.

use std::ops::Range;

use super::bytes::{at, is_hex, is_word, run, run_back};

/// The longest name of a person or a host that is looked for, in bytes.
const NAME_MAX: usize = 255;

/// Addresses that are everybody's.
const NOBODYS: [&[u8]; 3] = [b"127.0.0.1", b"0.0.0.0", b"255.255.255.255"];

/// A mail address, or a user at a host, around a separator (`@` or `%40`).
pub(super) fn mail(bytes: &[u8], here: usize, separator: usize) -> Option<Range<usize>> {
    let is_local = |byte: u8| is_word(byte) || b".%+-~'*&!#$".contains(&byte);
    let quoted = || {
        let open = run_back(bytes, here - 1, NAME_MAX, |byte| byte != b'"');
        (open > 0 && at(bytes, open - 1) == b'"').then(|| open - 1)
    };
    let mut start = run_back(bytes, here, NAME_MAX, is_local);
    if start == here && here > 0 && at(bytes, here - 1) == b'"' {
        start = quoted()?;
    }
    // A quote before an address in a list is no part of it.
    start = run(bytes, start, NAME_MAX, |byte| matches!(byte, b'\'' | b'*' | b'&' | b'!' | b'#'));
    let from = here + separator;
    let is_domain = |byte: u8| is_word(byte) || matches!(byte, b'.' | b'-');
    let end = run(bytes, from, NAME_MAX, is_domain);
    let end = run_back(bytes, end, NAME_MAX, |byte| matches!(byte, b'.' | b'-')).max(from);
    let domain = bytes.get(from..end)?;
    // `name@14.2.1` is a version; `name@10.0.0.1` is none.
    let is_version = domain.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
        && domain.split(|byte| *byte == b'.').count() != 4;
    (start < here && !domain.is_empty() && !is_version).then_some(start..end)
}

/// The user and the password of a URL, whose part behind `://` begins here.
pub(super) fn user_of_url(bytes: &[u8], from: usize) -> Option<Range<usize>> {
    let is_url = |byte: u8| !byte.is_ascii_whitespace() && !b"\"'<>`".contains(&byte);
    let end = run(bytes, from, 2 * NAME_MAX, is_url);
    let host_end = run(bytes, from, end - from, |byte| !b"/?#".contains(&byte));
    let user = |to: usize| {
        let length = bytes.get(from..to)?.iter().rposition(|byte| *byte == b'@')?;
        (length > 0).then(|| from..from + length)
    };
    // A password may hold a slash that should have been escaped; `/@name` is a path.
    let is_user = |span: &Range<usize>| {
        at(bytes, span.end - 1) != b'/'
            && bytes.get(span.clone()).is_some_and(|it| it.contains(&b':'))
    };
    user(end).filter(is_user).or_else(|| user(host_end))
}

/// The host in a multiaddress such as `/dns4/host/tcp/1`.
pub(super) fn dns(bytes: &[u8], here: usize) -> Option<Range<usize>> {
    let rest = bytes.get(here..)?;
    let head = [&b"/dns/"[..], b"/dns4/", b"/dns6/", b"/dnsaddr/"]
        .into_iter()
        .find(|head| rest.starts_with(head))?;
    let from = here + head.len();
    let end = run(bytes, from, NAME_MAX, |byte| is_word(byte) || matches!(byte, b'.' | b'-'));
    (end > from).then_some(from..end)
}

/// An IPv4 address whose first number ends this word.
pub(super) fn v4(bytes: &[u8], word: &Range<usize>, separator: u8) -> Option<Range<usize>> {
    let digits = run_back(bytes, word.end, word.len(), |byte| byte.is_ascii_digit());
    let (start, mut end) = (digits, word.end);
    octet(bytes.get(start..end)?)?;
    for _ in 0..3 {
        let from = end + 1;
        let to = run(bytes, from, 4, |byte| byte.is_ascii_digit());
        if at(bytes, end) != separator {
            return None;
        }
        octet(bytes.get(from..to)?)?;
        end = to;
    }
    let text = bytes.get(start..end)?;
    // Nobody has an address of network 0: such is a time of llama.cpp, or a version.
    let is_network_0 = text.starts_with(b"0.");
    (!is_network_0 && !NOBODYS.contains(&text)).then_some(start..end)
}

/// A number of an address, without leading zeros, which times and versions have.
fn octet(digits: &[u8]) -> Option<u8> {
    if digits.len() > 1 && digits.starts_with(b"0") {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// An address in the name that a cloud gives a host: `ip-10-0-0-7`, `ec2-198-51-100-7`, `host-10-0-0-7`.
pub(super) fn cloud_host(bytes: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let name = bytes.get(word.clone())?;
    if ![&b"ip"[..], b"ec2", b"host"].iter().any(|head| name.ends_with(head)) {
        return None;
    }
    let first = run(bytes, word.end + 1, 4, |byte| byte.is_ascii_digit());
    v4(bytes, &(word.end + 1..first), b'-')
}

/// An IPv6 address or a hardware address around this colon, its first.
pub(super) fn v6(bytes: &[u8], here: usize) -> Option<Range<usize>> {
    let next = at(bytes, here + 1);
    let is_three = next == b':' && at(bytes, here + 2) == b':';
    if is_three || next != b':' && !is_hex(next) {
        return None;
    }
    let start = run_back(bytes, here, 5, is_hex);
    let is_word_before = start > 0 && is_word(at(bytes, start - 1));
    if here - start > 4 || is_word_before {
        return None;
    }
    let is_part = |byte: u8| is_hex(byte) || byte == b':';
    // Bounded by the longest fingerprint, of 32 bytes.
    let end = run(bytes, start, 96, is_part);
    if end - start < 3 {
        return None;
    }
    let text = bytes.get(start..end).unwrap_or_default();
    let has_gap = text.windows(2).any(|two| two == b"::");
    // A time has two colons, and is no address.
    if !has_gap && text.split(|byte| *byte == b':').count() < 6 {
        return None;
    }
    let is_single = |text: &[u8], first: usize, second: usize| {
        at(text, first) == b':' && at(text, second) != b':'
    };
    let skipped = usize::from(is_single(text, 0, 1));
    let length = text.len();
    let cut = usize::from(length > 1 && is_single(text, length - 1, length - 2));
    let inner = text.get(skipped..length - cut).unwrap_or_default();
    let span = start + skipped..end - cut;
    let parts = || inner.split(|byte| *byte == b':');
    let filled = parts().filter(|part| !part.is_empty()).count();
    let is_hardware = filled >= 6 && parts().all(|part| part.len() == 2);
    let is_short = parts().all(|part| part.len() <= 4);
    let is_own = inner == b"::1" || filled == 0;
    let goes_on = cut == 0 && is_word(at(bytes, end));
    let is_v6 = is_short && !is_own && !goes_on && (filled == 8 || has_gap && filled < 8);
    if !is_hardware && !is_v6 {
        return None;
    }
    // An IPv4 address may be its last part.
    let is_mapped = at(bytes, end) == b'.' && has_gap;
    let tail = if is_mapped { run(bytes, end, 16, |b| b.is_ascii_digit() || b == b'.') } else { 0 };
    Some(span.start..span.end.max(tail))
}
