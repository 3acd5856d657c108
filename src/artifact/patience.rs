//! How slow a transfer may be before the next gateway is asked.
//!
//! Time counts only while the other side is waited for: a slow disk or a busy processor of our own
//! is no gateway's fault. Bytes count only where they are of use. What must hold: no transfer lasts
//! for ever, whatever is sent and however slowly; a slow line at somebody's home is no attack.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::dag::BLOCK_BYTES_MAX;

/// Bytes a second that must come on average over twice the longest silence: four fifths of what each
/// of sixteen fetches has of a line of 1 Mbit/s.
const FLOOR_PER_S: u64 = 6 * 1024;
/// Bytes a second for the whole of it: half of what a line of 1 Mbit/s carries.
const WHOLE_PER_S: u64 = 64 * 1024;
/// Longest silences that the whole may last beside that: ten minutes.
const WHOLE_SILENCES: u32 = 10;
/// No transfer from one gateway lasts longer: 50 GiB over a line of 5 Mbit/s.
const WHOLE_MAX: Duration = Duration::from_hours(24);
/// What an archive holds beside its files, whatever their size: headers, folders and names.
const ARCHIVE_BYTES: u64 = 64 * 1024 * 1024;

/// How an object comes along: counted where it is put together, looked at where it is received.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Bytes that came and are of use.
    pub(super) useful: AtomicU64,
    /// Bytes of the object, as far as is known.
    pub(super) size: AtomicU64,
}

impl Tally {
    /// So many more bytes of use came.
    pub(super) fn add(&self, bytes: usize) {
        self.useful.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The object is known to have so many bytes.
    pub(super) fn know(&self, bytes: u64) {
        self.size.store(bytes, Ordering::Relaxed);
    }
}

/// What an archive of files with so many bytes together may have. The nodes above the smallest
/// usual blocks are some per cent of them.
pub(super) const fn archive_bytes_max(bytes_max: u64) -> u64 {
    bytes_max.saturating_add(bytes_max / 8).saturating_add(ARCHIVE_BYTES)
}

/// One transfer's.
#[derive(Debug)]
pub(super) struct Patience {
    silence: Duration,
    /// Time that the other side was waited for.
    waited: Duration,
    /// Where the present window began: waited, progress.
    window: (Duration, u64),
    /// Bytes of use so far, and what came since they last grew: a block counts as useful only when
    /// all of it is there.
    useful: u64,
    under_way: u64,
}

impl Patience {
    /// `silence`: how long nothing at all may come.
    pub(super) const fn new(silence: Duration) -> Self {
        let window = (Duration::ZERO, 0);
        Self { silence, waited: Duration::ZERO, window, useful: 0, under_way: 0 }
    }

    /// Takes the time in that the last piece was waited for, and its bytes; why the transfer is given
    /// up, where it is.
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
        // What nobody wants is no progress: no more counts than one block may have.
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

    /// How many seconds a transfer of this size lasts at this speed; `Err` where it is given up.
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
        // Above the floor, and still without an end.
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
        // Each block takes some five minutes, twice the window and more.
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
