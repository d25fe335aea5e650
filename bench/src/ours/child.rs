//! Another process of ours: this program again, which goes when its owner goes.

use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

pub struct Child {
    child: std::process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Child {
    pub fn start(arguments: &[&str]) -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting the other process")?;
        let input = child.stdin.take().context("the other process has no input")?;
        let output = child.stdout.take().context("the other process has no output")?;
        Ok(Child { child, input, output: BufReader::new(output) })
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the other process ended; its message is above");
        Ok(line.trim().to_owned())
    }

    /// Its CPU time so far, for one whose input is served by [`answer_cpu_seconds`].
    pub fn cpu_seconds(&mut self) -> Result<f64> {
        self.input.write_all(b"\n")?;
        self.line()?.parse().context("the other process's CPU time")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the other process: its CPU time for each line of input. When the input ends, its owner is gone, and it ends too.
pub fn answer_cpu_seconds() {
    std::thread::spawn(|| {
        for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
            println!("{}", crate::plain::cpu_seconds());
        }
        std::process::exit(0);
    });
}
