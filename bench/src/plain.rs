//! What no library is needed for: a copy in memory, and a socket.

use crate::sample::Measurement;
use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::time::Instant;

/// CPU time of this process so far.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Memory to copy from and into.
pub struct Plain {
    from: Vec<u8>,
    into: Vec<u8>,
    /// The same content as in `from`.
    file: std::fs::File,
}

impl Plain {
    pub fn new(bytes: u64) -> Result<Plain> {
        let from = vec![1; bytes as usize];
        let mut file = std::fs::File::from(rustix::fs::memfd_create("bench", rustix::fs::MemfdFlags::CLOEXEC)?);
        file.write_all(&from)?;
        Ok(Plain { into: vec![0; from.len()], from, file })
    }

    /// One copy within this process.
    pub fn memcpy(&mut self) -> Result<Measurement> {
        self.memcpy_repeated(self.from.len() as u64, 1)
    }

    /// So many copies of that size, one after the other.
    pub fn memcpy_repeated(&mut self, bytes: u64, count: u64) -> Result<Measurement> {
        let (start, cpu_start) = (Instant::now(), cpu_seconds());
        for _ in 0..count {
            self.into[..bytes as usize].copy_from_slice(&self.from[..bytes as usize]);
            std::hint::black_box(&mut self.into);
        }
        Ok(Measurement::transfer(bytes * count, start.elapsed().as_secs_f64(), cpu_seconds() - cpu_start))
    }

    /// One read of it all from a memfd.
    pub fn pread(&mut self) -> Result<Measurement> {
        let (start, cpu_start) = (Instant::now(), cpu_seconds());
        self.file.read_exact_at(&mut self.into, 0)?;
        std::hint::black_box(&mut self.into);
        Ok(Measurement::transfer(self.from.len() as u64, start.elapsed().as_secs_f64(), cpu_seconds() - cpu_start))
    }

    /// One way through a loopback socket between two threads, and a byte back.
    pub fn socket(&mut self) -> Result<Measurement> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (from, into) = (&self.from, &mut self.into);
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || -> Result<()> {
                let (mut socket, _) = listener.accept()?;
                socket.read_exact(into)?;
                Ok(socket.write_all(&[1])?)
            });
            let mut socket = std::net::TcpStream::connect(address)?;
            let (start, cpu_start) = (Instant::now(), cpu_seconds());
            socket.write_all(from)?;
            socket.read_exact(&mut [0])?;
            let (wall_seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu_start);
            if let Ok(result) = reader.join() {
                result?;
            }
            Ok(Measurement::transfer(from.len() as u64, wall_seconds, cpu))
        })
    }
}
