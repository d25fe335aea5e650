//! What both sides say to each other, and what both look at.

use dmaplane::asynchronous::{AsyncPeer, AsyncPlane};
use dmaplane::{Error, Usage};
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// Whatever went wrong.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The client reads.
    Yes,
    /// The client writes.
    No,
}

/// What the client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Lease memory.
    Lease { number: u32, length: u32, reading: Reading },
    /// The transfer has succeeded: look at the memory.
    Ended { number: u32, length: u32, notified: bool },
    /// The transfer was dropped: use the memory for something else.
    Dropped { number: u32 },
    /// Say whether memory was written to afterwards, and let go of everything.
    Report,
    /// Say how much processor time you use when there is nothing to do.
    Idle { milliseconds: u32 },
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Leased { number: u32, token: Vec<u8> },
    Checked { number: u32, right: bool },
    Report { damaged: u32 },
    Idle { millionths: u32 },
}

fn words(words: [u32; 4]) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn parse(bytes: &[u8]) -> Option<([u32; 4], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<16>()?;
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(head.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    Some((words, rest))
}

impl Order {
    pub async fn send(self, to: &AsyncPeer) -> Result<(), Error> {
        let message = match self {
            Order::Lease { number, length, reading } => [0, number, length, u32::from(reading == Reading::Yes)],
            Order::Ended { number, length, notified } => [1, number, length, u32::from(notified)],
            Order::Dropped { number } => [2, number, 0, 0],
            Order::Report => [3, 0, 0, 0],
            Order::Idle { milliseconds } => [4, milliseconds, 0, 0],
        };
        to.send(&words(message)).await
    }

    pub fn parse(bytes: &[u8]) -> Option<Order> {
        let ([kind, number, length, flags], _) = parse(bytes)?;
        Some(match kind {
            0 => Order::Lease { number, length, reading: if flags == 1 { Reading::Yes } else { Reading::No } },
            1 => Order::Ended { number, length, notified: flags == 1 },
            2 => Order::Dropped { number },
            3 => Order::Report,
            4 => Order::Idle { milliseconds: number },
            _ => return None,
        })
    }
}

impl Answer {
    pub async fn send(&self, to: &AsyncPeer) -> Result<(), Error> {
        let mut bytes = words(match self {
            Answer::Leased { number, .. } => [0, *number, 0, 0],
            Answer::Checked { number, right } => [1, *number, u32::from(*right), 0],
            Answer::Report { damaged } => [2, *damaged, 0, 0],
            Answer::Idle { millionths } => [3, *millionths, 0, 0],
        });
        if let Answer::Leased { token, .. } = self {
            bytes.extend_from_slice(token);
        }
        to.send(&bytes).await
    }

    pub fn parse(bytes: &[u8]) -> Option<Answer> {
        let ([kind, number, flag, _], rest) = parse(bytes)?;
        Some(match kind {
            0 => Answer::Leased { number, token: rest.to_vec() },
            1 => Answer::Checked { number, right: flag != 0 },
            2 => Answer::Report { damaged: number },
            3 => Answer::Idle { millionths: number },
            _ => return None,
        })
    }
}

/// Bytes that differ everywhere and by `seed`.
pub fn fill(bytes: &mut [u8], seed: u32) {
    let mut random = Random::new(seed.into());
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]));
}

/// Whether [`fill`] made these.
pub fn fills(bytes: &[u8], seed: u32) -> bool {
    let mut random = Random::new(seed.into());
    bytes.chunks(8).all(|chunk| *chunk == random.next().to_le_bytes()[..chunk.len()])
}

/// A generator that is good enough here.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }
}

/// Waits until a plane has no more in use than it had; how long it took. Without a `base`: until it is at rest.
pub async fn settled(plane: &AsyncPlane, base: Option<Usage>) -> Result<Duration, Failure> {
    let start = Instant::now();
    let mut before = plane.usage();
    loop {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let now = plane.usage();
        if base.is_some_and(|base| base == now) || base.is_none() && now == before {
            return Ok(start.elapsed());
        }
        before = now;
        if start.elapsed() > Duration::from_secs(20) {
            return Err(format!("something leaks: {now:?}, not {base:?}").into());
        }
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The share of one core that this process uses while nothing is under way, after it has had time to go to sleep.
pub async fn idle_cpu(over: Duration) -> f64 {
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (start, before) = (Instant::now(), processor_time());
    tokio::time::sleep(over).await;
    (processor_time() - before).as_secs_f64() / start.elapsed().as_secs_f64()
}
