//! The process that writes, and its connection to the one that is written to.

use super::workload::{self, ANSWER, BLOCK_BYTES, BLOCKS, CHECK, LARGE_BYTES, QUESTION, SMALL_WRITES, STATEMENT};
use crate::plain::cpu_seconds;
use crate::sample::{Measurement, median_microseconds};
use anyhow::{Context, Result, ensure};
use dmaplane::{Buffer, Config, Import, IndexPair, List, Peer, Plane};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(30);
const VERDICT_BYTES_MAX: usize = 4096;

/// Two connected processes, all memory of which is present and mapped.
pub struct Pair {
    plane: Plane,
    peer: Peer,
    source: Buffer,
    blocks: List,
    pairs: Vec<IndexPair>,
    leased_buffer: Import,
    leased_list: Import,
    receiver: Receiver,
    /// Where the socket of shm lies.
    _directory: tempfile::TempDir,
}

impl Pair {
    /// Over `shm` or `tcp`.
    pub fn open(fabric: &str) -> Result<Pair> {
        let directory = tempfile::tempdir()?;
        let address = match fabric {
            "shm" => format!("shm:{}", directory.path().join("bench").display()),
            _ => "tcp:127.0.0.1:0".to_owned(),
        };
        let mut receiver = Receiver::start(&address)?;
        let address = receiver.line()?;
        let mut plane = Plane::open(Config::default())?;
        let peer = plane.connect(&address, WAIT)?;
        let token = plane.receive_message(&peer, 4096, WAIT)?;
        let leased_buffer = plane.import(&peer, &token)?;
        let token = plane.receive_message(&peer, 4096, WAIT)?;
        let leased_list = plane.import(&peer, &token)?;
        let mut source = plane.alloc(LARGE_BYTES)?;
        workload::fill(source.as_mut_slice());
        let mut blocks = workload::list(&mut plane)?;
        workload::fill(blocks.bytes_mut(0).unwrap_or_default());
        let pairs = workload::pairs();
        let mut pair =
            Pair { plane, peer, source, blocks, pairs, leased_buffer, leased_list, receiver, _directory: directory };
        // Once each before anything is timed: pages are there and mapped on both sides, and the check finds content.
        pair.write_large()?;
        pair.write_scattered()?;
        Ok(pair)
    }

    pub fn write_large(&mut self) -> Result<Measurement> {
        self.transfer(LARGE_BYTES, |pair| {
            pair.plane.write(&pair.source, 0, &pair.leased_buffer, 0, LARGE_BYTES)?;
            Ok(())
        })
    }

    pub fn write_scattered(&mut self) -> Result<Measurement> {
        self.transfer(BLOCKS * BLOCK_BYTES, |pair| {
            pair.plane.write_list(&pair.blocks, &pair.leased_list, &pair.pairs, STATEMENT, b"")?;
            Ok(())
        })
    }

    /// Until the completion says that the bytes and the immediate have been delivered.
    pub fn write_small(&mut self) -> Result<Measurement> {
        median_microseconds(SMALL_WRITES, || self.write_imm(STATEMENT))
    }

    /// Until the other process's program has seen the immediate and its own message has come back.
    pub fn write_small_answered(&mut self) -> Result<Measurement> {
        median_microseconds(SMALL_WRITES, || {
            self.write_imm(QUESTION)?;
            let arrival = self.plane.receive(&self.peer, WAIT)?;
            ensure!(arrival.payload == ANSWER, "{arrival:?} came where the answer was due");
            Ok(())
        })
    }

    /// Lets the receiver compare what has arrived with what was sent, and ends it.
    pub fn check(mut self) -> Result<()> {
        self.plane.send(&self.peer, CHECK, WAIT)?;
        let verdict = self.plane.receive_message(&self.peer, VERDICT_BYTES_MAX, WAIT)?;
        ensure!(verdict.is_empty(), "{}: our figures mean nothing", String::from_utf8_lossy(&verdict));
        self.plane.disconnect(self.peer)?;
        Ok(())
    }

    fn write_imm(&mut self, immediate: u32) -> Result<()> {
        self.plane.write_imm(&self.source, 0, &self.leased_buffer, 0, BLOCK_BYTES, immediate)?;
        Ok(())
    }

    fn transfer(&mut self, bytes: u64, run: impl FnOnce(&mut Pair) -> Result<()>) -> Result<Measurement> {
        let cpu_start = cpu_seconds() + self.receiver.cpu_seconds()?;
        let start = Instant::now();
        run(self)?;
        let wall_seconds = start.elapsed().as_secs_f64();
        let cpu_seconds = cpu_seconds() + self.receiver.cpu_seconds()? - cpu_start;
        Ok(Measurement::transfer(bytes, wall_seconds, cpu_seconds))
    }
}

/// The other process, this program again. It goes when this goes.
struct Receiver {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Receiver {
    fn start(address: &str) -> Result<Receiver> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["receive", address]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting the receiving process")?;
        let input = child.stdin.take().context("the receiving process has no input")?;
        let output = child.stdout.take().context("the receiving process has no output")?;
        Ok(Receiver { child, input, output: BufReader::new(output) })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the receiving process ended; its message is above");
        Ok(line.trim().to_owned())
    }

    fn cpu_seconds(&mut self) -> Result<f64> {
        self.input.write_all(b"\n")?;
        self.line()?.parse().context("the receiving process's CPU time")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
