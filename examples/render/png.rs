//! A minimal PNG writer: 8-bit RGB, each pixel as its difference from the one to the left, and a deflate
//! stream of fixed Huffman codes with matches at a distance of one pixel, which suits even areas.

/// Encodes a picture as a PNG file. `pixels` has red, green and blue of each pixel, row by row.
pub(crate) fn encode(width: u32, height: u32, pixels: &[u8]) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    // 8 bits per channel, RGB, deflate, the standard filters, no interlace.
    header.extend([8, 2, 0, 0, 0]);
    let rows = filtered(pixels, 3 * usize::try_from(width).unwrap_or(usize::MAX));

    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut file, *b"IHDR", &header);
    chunk(&mut file, *b"IDAT", &zlib(&rows));
    chunk(&mut file, *b"IEND", &[]);
    file
}

fn chunk(file: &mut Vec<u8>, kind: [u8; 4], body: &[u8]) {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let checked: Vec<u8> = kind.iter().chain(body).copied().collect();
    file.extend(length.to_be_bytes());
    file.extend(&checked);
    file.extend(crc32(&checked).to_be_bytes());
}

/// Applies filter 1: each byte minus that of the pixel to the left. Even colours become zeros.
fn filtered(pixels: &[u8], row_bytes: usize) -> Vec<u8> {
    let mut rows = Vec::with_capacity(pixels.len() + pixels.len() / row_bytes);
    for row in pixels.chunks(row_bytes) {
        rows.push(1);
        let left = [0; 3].iter().chain(row);
        rows.extend(row.iter().zip(left).map(|(byte, left)| byte.wrapping_sub(*left)));
    }
    rows
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    stream.extend(deflate(data));
    stream.extend(adler32(data).to_be_bytes());
    stream
}

/// Compresses to one block of fixed Huffman codes (RFC 1951, 3.2.6).
fn deflate(data: &[u8]) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push(0b011, 3);
    let mut at = 0;
    while at < data.len() {
        // A run of the same pixel differences repeats at a distance of one pixel.
        let run = run_of(data, at);
        if run >= 3 {
            bits.run(run);
            at += run;
        } else {
            bits.symbol(u16::from(data[at]));
            at += 1;
        }
    }
    bits.symbol(256);
    bits.finish()
}

/// How many bytes from `at` on repeat those of the pixel before, at most `RUN_MAX`.
fn run_of(data: &[u8], at: usize) -> usize {
    const RUN_MAX: usize = 10;
    let Some(before) = at.checked_sub(3) else { return 0 };
    data[at..].iter().zip(&data[before..]).take(RUN_MAX).take_while(|(a, b)| a == b).count()
}

/// A bit stream; the first bit is the lowest of the first byte.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    held: u32,
    count: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        self.held |= value << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.held.to_le_bytes()[0]);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    /// Writes a Huffman code, highest bit first.
    fn code(&mut self, code: u32, count: u32) {
        self.push(code.reverse_bits() >> (32 - count), count);
    }

    fn symbol(&mut self, symbol: u16) {
        let symbol = u32::from(symbol);
        match symbol {
            0..=143 => self.code(0x30 + symbol, 8),
            144..=255 => self.code(0x190 + symbol - 144, 9),
            256..=279 => self.code(symbol - 256, 7),
            _ => self.code(0xc0 + symbol - 280, 8),
        }
    }

    /// Writes a match of 3 to 10 bytes (symbols 257 to 264, no extra bits) at a distance of 3 (code 2).
    fn run(&mut self, length: usize) {
        self.symbol(u16::try_from(254 + length).unwrap_or(257));
        self.code(2, 5);
    }

    fn finish(mut self) -> Vec<u8> {
        self.push(0, 7);
        self.bytes
    }
}

fn crc32(data: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
    };
    !data.iter().fold(u32::MAX, step)
}

fn adler32(data: &[u8]) -> u32 {
    const PRIME: u32 = 65521;
    let step = |(a, b): (u32, u32), byte: &u8| {
        let a = (a + u32::from(*byte)) % PRIME;
        (a, (b + a) % PRIME)
    };
    let (a, b) = data.iter().fold((1, 0), step);
    b << 16 | a
}
