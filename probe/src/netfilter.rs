//! Writes packet filter rules to the kernel's `nf_tables` over netlink, since the image holds no tool for it.
//!
//! A [`Batch`] is applied as a whole or not at all. Attributes are `length, type, value`, padded to four
//! bytes; numbers are big-endian except what is compared with the host's own (interface indexes, states).

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The protocol whose packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4 = 2,
    V6 = 10,
}

/// The place of a chain on a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Input = 1,
    Forward = 2,
    Output = 3,
}

/// The verdict of a rule, or of a chain's end, on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    /// Drops it and tells the sender at once (ICMP: administratively prohibited).
    Reject,
}

/// A condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum When {
    /// It came in over this interface.
    From(u32),
    /// It goes out over this interface.
    Over(u32),
    /// Its transport protocol.
    Protocol(u8),
    /// The first byte of its transport header lies between these.
    Kind(u8, u8),
    /// The byte at this place of its network header.
    Header(u32, u8),
    /// Its destination's bytes under a mask.
    To(Vec<u8>, Vec<u8>),
    /// It belongs to a connection that this namespace began.
    Answers,
}

const TABLE: &str = "lamda";
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFT_MSG_…`.
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
/// `NLM_F_…`.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The register that conditions load into (`NFT_REG_1`).
const REGISTER: u32 = 1;
/// `NLMSG_ERROR`: the kernel's answer, an acknowledgement if its code is 0.
const ANSWER: u16 = 2;
/// Bytes of the kernel's answers to one batch, of which only the codes are read.
const ANSWERS_BYTES: usize = 64 * 1024;

/// Tables, chains and rules that are applied together.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
}

impl Batch {
    pub(crate) fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), sequence: 0 };
        batch.message(0x10, REQUEST, 0, &[]);
        batch
    }

    /// Adds the table that holds this family's chains.
    pub(crate) fn table(&mut self, family: Family) {
        let kind = SUBSYSTEM << 8 | NEW_TABLE;
        self.message(kind, REQUEST | CREATE, family as u8, &text(1, TABLE));
    }

    /// Adds a chain at this hook; `end`: the verdict on packets about which no rule decides.
    pub(crate) fn chain(&mut self, family: Family, hook: Hook, end: Verdict) {
        let place = [number(1, hook as u32), number(2, 0)].concat();
        let policy = u32::from(end == Verdict::Accept);
        let name = format!("{hook:?}");
        let body = [
            text(1, TABLE),
            text(3, &name),
            attribute(4 | NESTED, &place),
            number(5, policy),
            text(7, "filter"),
        ];
        let kind = SUBSYSTEM << 8 | NEW_CHAIN;
        self.message(kind, REQUEST | CREATE, family as u8, &body.concat());
    }

    /// Adds a rule at the chain's end: `then` for packets that meet all conditions of `when`.
    pub(crate) fn rule(&mut self, family: Family, hook: Hook, when: &[When], then: Verdict) {
        let mut expressions: Vec<u8> =
            when.iter().flat_map(|when| condition(family, when)).collect();
        expressions.extend(verdict(family, then));
        let name = format!("{hook:?}");
        let body = [text(1, TABLE), text(2, &name), attribute(4 | NESTED, &expressions)];
        let kind = SUBSYSTEM << 8 | NEW_RULE;
        self.message(kind, REQUEST | CREATE | APPEND | ACK, family as u8, &body.concat());
    }

    /// Applies the batch in this process's network namespace.
    pub(crate) fn apply(mut self) -> Result<(), String> {
        let last = self.sequence - 1;
        self.message(0x11, REQUEST, 0, &[]);
        let failed = |err: rustix::io::Errno| format!("nf_tables: {err}");
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(rustix::net::netlink::NETFILTER),
        )
        .map_err(failed)?;
        rustix::net::send(&socket, &self.bytes, SendFlags::empty()).map_err(failed)?;
        let mut answers = vec![0; ANSWERS_BYTES];
        // The kernel has already carried it out, so its answers are there.
        while let Ok((count, _)) = rustix::net::recv(&socket, &mut answers[..], RecvFlags::DONTWAIT)
        {
            for (sequence, code) in codes(&answers[..count]) {
                if code != 0 {
                    let cause = std::io::Error::from_raw_os_error(-code);
                    return Err(format!("nf_tables refuses message {sequence}: {cause}"));
                }
                if sequence == last {
                    return Ok(());
                }
            }
        }
        Err("nf_tables does not say that it took the rules".to_owned())
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, body: &[u8]) {
        let length = u32::try_from(20 + body.len()).unwrap_or(u32::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        // The sender; the kernel fills it in.
        self.bytes.extend([0; 4]);
        // Version 0; the subsystem counts at a batch's begin and end alone.
        self.bytes.extend([family, 0]);
        self.bytes.extend(if kind < 0x100 { SUBSYSTEM.to_be_bytes() } else { [0; 2] });
        self.bytes.extend(body);
        self.sequence += 1;
    }
}

/// The sequence numbers and codes of the kernel's answers.
fn codes(mut answers: &[u8]) -> Vec<(u32, i32)> {
    let mut found = Vec::new();
    while let Some((head, _)) = answers.split_at_checked(20) {
        let four = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        let length = usize::try_from(u32::from_ne_bytes(four(0))).unwrap_or(usize::MAX);
        if u16::from_ne_bytes([head[4], head[5]]) == ANSWER {
            found.push((u32::from_ne_bytes(four(8)), i32::from_ne_bytes(four(16))));
        }
        let next = length.max(20).next_multiple_of(4).min(answers.len());
        answers = &answers[next..];
    }
    found
}

/// The expressions that go on only if the condition holds.
fn condition(family: Family, when: &When) -> Vec<u8> {
    // `meta`, `payload` and `ct` load into the register, `cmp` and `bitwise` work on it.
    let meta = |key| expression("meta", &[number(1, REGISTER), number(2, key)]);
    let payload = |base, at, length| {
        let place = [number(2, base), number(3, at), number(4, length)].concat();
        expression("payload", &[number(1, REGISTER), place])
    };
    match when {
        When::From(index) => [meta(4), compare(0, &index.to_ne_bytes())].concat(),
        When::Over(index) => [meta(5), compare(0, &index.to_ne_bytes())].concat(),
        When::Protocol(number) => [meta(16), compare(0, &[*number])].concat(),
        // Greater or equal; less or equal.
        When::Kind(from, to) => {
            [payload(2, 0, 1), compare(5, &[*from]), compare(3, &[*to])].concat()
        }
        When::Header(at, byte) => [payload(1, *at, 1), compare(0, &[*byte])].concat(),
        When::To(bytes, mask) => {
            let (at, length) = if family == Family::V4 { (16, 4) } else { (24, 16) };
            [payload(1, at, length), masked(mask), compare(0, bytes)].concat()
        }
        When::Answers => {
            // The connection's state: established or related.
            let state = expression("ct", &[number(1, REGISTER), number(2, 0)]);
            // Not equal to nothing.
            [state, masked(&6_u32.to_ne_bytes()), compare(1, &[0; 4])].concat()
        }
    }
}

/// Compares the register with these bytes.
fn compare(how: u32, bytes: &[u8]) -> Vec<u8> {
    let data = attribute(3 | NESTED, &attribute(1, bytes));
    expression("cmp", &[number(1, REGISTER), number(2, how), data])
}

/// Clears the register's bits outside this mask.
fn masked(mask: &[u8]) -> Vec<u8> {
    let length = u32::try_from(mask.len()).unwrap_or(0);
    let data = |kind: u16, bytes: &[u8]| attribute(kind | NESTED, &attribute(1, bytes));
    let registers = [number(1, REGISTER), number(2, REGISTER), number(3, length)].concat();
    expression("bitwise", &[registers, data(4, mask), data(5, &vec![0; mask.len()])])
}

fn verdict(family: Family, then: Verdict) -> Vec<u8> {
    let code = match then {
        Verdict::Accept => 1,
        Verdict::Drop => 0,
        Verdict::Reject => {
            let prohibited = if family == Family::V4 { 13 } else { 1 };
            return expression("reject", &[number(1, 0), attribute(2, &[prohibited])]);
        }
    };
    let data = attribute(2 | NESTED, &attribute(2 | NESTED, &number(1, code)));
    expression("immediate", &[number(1, 0), data])
}

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    let data = attribute(2 | NESTED, &data.concat());
    attribute(1 | NESTED, &[text(1, name), data].concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_answers_read_to_their_end() {
        assert_eq!(attribute(3, &[7]), [5, 0, 3, 0, 7, 0, 0, 0]);
        let answer = |sequence: u32, code: i32| {
            let head = [36_u32.to_ne_bytes(), [2, 0, 0, 0], sequence.to_ne_bytes(), [0; 4]];
            [head.concat(), code.to_ne_bytes().to_vec(), vec![0; 16]].concat()
        };
        let two = [answer(4, 0), answer(5, -1)].concat();
        assert_eq!(codes(&two), [(4, 0), (5, -1)]);
        assert_eq!(codes(&two[..50]), [(4, 0)]);
        assert_eq!(codes(&[0; 24]), []);
    }
}
