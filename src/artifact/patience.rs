//! How slow a transfer may be before the next gateway is asked.
//!
//! Only time spent waiting for the other side counts: a slow local disk or CPU is not the gateway's
//! fault. Only useful bytes count as progress. Invariants: no transfer lasts forever, whatever is
//! sent and however slowly; a slow home connection is not treated as an attack.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::dag::BLOCK_BYTES_MAX;

/// Bytes per second required on average over twice the longest silence: four fifths of what each of
/// sixteen fetches gets of a 1 Mbit/s line.
const FLOOR_PER_S: u64 = 6 * 1024;
/// Bytes per second required over the whole transfer: half of what a 1 Mbit/s line carries.
const WHOLE_PER_S: u64 = 64 * 1024;
/// Extra time for the whole transfer, in longest silences: ten minutes if one is a minute.
const WHOLE_SILENCES: u32 = 10;
/// Maximum time of a transfer from one gateway: that of 50 GiB over a 5 Mbit/s line.
const WHOLE_MAX: Duration = Duration::from_hours(24);
/// Bytes an archive may have besides its files, whatever their size: headers, folders and names.
const ARCHIVE_BYTES: u64 = 64 * 1024 * 1024;

/// Progress of an object: counted by the assembler, read by the receiver.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Useful bytes received so far.
    pub(super) useful: AtomicU64,
    /// Size of the object in bytes, as far as known.
    pub(super) size: AtomicU64,
}

impl Tally {
    /// Counts `bytes` more useful bytes.
    pub(super) fn add(&self, bytes: usize) {
        self.useful.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Sets the size of the object as far as known.
    pub(super) fn know(&self, bytes: u64) {
        self.size.store(bytes, Ordering::Relaxed);
    }
}

/// Maximum size of an archive whose files have `bytes_max` bytes in total. With the smallest usual
/// chunks, the inner nodes add a few per cent.
pub(super) const fn archive_bytes_max(bytes_max: u64) -> u64 {
    bytes_max.saturating_add(bytes_max / 8).saturating_add(ARCHIVE_BYTES)
}

/// Keeps the time of one transfer.
#[derive(Debug)]
pub(super) struct Patience {
    silence: Duration,
    /// Total time spent waiting for the other side.
    waited: Duration,
    /// Start of the current window: the time waited and the progress at that point.
    window: (Duration, u64),
    /// Useful bytes so far, and bytes received since that number last grew: a block counts as
    /// useful only once it is complete.
    useful: u64,
    under_way: u64,
}

impl Patience {
    /// `silence` is the longest time without any bytes.
    pub(super) const fn new(silence: Duration) -> Self {
        let window = (Duration::ZERO, 0);
        Self { silence, waited: Duration::ZERO, window, useful: 0, under_way: 0 }
    }

    /// Counts the last piece: the time waited for it and its size. `Err` says why the transfer has
    /// to be given up.
    pub(super) fn waited(
        &mut self,
        span: Duration,
        bytes: u64,
        tally: &Tally,
    ) -> Result<(), String> {
        self.waited += span;
        let useful = tally.useful.load(Ordering::Relaxed);
        let size = tally.size.load(Ordering::Relaxed).max(useful);
        self.under_way = if useful > self.useful { 0 } else { self.under_way + bytes };
        self.useful = useful;
        let whole = Duration::from_secs(size / WHOLE_PER_S);
        let whole = (self.silence * WHOLE_SILENCES + whole).min(WHOLE_MAX);
        let seconds = self.waited.as_secs();
        if self.waited > whole {
            return Err(format!("{useful} bytes of use in {seconds} s, of {size}"));
        }
        let (since, before) = self.window;
        let window = self.waited.saturating_sub(since);
        if window < self.silence * 2 {
            return Ok(());
        }
        let floor = u64::try_from(window.as_millis()).unwrap_or(u64::MAX) * FLOOR_PER_S / 1000;
        // Unwanted bytes are no progress: bytes under way count up to the size of one block.
        let progress = useful + self.under_way.min(BLOCK_BYTES_MAX as u64);
        let came = progress.saturating_sub(before);
        if came < floor {
            return Err(format!("{came} bytes of use in {} s", window.as_secs_f32()));
        }
        self.window = (self.waited, progress);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_mins(1);

    /// Seconds that a transfer of this size takes at this speed; `Err` if it is given up.
    fn transfer(size: u64, per_s: u64) -> Result<u64, u64> {
        let (mut patience, tally) = (Patience::new(SILENCE), Tally::default());
        tally.know(size);
        for second in 1.. {
            tally.add(usize::try_from(per_s).unwrap());
            if tally.useful.load(Ordering::Relaxed) >= size {
                return Ok(second);
            }
            patience.waited(Duration::from_secs(1), per_s, &tally).map_err(|_| second)?;
        }
        unreachable!("it ends")
    }

    #[test]
    fn a_slow_line_is_waited_for_and_a_drip_is_not() {
        let (mib, gib) = (1 << 20, 1 << 30);
        assert_eq!(transfer(mib, 7 * 1024), Ok(147));
        assert_eq!(transfer(4 * mib, 125_000 / 16), Ok(537), "a sixteenth of 1 Mbit/s");
        assert_eq!(transfer(gib, 125_000), Ok(8590), "1 Mbit/s");
        assert_eq!(transfer(50 * gib, 625_000), Ok(85_900), "5 Mbit/s");
        assert_eq!(transfer(gib, 4 * 1024), Err(120));
        // Above the floor, but too slow as a whole.
        assert_eq!(transfer(gib, 10 * 1024), Err(600 + 16_384 + 1));
        assert_eq!(transfer(1 << 50, 1 << 20), Err(86_401));
    }

    #[test]
    fn a_minute_of_silence_costs_nobody_the_transfer() {
        let (mut patience, tally) = (Patience::new(SILENCE), Tally::default());
        tally.know(1 << 30);
        patience.waited(Duration::from_secs(59), 0, &tally).unwrap();
        for _ in 0..200 {
            tally.add(20 * 1024);
            patience.waited(Duration::from_secs(1), 20 * 1024, &tally).unwrap();
        }
    }

    #[test]
    fn a_large_block_counts_while_it_comes_and_what_nobody_wants_counts_once() {
        let mut patience = Patience::new(SILENCE);
        let (tally, per_s) = (Tally::default(), 7 * 1024);
        tally.know(1 << 30);
        // Each block takes five minutes, more than twice the window.
        for second in 1..=600_u64 {
            if second % 300 == 0 {
                tally.add(300 * 7 * 1024);
            }
            patience.waited(Duration::from_secs(1), per_s, &tally).unwrap();
        }
        let (mut patience, tally) = (Patience::new(SILENCE), Tally::default());
        tally.know(1 << 30);
        let ends = (1..1000)
            .find(|_| patience.waited(Duration::from_secs(1), 400 * 1024, &tally).is_err());
        assert_eq!(ends, Some(240), "the window after the one in which a block's worth came");
    }

    #[test]
    fn what_comes_without_a_length_has_time_for_what_came() {
        let (mut patience, tally) = (Patience::new(SILENCE), Tally::default());
        let mut seconds = 0;
        let ends = loop {
            seconds += 1;
            tally.add(10 * 1024);
            if patience.waited(Duration::from_secs(1), 10 * 1024, &tally).is_err() {
                break seconds;
            }
        };
        assert!((600..800).contains(&ends), "{ends}");
    }
}
