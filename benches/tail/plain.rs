//! Reading without rotation: speed, latency, memory.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lamda_node::host::tail::{Config, Read, Start, Tail};

use crate::reader::{LINE, line, run};

const MIB: u64 = 1 << 20;

/// How fast a file of so many MiB is read that lies in memory, beside `wc -l` and `cat`.
pub(crate) fn speed(mib: u64) {
    let dir = tempfile::tempdir_in(".").expect("a folder");
    let path = dir.path().join("x.log");
    let lines = mib * MIB / LINE as u64;
    let mut file = BufWriter::new(File::create(&path).expect("a file"));
    for number in 0..lines {
        file.write_all(line(number).as_bytes()).expect("room");
    }
    file.into_inner().expect("room");
    let count = timed(|| quiet("wc", &["-l"], &path));
    let cat = timed(|| quiet("cat", &[], &path));
    let begun = (Instant::now(), cpu());
    let read = run(read_lines(&path, lines));
    let (wall, cpu) = (begun.0.elapsed(), cpu().saturating_sub(begun.1));
    let speed = |time: Duration| as_f64(mib * MIB / 1_000_000) / time.as_secs_f64();
    println!(
        "{{\"what\":\"plain\",\"mib\":{mib},\"lines\":{read},\"mb_per_s\":{:.0},\"mb_per_core_s\":{:.0},\
         \"wc_mb_per_s\":{:.0},\"cat_mb_per_s\":{:.0},\"share_of_wc\":{:.2}}}",
        speed(wall),
        speed(cpu),
        speed(count),
        speed(cat),
        count.as_secs_f64() / wall.as_secs_f64(),
    );
}

async fn read_lines(path: &Path, count: u64) -> u64 {
    let config = Config { start: Start::Beginning, ..Config::new(path.to_owned()) };
    let (mut tail, mut read) = (Tail::new(config, None), 0);
    while read < count {
        if let Read::Lines { lines, .. } = tail.next().await {
            read += lines.len() as u64;
        }
    }
    read
}

fn quiet(program: &str, words: &[&str], path: &Path) {
    let status = Command::new(program).args(words).arg(path).stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{program}");
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// The time that all threads of this process have used.
fn cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.try_into().unwrap_or_default()
}

/// How soon a line is told of, with inotify and with looks each second; beside how soon a socket of the kernel wakes
/// another task of the same process, which tells how busy the machine is.
pub(crate) fn latency(lines: u64) {
    for inotify in [true, false] {
        let lines = if inotify { lines } else { lines / 10 };
        let dir = tempfile::tempdir_in(".").expect("a folder");
        let path = dir.path().join("x.log");
        File::create(&path).expect("a file");
        let begun = Instant::now();
        let config = Config { inotify, ..Config::new(path.clone()) };
        let (from, to) = UnixDatagram::pair().expect("a socket");
        let writer = std::thread::spawn(move || write_slowly(&path, &from, lines, begun));
        let (mut took, mut woken) = run(async {
            tokio::join!(wait_for(config, lines, begun), wait_for_socket(to, lines, begun))
        });
        writer.join().expect("it wrote");
        took.sort_unstable();
        woken.sort_unstable();
        let at = |took: &[Duration], share: usize| {
            took[(took.len() * share / 1_000).min(took.len() - 1)].as_micros()
        };
        println!(
            "{{\"what\":\"latency\",\"inotify\":{inotify},\"lines\":{lines},\"p50_us\":{},\"p99_us\":{},\
             \"max_us\":{},\"socket_p50_us\":{},\"socket_p99_us\":{}}}",
            at(&took, 500),
            at(&took, 990),
            at(&took, 1_000),
            at(&woken, 500),
            at(&woken, 990),
        );
    }
}

/// Lines that say when they were written, and the same to a socket.
fn write_slowly(path: &Path, socket: &UnixDatagram, lines: u64, begun: Instant) {
    let mut file = OpenOptions::new().append(true).open(path).expect("a file");
    // The reader begins at the end.
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..lines {
        std::thread::sleep(Duration::from_micros(fastrand::u64(1_000..60_000)));
        let now = || format!("{}\n", begun.elapsed().as_micros());
        file.write_all(now().as_bytes()).expect("room");
        socket.send(now().as_bytes()).expect("somebody listens");
    }
}

async fn wait_for_socket(socket: UnixDatagram, count: u64, begun: Instant) -> Vec<Duration> {
    socket.set_nonblocking(true).expect("a socket");
    let socket = tokio::net::UnixDatagram::from_std(socket).expect("a socket");
    let (mut took, mut text) = (Vec::new(), [0; 32]);
    while (took.len() as u64) < count {
        let length = socket.recv(&mut text).await.expect("a number");
        took.push(begun.elapsed().saturating_sub(written(&text[..length])));
    }
    took
}

/// The time that a line says.
fn written(text: &[u8]) -> Duration {
    let text = std::str::from_utf8(text).expect("a number").trim_end();
    Duration::from_micros(text.parse().expect("a number"))
}

async fn wait_for(config: Config, lines: u64, begun: Instant) -> Vec<Duration> {
    let (mut tail, mut took) = (Tail::new(config, None), Vec::new());
    while (took.len() as u64) < lines {
        let Read::Lines { lines, .. } = tail.next().await else { continue };
        let now = begun.elapsed();
        for line in lines {
            took.push(now.saturating_sub(written(&line.bytes)));
        }
    }
    took
}

/// What a process needs for one line of so many MiB.
pub(crate) fn long(mib: u64) {
    let dir = tempfile::tempdir_in(".").expect("a folder");
    let path = dir.path().join("x.log");
    let mut file = File::create(&path).expect("a file");
    let piece = vec![b'x'; usize::try_from(MIB).expect("a small number")];
    for _ in 0..mib {
        file.write_all(&piece).expect("room");
    }
    file.write_all(b"\n").expect("room");
    let own = std::env::current_exe().expect("this program");
    let status = Command::new(own).arg("--read-long").arg(&path).status();
    assert!(status.is_ok_and(|status| status.success()), "it reads");
    fs::remove_file(&path).ok();
}

pub(crate) fn as_f64(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
