//! How fast tcp writes are beside a plain socket copy, in one run: `cargo run --release -p dmaplane --example
//! tcp_rate`.
//!
//! The plain copy is what iperf3 does by default: one stream, 128 KiB buffers that stay in the cache on both sides.
//! Ours moves memory that does not. Rounds alternate, so that what else the machine does hits both.

use dmaplane::{Buffer, Config, Import, Plane, Rights, RunMode};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

const ROUNDS: usize = 15;
const WAIT: Duration = Duration::from_secs(30);
const LENGTH: u64 = 64 << 20;
const PER_ROUND: u64 = 8;

/// `span` bytes are walked through on both sides, `step` at a time.
fn plain(span: usize, step: usize) -> f64 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sender = std::thread::spawn(move || {
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        let buffer = vec![1u8; span];
        for _ in 0..LENGTH * PER_ROUND / span as u64 {
            buffer.chunks(step).for_each(|chunk| socket.write_all(chunk).unwrap());
        }
    });
    let mut socket = listener.accept().unwrap().0;
    let mut buffer = vec![1u8; span];
    let start = Instant::now();
    let (mut bytes, mut at) = (0, 0);
    loop {
        let end = buffer.len().min(at + step);
        match socket.read(&mut buffer[at..end]).unwrap() {
            0 => break,
            read => (bytes, at) = (bytes + read, (at + read) % span),
        }
    }
    sender.join().unwrap();
    bytes as f64 / start.elapsed().as_secs_f64() / 1e9
}

struct Pair {
    a: Plane,
    _b: Plane,
    import: Import,
    buffers: Vec<Buffer>,
}

/// A byte there and a byte back.
fn plain_round_trip() -> Duration {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let echo = std::thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        socket.set_nodelay(true).unwrap();
        let mut byte = [0];
        while socket.read(&mut byte).unwrap() > 0 {
            socket.write_all(&byte).unwrap();
        }
    });
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    let start = Instant::now();
    for _ in 0..5000 {
        socket.write_all(&[1]).unwrap();
        socket.read_exact(&mut [0]).unwrap();
    }
    let each = start.elapsed() / 5000;
    drop(socket);
    echo.join().unwrap();
    each
}

fn pair(key: Option<[u8; 32]>, mode: RunMode) -> Pair {
    let config = Config { key, mode, ..Config::default() };
    let mut b = Plane::open(config.clone()).unwrap();
    let (listener, address) = b.listen("tcp:127.0.0.1:0").unwrap();
    let mut a = Plane::open(config).unwrap();
    let to_b = a.connect(&address, WAIT).unwrap();
    let to_a = b.accept(&listener, WAIT).unwrap();
    let buffer = b.alloc(LENGTH).unwrap();
    let leased = b.grant(buffer, Rights::WRITE.with(Rights::READ)).unwrap();
    let token = b.token(&leased).unwrap();
    let import = a.import(&to_b, &token).unwrap();
    std::mem::forget((leased, to_a, to_b));
    let buffers = vec![a.alloc(LENGTH).unwrap(), a.alloc(LENGTH).unwrap()];
    Pair { a, _b: b, import, buffers }
}

fn writes(pair: &mut Pair) -> f64 {
    let mut free = std::mem::take(&mut pair.buffers);
    let start = Instant::now();
    let mut flying = std::collections::VecDeque::new();
    for _ in 0..PER_ROUND {
        if free.is_empty() {
            let operation: dmaplane::Operation<_> = flying.pop_front().unwrap();
            let (result, buffer) = operation.finish(&mut pair.a, WAIT).unwrap();
            result.unwrap();
            free.push(buffer);
        }
        let buffer = free.pop().unwrap();
        flying.push_back(pair.a.start_write(buffer, 0, &pair.import, 0, LENGTH).map_err(|(error, _)| error).unwrap());
    }
    for operation in flying {
        let (result, buffer) = operation.finish(&mut pair.a, WAIT).unwrap();
        result.unwrap();
        free.push(buffer);
    }
    let rate = (LENGTH * PER_ROUND) as f64 / start.elapsed().as_secs_f64() / 1e9;
    pair.buffers = free;
    rate
}

fn small(pair: &mut Pair, length: u64) -> Duration {
    let source = pair.a.alloc(length).unwrap();
    let start = Instant::now();
    for _ in 0..2000 {
        pair.a.write(&source, 0, &pair.import, 0, length).unwrap();
    }
    let each = start.elapsed() / 2000;
    pair.a.free(source).unwrap();
    each
}

/// Seconds of CPU that this process has used: unlike a rate, hardly touched by what else the machine does.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let ticks = stat.rsplit(')').next().unwrap().split(' ').skip(12).take(2);
    ticks.map(|word| word.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// Rate in GB/s, and seconds of CPU a GB.
fn measured(run: impl FnOnce() -> f64) -> (f64, f64) {
    let before = cpu_seconds();
    let rate = run();
    (rate, (cpu_seconds() - before) / ((LENGTH * PER_ROUND) as f64 / 1e9))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let poller = Config::default().mode;
    let (mut open, mut sealed) = (pair(None, poller), pair(Some([1; 32]), poller));
    let mut all = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let values = [
            measured(|| plain(128 << 10, 128 << 10)),
            measured(|| plain(LENGTH as usize, 256 << 10)),
            measured(|| writes(&mut open)),
            measured(|| writes(&mut sealed)),
        ];
        all.iter_mut().zip(values).for_each(|(all, value)| all.push(value));
    }
    let rates = all.clone().map(|all| all.into_iter().map(|(rate, _)| rate).collect::<Vec<_>>());
    // Each round beside the plain copy just before it.
    let ratio = |index: usize| median(rates[index].iter().zip(&rates[0]).map(|(rate, plain)| rate / plain).collect());
    let ratios = [ratio(0), ratio(1), ratio(2), ratio(3)].map(|ratio| ratio * 100.0);
    let ours = rates.map(median);
    let cpu = all.map(|all| median(all.into_iter().map(|(_, cpu)| cpu).collect()));
    let names = ["plain socket copy", "the same, cold", "writes of 64 MiB", "the same, sealed"];
    for (index, what) in names.into_iter().enumerate() {
        let (rate, ratio, cpu) = (ours[index], ratios[index], cpu[index]);
        println!("{what:18} {rate:.2} GB/s ({ratio:.0} %), {cpu:.2} s of CPU a GB");
    }
    let mut inline = pair(None, RunMode::Inline);
    println!("one at a time: a plain round trip {:?}", plain_round_trip());
    for length in [64, 4096, 65536] {
        let (poller, inline) = (small(&mut open, length), small(&mut inline, length));
        println!("  a write of {length} bytes: by a poller {poller:?}, inline {inline:?}");
    }
}
