//! The bytes that go over the network of a process, and of the machine.
//!
//! Must hold: what a process shares with the machine or with others is not told as its own; of the machine, a byte
//! counts once, however many bridges it goes over.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::process::{sees_kernel, why};
use crate::usage::Unknown;

/// Most bytes of the list of interfaces: 100 bytes for each.
const LIST_BYTES_MAX: u64 = 64 * 1024;

/// The kernel's thread that begins its others, where the machine's processes can be seen.
const KTHREADD: &str = "2";

/// Whether a process has a network of its own, and not the machine's.
pub fn is_own(pid: u32) -> Result<bool, Unknown> {
    let of = |pid: &str| {
        std::fs::read_link(Path::new("/proc").join(pid).join("ns/net")).map_err(|err| why(&err))
    };
    let its = of(&pid.to_string())?;
    // The first process has the machine's, and so has the kernel. Who may look at neither knows only whether he himself
    // has the same.
    let kernels = |why| if sees_kernel() { of(KTHREADD) } else { Err(why) };
    match of("1").or_else(kernels) {
        Ok(machines) => Ok(its != machines),
        Err(_) if of("self").is_ok_and(|ours| ours == its) => Ok(false),
        Err(why) => Err(why),
    }
}

/// Bytes received and sent in the network of a process, over all interfaces except the loopback.
pub fn bytes(pid: u32) -> Result<(u64, u64), Unknown> {
    of_file(&Path::new("/proc").join(pid.to_string()).join("net/dev"))
}

/// Bytes received and sent over each interface of this machine that is a device, by its name. Bridges and the ends of
/// containers' networks are none: what goes over them goes over a device too, or never leaves the machine. An error if
/// there is no device, as within a container.
pub fn of_machine() -> Result<BTreeMap<String, [u64; 2]>, Unknown> {
    let first = text(Path::new("/proc/1/net/dev"));
    let text = first.or_else(|_| text(Path::new("/proc/self/net/dev")))?;
    // Within a container its own interfaces are in the first.
    let places = [Path::new("/proc/1/root/sys/class/net"), Path::new("/sys/class/net")];
    devices(&text, |name| places.iter().any(|it| it.join(name).join("device").exists()))
}

fn devices(
    text: &str,
    is_device: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, [u64; 2]>, Unknown> {
    let mut all = BTreeMap::new();
    for interface in interfaces(text) {
        let (name, bytes) = interface?;
        if is_device(name) {
            all.insert(name.to_owned(), bytes);
        }
    }
    if all.is_empty() { Err(Unknown::NotSupported) } else { Ok(all) }
}

fn of_file(path: &Path) -> Result<(u64, u64), Unknown> {
    traffic(&text(path)?)
}

fn text(path: &Path) -> Result<String, Unknown> {
    let mut text = String::new();
    let file = File::open(path).map_err(|err| why(&err))?;
    let length = file.take(LIST_BYTES_MAX).read_to_string(&mut text).map_err(|err| why(&err))?;
    // The rest of it would be missing.
    if length as u64 >= LIST_BYTES_MAX { Err(Unknown::NotSupported) } else { Ok(text) }
}

/// The name of each interface except the loopback, and what it received and sent, from the text of `/proc/net/dev` (see
/// proc(5)).
fn interfaces(text: &str) -> impl Iterator<Item = Result<(&str, [u64; 2]), Unknown>> {
    let each = text.lines().skip(2).map(|line| {
        let (name, numbers) = line.split_once(':').ok_or(Unknown::Failed)?;
        let mut numbers = numbers.split_ascii_whitespace().map(str::parse::<u64>);
        let mut nth = |at| numbers.nth(at).and_then(Result::ok).ok_or(Unknown::Failed);
        // Eight numbers of what was received come first.
        Ok((name.trim(), [nth(0)?, nth(7)?]))
    });
    each.filter(|it| !matches!(it, Ok(("lo", _))))
}

/// Bytes received and sent, from the text of `/proc/net/dev`. An engine takes the interface of a bridge away at the
/// container's end, with its counters: then nothing is known.
pub(super) fn traffic(text: &str) -> Result<(u64, u64), Unknown> {
    let (mut sum, mut is_there) = ((0_u64, 0_u64), false);
    for interface in interfaces(text) {
        let (_, [received, sent]) = interface?;
        is_there = true;
        sum = (sum.0.saturating_add(received), sum.1.saturating_add(sent));
    }
    if is_there { Ok(sum) } else { Err(Unknown::Gone) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traffic_of_all_interfaces_but_the_loopback_is_summed() {
        let text = "Inter-|   Receive                                                |  Transmit\n face |bytes    \
                    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier \
                    compressed\n    lo: 900 9 0 0 0 0 0 0 900 9 0 0 0 0 0 0\n  eth0: 1500 2 0 0 0 0 0 0 70 1 0 0 0 0 \
                    0 0\n  eth1:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(text), Ok((1501, 72)));
        assert_eq!(traffic("a\nb\n  eth0: 1 2\n"), Err(Unknown::Failed));
        assert_eq!(
            traffic("a\nb\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n"),
            Err(Unknown::Gone),
            "taken away"
        );
    }

    #[test]
    fn of_the_machine_devices_alone_count_and_without_one_nothing_is_known() {
        let text = "a\nb\n  eth0: 1500 2 0 0 0 0 0 0 70 1 0 0 0 0 0 0\n docker0: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n\
                    veth1:9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n";
        let all = devices(text, |name| name == "eth0").unwrap();
        assert_eq!(all, [("eth0".to_owned(), [1500, 70])].into());
        assert_eq!(devices(text, |_| false), Err(Unknown::NotSupported), "not 0");
    }

    #[test]
    fn this_process_has_no_network_of_its_own_and_one_that_ended_is_unknown() {
        assert_eq!(is_own(std::process::id()), Ok(false));
        // The highest number that a process can have.
        assert_eq!((is_own(4_194_303), bytes(4_194_303)), (Err(Unknown::Gone), Err(Unknown::Gone)));
    }
}
