//! Address prefixes as the node names them: `10.0.0.0/8`, `fc00::/7`, or a plain address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix {
    pub(crate) address: IpAddr,
    /// How many of its leading bits count: 0 to 32 or 128.
    pub(crate) bits: u8,
}

impl Prefix {
    /// The address's bytes, and a mask of the same length.
    pub(crate) fn bytes_and_mask(self) -> (Vec<u8>, Vec<u8>) {
        let bytes = match self.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let ones = |at: usize| (usize::from(self.bits).saturating_sub(at * 8)).min(8);
        let mask: Vec<u8> = (0..bytes.len())
            .map(|at| u8::try_from(0xff_u16 << (8 - ones(at)) & 0xff).unwrap_or(0))
            .collect();
        (bytes.iter().zip(&mask).map(|(byte, mask)| byte & mask).collect(), mask)
    }

    /// Addresses all over it: one near its start, one in the middle, the last.
    pub(crate) fn members(self) -> [IpAddr; 3] {
        match self.address {
            IpAddr::V4(first) => {
                let free = u32::MAX.checked_shr(self.bits.into()).unwrap_or(0);
                let first = first.to_bits();
                [first | free & 1, first | free >> 1, first | free]
                    .map(|bits| IpAddr::V4(bits.into()))
            }
            IpAddr::V6(first) => {
                let free = u128::MAX.checked_shr(self.bits.into()).unwrap_or(0);
                let first = first.to_bits();
                [first | free & 1, first | free >> 1, first | free]
                    .map(|bits| IpAddr::V6(bits.into()))
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let no = || format!("{text} is no address prefix");
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().map_err(|_| no())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = if bits.is_empty() { all } else { bits.parse().map_err(|_| no())? };
        if bits > all { Err(no()) } else { Ok(Self { address, bits }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_masks_what_it_names() {
        for (text, bytes, mask, members) in [
            (
                "172.16.0.0/12",
                &[172, 16, 0, 0][..],
                &[255, 240, 0, 0][..],
                ["172.16.0.1", "172.23.255.255", "172.31.255.255"],
            ),
            ("192.0.2.7", &[192, 0, 2, 7], &[255; 4], ["192.0.2.7"; 3]),
            ("0.0.0.0/0", &[0; 4], &[0; 4], ["0.0.0.1", "127.255.255.255", "255.255.255.255"]),
        ] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(prefix.bytes_and_mask(), (bytes.to_vec(), mask.to_vec()), "{text}");
            assert_eq!(prefix.members().map(|member| member.to_string()), members);
        }
        let members = "::/3".parse::<Prefix>().unwrap().members().map(|one| one.to_string());
        let ones = "ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(members, ["::1".to_owned(), format!("fff:{ones}"), format!("1fff:{ones}")]);
        let (bytes, mask) = "fe80::/10".parse::<Prefix>().unwrap().bytes_and_mask();
        assert_eq!((&bytes[..3], &mask[..3]), (&[0xfe, 0x80, 0][..], &[0xff, 0xc0, 0][..]));
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "x/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
