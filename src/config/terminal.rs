//! The terminal that the program was started from: asks for a secret without echo.
//!
//! Must hold: after the question the terminal is as it was before, also after Ctrl-C; nothing that was typed
//! stays in memory; no wait is endless.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};

use rustix::process::getpgrp;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Longest answer in bytes: more than anybody types or pastes.
const BYTES_MAX: usize = 1024;

/// How long one read waits, in tenths of a second (`VTIME`): close to the most that a terminal takes.
const READ_TENTHS: u8 = 250;

/// Reads that may end with nothing: five minutes without a key end the question.
const READS_MAX: u32 = 12;

const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const CTRL_U: u8 = 0x15;
const CTRL_BACKSLASH: u8 = 0x1c;
const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;

/// The controlling terminal, while the program is in its foreground.
#[derive(Debug)]
pub struct Terminal(File);

impl Terminal {
    /// Opens the terminal. Fails if there is none or if the program is in its background: a read would then
    /// stop the program (SIGTTIN).
    pub fn open() -> io::Result<Self> {
        let terminal = File::options().read(true).write(true).open("/dev/tty")?;
        if tcgetpgrp(&terminal)? != getpgrp() {
            return Err(io::Error::other("the program runs in the background of its terminal"));
        }
        Ok(Self(terminal))
    }

    /// Asks, and reads a line without echo. Ctrl-C, Ctrl-D and silence end it with an error.
    pub fn ask(&mut self, question: &str) -> io::Result<Secret> {
        let mut hidden = Hidden::start(&self.0)?;
        (&self.0).write_all(question.as_bytes())?;
        let answer = hidden.read_line();
        drop(hidden);
        (&self.0).write_all(b"\n")?;
        answer
    }
}

/// A terminal without echo and signals; restored on drop.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn start(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut modes = before.clone();
        // With signals on, Ctrl-C would end the program and leave the terminal without its echo.
        modes.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        modes.special_codes[SpecialCodeIndex::VMIN] = 0;
        modes.special_codes[SpecialCodeIndex::VTIME] = READ_TENTHS;
        tcsetattr(terminal, OptionalActions::Flush, &modes)?;
        Ok(Self { terminal, before })
    }

    fn read_line(&mut self) -> io::Result<Secret> {
        let mut line = Zeroizing::new(Vec::with_capacity(BYTES_MAX));
        loop {
            match self.read_byte()? {
                b'\r' | b'\n' => break,
                CTRL_C | CTRL_BACKSLASH => return Err(io::Error::other("interrupted")),
                CTRL_D => return Err(ErrorKind::UnexpectedEof.into()),
                CTRL_U => line.clear(),
                BACKSPACE | DELETE => erase_last(&mut line),
                _ if line.len() == BYTES_MAX => {
                    return Err(io::Error::other("that is too long"));
                }
                byte => line.push(byte),
            }
        }
        let text = std::str::from_utf8(&line);
        text.map(Secret::new).map_err(|_| io::Error::other("that is not UTF-8 text"))
    }

    fn read_byte(&mut self) -> io::Result<u8> {
        let mut byte = Zeroizing::new([0]);
        for _ in 0..READS_MAX {
            match self.terminal.read(byte.as_mut_slice()) {
                Ok(0) => {}
                Ok(_) => return Ok(byte[0]),
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Err(io::Error::new(ErrorKind::TimedOut, "nobody answered"))
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        tcsetattr(self.terminal, OptionalActions::Flush, &self.before).ok();
    }
}

/// Removes the last character, however many bytes it has.
fn erase_last(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_erased_whole() {
        let mut line = "pä".as_bytes().to_vec();
        erase_last(&mut line);
        assert_eq!(line, b"p");
        erase_last(&mut line);
        erase_last(&mut line);
        assert!(line.is_empty());
    }
}
