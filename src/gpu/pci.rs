//! Graphics cards and accelerators on the PCI bus, whether a driver knows them or not.
//!
//! Read from sysfs, which answers from the kernel's memory and does not wake up cards. Invariant: at most
//! `DEVICES_MAX` devices are read, and text from a file is never shown unchecked.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::report::one_line;

/// Where the kernel lists its PCI devices.
pub const DEVICES: &str = "/sys/bus/pci/devices";
/// More devices than a host with eight cards and their switches has.
const DEVICES_MAX: usize = 4096;
/// More bytes than a class, an id or a product's name has.
const FILE_MAX: u64 = 128;

/// The maker of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// NVIDIA.
    Nvidia,
    /// AMD.
    Amd,
    /// Intel, including integrated graphics.
    Intel,
}

/// A card on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its maker.
    pub maker: Maker,
    /// Its address, such as `0000:03:00.0`.
    pub address: String,
    /// Maker and device in hexadecimal digits, as `lspci -n` prints them.
    pub id: String,
    /// The name that its driver gives it.
    pub name: Option<String>,
}

/// The cards of the three makers, in the order of their addresses. Empty where there is no such folder.
pub fn seen(devices: &Path) -> Vec<Seen> {
    let Ok(entries) = std::fs::read_dir(devices) else { return Vec::new() };
    let mut cards: Vec<Seen> =
        entries.take(DEVICES_MAX).filter_map(|entry| card(&entry.ok()?.path())).collect();
    cards.sort_by(|a, b| a.address.cmp(&b.address));
    cards
}

/// One sentence for each card whose maker is not supported.
pub fn others(devices: &Path) -> Vec<String> {
    let others = seen(devices).into_iter().filter(|card| card.maker != Maker::Nvidia);
    others.map(|card| format!("{}: seen, not supported", card.in_words())).collect()
}

impl Seen {
    /// The card in words: maker, name, address and id.
    pub fn in_words(&self) -> String {
        let maker = match self.maker {
            Maker::Nvidia => "NVIDIA",
            Maker::Amd => "AMD",
            Maker::Intel => "Intel",
        };
        let name = self.name.as_deref().unwrap_or("GPU");
        format!("{maker} {name} at {} ({})", self.address, self.id)
    }
}

fn card(device: &Path) -> Option<Seen> {
    let (class, vendor) = (number(device, "class")?, number(device, "vendor")?);
    let maker = match vendor {
        0x10de => Maker::Nvidia,
        0x1002 => Maker::Amd,
        0x8086 => Maker::Intel,
        _ => return None,
    };
    // Display controllers, and AMD's accelerators without a display.
    let is_card = match class >> 16 {
        0x03 => true,
        0x12 => maker == Maker::Amd,
        _ => false,
    };
    let address = device.file_name()?.to_str()?;
    let plain = address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.');
    if !is_card || !plain {
        return None;
    }
    let id = format!("{vendor:04x}:{:04x}", number(device, "device")?);
    let name = text(device, "product_name").map(|name| one_line(&name, 64));
    let name = name.filter(|name| !name.is_empty());
    Some(Seen { maker, address: address.to_owned(), id, name })
}

fn number(device: &Path, file: &str) -> Option<u32> {
    u32::from_str_radix(text(device, file)?.trim().strip_prefix("0x")?, 16).ok()
}

fn text(device: &Path, file: &str) -> Option<String> {
    let mut text = String::new();
    File::open(device.join(file)).ok()?.take(FILE_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(bus: &Path, address: &str, files: [&str; 3]) {
        let folder = bus.join(address);
        std::fs::create_dir(&folder).unwrap();
        for (file, text) in ["class", "vendor", "device"].into_iter().zip(files) {
            std::fs::write(folder.join(file), format!("{text}\n")).unwrap();
        }
    }

    #[test]
    fn cards_of_the_three_makers_are_seen_and_nothing_else() {
        let bus = tempfile::tempdir().unwrap();
        let bus = bus.path();
        device(bus, "0000:05:00.0", ["0x038000", "0x1002", "0x740f"]);
        device(bus, "0000:03:00.0", ["0x030000", "0x1002", "0x744c"]);
        std::fs::write(bus.join("0000:03:00.0/product_name"), "Radeon\u{1b}[2J RX\n").unwrap();
        device(bus, "0000:06:00.0", ["0x120000", "0x1002", "0x74a1"]);
        device(bus, "0000:00:02.0", ["0x030000", "0x8086", "0x56c0"]);
        device(bus, "0000:00:06.0", ["0x030200", "0x10de", "0x2330"]);
        // A server's console, a bridge, a network card, another's accelerator, and rubbish.
        device(bus, "0000:07:00.0", ["0x030000", "0x1a03", "0x2000"]);
        device(bus, "0000:00:01.0", ["0x060400", "0x8086", "0x0001"]);
        device(bus, "0000:08:00.0", ["0x020000", "0x8086", "0x0002"]);
        device(bus, "0000:09:00.0", ["0x120000", "0x8086", "0x0003"]);
        device(bus, "0000:0a:00.0", ["0x03", "display", ""]);
        device(bus, "a strange name", ["0x030000", "0x1002", "0x0001"]);
        std::fs::write(bus.join("file"), "0x030000").unwrap();

        assert_eq!(
            others(bus),
            [
                "Intel GPU at 0000:00:02.0 (8086:56c0): seen, not supported",
                "AMD Radeon [2J RX at 0000:03:00.0 (1002:744c): seen, not supported",
                "AMD GPU at 0000:05:00.0 (1002:740f): seen, not supported",
                "AMD GPU at 0000:06:00.0 (1002:74a1): seen, not supported",
            ]
        );
        assert_eq!(seen(bus).len(), 5);
        assert_eq!(seen(&bus.join("nothing")), []);
    }
}
