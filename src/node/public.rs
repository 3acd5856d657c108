//! Which addresses are public: what a job with the network `internet` may reach, where a public gateway may
//! send this host, and what `JOB_DNS` may name.
//!
//! Must hold: an address at which the host itself, its network or a cloud's metadata may answer is not
//! public.

use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

/// The blocks that are not public, and who would answer there. In IPv6 they include everything outside
/// `2000::/3`, the part that is assigned to the internet.
pub const NOT_PUBLIC: [&str; 22] = [
    "0.0.0.0/8",        // this host
    "10.0.0.0/8",       // private
    "100.64.0.0/10",    // a provider's own; metadata at Alibaba
    "127.0.0.0/8",      // loopback
    "168.63.129.16/32", // metadata at Azure
    "169.254.0.0/16",   // link-local; metadata at most others
    "172.16.0.0/12",    // private; the engine's bridges
    "192.0.0.0/24",     // protocols; metadata at Oracle
    "192.0.2.0/24",     // documentation
    "192.88.99.0/24",   // 6to4 relays
    "192.168.0.0/16",   // private
    "198.18.0.0/15",    // benchmarks
    "198.51.100.0/24",  // documentation
    "203.0.113.0/24",   // documentation
    "224.0.0.0/4",      // multicast
    "240.0.0.0/4",      // reserved, broadcast
    "::/3",             // loopback, IPv4 in IPv6, NAT64
    "2001::/32",        // Teredo
    "2001:db8::/32",    // documentation
    "2002::/16",        // 6to4
    "4000::/2",         // reserved
    "8000::/1",         // private, link-local, multicast; metadata at Amazon
];

/// Whether an address is public. IPv4 in IPv6 is not, whatever the IPv4 address is.
pub fn is_public(address: IpAddr) -> bool {
    Block::one(address).is_public()
}

/// A block of addresses: all that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    first: IpAddr,
    /// How many bits are the same: 0 to 32 or 128.
    bits: u8,
}

impl Block {
    /// The block of this address alone.
    pub const fn one(address: IpAddr) -> Self {
        Self { first: address, bits: Self::most(address) }
    }

    /// Whether any address in it may be public: it counts as public if it reaches beyond a block that is not.
    pub fn is_public(&self) -> bool {
        let refused = |text: &&str| text.parse::<Self>().is_ok_and(|block| block.covers(self));
        !NOT_PUBLIC.iter().any(refused)
    }

    /// Whether all of `other` lies in this block. IPv4 in IPv6 counts as IPv6.
    fn covers(&self, other: &Self) -> bool {
        let alike = match (self.first, other.first) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                (one.to_bits() ^ other.to_bits()).leading_zeros()
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                (one.to_bits() ^ other.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        self.bits <= other.bits && alike >= u32::from(self.bits)
    }

    const fn most(address: IpAddr) -> u8 {
        if address.is_ipv4() { 32 } else { 128 }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl FromStr for Block {
    type Err = String;

    /// An address, a slash and a number of bits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (first, bits) = text.split_once('/')?;
            let (first, bits) = (first.parse().ok()?, bits.parse().ok()?);
            (bits <= Self::most(first)).then_some(Self { first, bits })
        };
        read().ok_or_else(|| format!("{text:?} is no block of addresses"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_public_or_it_is_not() {
        for address in
            ["8.8.8.8", "100.63.0.1", "172.15.9.9", "172.32.0.1", "2001:db9::1", "2606::1"]
        {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.255.0.1",
            "100.100.100.200",
            "127.0.0.53",
            "168.63.129.16",
            "169.254.169.254",
            "172.17.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.168.1.1",
            "198.19.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::a00:1",
            "2001:0:1::1",
            "2001:db8::1",
            "2002:a00:1::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::fb",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_block_is_public_unless_all_of_it_is_not() {
        for (text, public) in [
            ("10.1.2.0/24", false),
            ("192.0.0.0/16", true),
            ("8.8.8.0/24", true),
            ("0.0.0.0/0", true),
            ("fe80::/64", false),
            ("2a00::/64", true),
        ] {
            let block: Block = text.parse().unwrap();
            assert_eq!((block.is_public(), block.to_string().as_str()), (public, text));
        }
        for text in ["", "8.8.8.8", "8.8.8.0/33", "2a00::/129", "8.8.8/24", "8.8.8.8/-1"] {
            assert!(text.parse::<Block>().is_err(), "{text}");
        }
    }
}
