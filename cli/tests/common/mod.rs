//! The built command as a user runs it, and files for it to move.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

pub mod confined;
pub mod files;
pub mod memory;

/// The built command.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_dmaplane");

/// Nothing in these tests may take longer.
pub const LIMIT: Duration = Duration::from_secs(120);

/// What a command came to.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// Since it was asked for.
    pub took: Duration,
}

impl Ended {
    #[track_caller]
    pub fn succeeded(self) -> Ended {
        assert!(self.status.success(), "{self:?}");
        self
    }

    /// It failed by itself, with one line that says why.
    #[track_caller]
    pub fn failed_with(self, part: &str) -> Ended {
        assert_eq!(self.status.code(), Some(1), "{self:?}");
        let lines: Vec<&str> = self.stderr.lines().filter(|line| !is_log(line)).collect();
        assert_eq!(lines.len(), 1, "one line, not {self:?}");
        assert!(lines[0].starts_with("dmaplane: ") && lines[0].contains(part), "no '{part}' in {:?}", lines[0]);
        self
    }

    /// The last line, which is JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.stdout.lines().last().unwrap_or_default()).expect("the last line is JSON")
    }
}

/// Whether a line of standard error is of the log, not the command's last word.
fn is_log(line: &str) -> bool {
    // The demo's processes have a name before it.
    ["WARN ", "INFO ", "DEBUG "].iter().any(|level| line.contains(level)) && !line.starts_with("dmaplane: ")
}

/// A command that runs. It ends with the test.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
    /// Of both outputs, what was looked at.
    seen: String,
    seen_errors: String,
}

/// Reads lines as they come.
fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (give, lines) = channel();
    std::thread::spawn(move || BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| give.send(line)));
    lines
}

impl Running {
    pub fn start(arguments: &[&str]) -> Running {
        Running::start_with(arguments, &[])
    }

    /// With these variables in its environment.
    pub fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Running {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).envs(variables.iter().copied());
        Running::start_command(command)
    }

    /// By way of another program.
    pub fn start_command(mut command: Command) -> Running {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Running { child, lines: lines(stdout), errors: lines(stderr), seen: String::new(), seen_errors: String::new() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of the log that has this in it.
    #[track_caller]
    pub fn log(&mut self, part: &str) -> String {
        loop {
            let line = self.errors.recv_timeout(LIMIT);
            let line = line.unwrap_or_else(|_| panic!("never said '{part}', but: {}", self.seen_errors));
            self.seen_errors += &format!("{line}\n");
            if line.contains(part) {
                return line;
            }
        }
    }

    /// The next line of standard output.
    pub fn line(&mut self) -> String {
        let line = self.lines.recv_timeout(LIMIT).unwrap_or_default();
        self.seen += &format!("{line}\n");
        line
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Waits for its end; a test fails on what hangs.
    #[track_caller]
    pub fn end(self) -> Ended {
        self.end_within(LIMIT)
    }

    /// The same, for what must not take long.
    #[track_caller]
    pub fn end_within(mut self, limit: Duration) -> Ended {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < limit, "it hangs; it said {:?}", self.seen);
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = start.elapsed();
        let (mut stdout, mut stderr) = (std::mem::take(&mut self.seen), std::mem::take(&mut self.seen_errors));
        self.lines.iter().for_each(|line| stdout += &format!("{line}\n"));
        self.errors.iter().for_each(|line| stderr += &format!("{line}\n"));
        Ended { status, stdout, stderr, took }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn dmaplane(arguments: &[&str]) -> Ended {
    Running::start(arguments).end()
}

pub const FABRICS: [&str; 2] = ["shm", "tcp"];

/// How a command is started: with these arguments, and variables in its environment.
type Start = fn(&[&str], &[(&str, &str)]) -> Running;

/// A folder with a file to send and a place for what is received.
pub struct Bench {
    pub folder: tempfile::TempDir,
    pub fabric: &'static str,
    variables: &'static [(&'static str, &'static str)],
    start: Start,
}

impl Bench {
    pub fn new(fabric: &'static str) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("received")).unwrap();
        Bench { folder, fabric, variables: &[], start: Running::start_with }
    }

    /// Its commands run in the sandbox.
    pub fn confined(fabric: &'static str) -> Bench {
        Bench { start: confined::start_with, ..Bench::new(fabric) }
    }

    /// Its commands say what they do.
    pub fn logging(fabric: &'static str) -> Bench {
        Bench { variables: &[("DMAPLANE_LOG", "debug")], ..Bench::new(fabric) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn out(&self) -> PathBuf {
        self.path("received/out.safetensors")
    }

    pub fn put(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.text(name)
    }

    /// A receiver that listens, and where.
    pub fn recv(&self, more: &[&str]) -> (Running, String) {
        self.recv_into(&self.out(), more)
    }

    pub fn recv_into(&self, out: &Path, more: &[&str]) -> (Running, String) {
        let place = if self.fabric == "shm" { self.text("socket") } else { "127.0.0.1:0".to_owned() };
        let out = out.to_str().unwrap();
        let mut arguments = vec!["recv", "--fabric", self.fabric, "--listen", &place, "--out", out];
        arguments.extend(more);
        let mut running = (self.start)(&arguments, self.variables);
        let line = running.line();
        let Some(place) = line.strip_prefix("listening on ") else {
            panic!("{:?}", running.end());
        };
        (running, place.to_owned())
    }

    pub fn send(&self, place: &str, file: &str, more: &[&str]) -> Running {
        let mut arguments = vec!["send", "--fabric", self.fabric, "--to", place, file];
        arguments.extend(more);
        (self.start)(&arguments, self.variables)
    }

    /// What lies in the folder of the output.
    pub fn received(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("received")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// A whole transfer that must work.
    #[track_caller]
    pub fn transfer(&self, file: &str) {
        let (recv, place) = self.recv(&[]);
        self.send(&place, file, &[]).end().succeeded();
        recv.end().succeeded();
        assert!(files::same(Path::new(file), &self.out()));
        std::fs::remove_file(self.out()).unwrap();
        assert_eq!(self.received(), [""; 0]);
    }
}

/// A number from the environment.
pub fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: no number")))
}
