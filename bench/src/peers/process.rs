//! A running program of a peer: asked for one figure at a time, with a limit on how long that takes.

use super::answer::{self, Introduction};
use crate::sample::Measurement;
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

const ANSWER_WAIT: Duration = Duration::from_secs(180);
const MESSAGE_LINES: usize = 6;

/// The program and all processes that it starts, which go when this goes.
pub struct PeerProcess {
    child: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
    /// Its standard error: libraries are talkative, so it is shown only when something goes wrong.
    messages: std::fs::File,
    introduction: Introduction,
}

impl PeerProcess {
    /// Starts it and waits until it is ready to measure.
    pub fn start(mut command: Command) -> Result<PeerProcess> {
        let messages = tempfile::tempfile()?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(messages.try_clone()?).process_group(0);
        let mut child = command.spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
        let requests = child.stdin.take().context("a peer's program has no input")?;
        let output = child.stdout.take().context("a peer's program has no output")?;
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let nothing = Introduction {
            peer: String::new(),
            version: String::new(),
            settings: Default::default(),
            figures: Vec::new(),
            cannot: Vec::new(),
        };
        let mut process = PeerProcess { child, requests, answers, messages, introduction: nothing };
        process.introduction = answer::introduction(&process.line()?)?;
        Ok(process)
    }

    pub fn name(&self) -> &str {
        &self.introduction.peer
    }

    pub fn version(&self) -> &str {
        &self.introduction.version
    }

    /// What it is, how it is set up, and what it cannot do here.
    pub fn in_words(&self, called: &str) -> String {
        let mut words = format!("{called} is {} {} with {}", self.name(), self.version(), self.settings());
        for (what, why) in self.cannot() {
            words.push_str(&format!("; it cannot do {what}: {why}"));
        }
        words
    }

    /// Stops it and what it has started, until the guard goes.
    pub fn stopped(&mut self) -> Stopped<'_> {
        self.signal(Signal::STOP);
        Stopped(self)
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, signal);
        }
    }

    /// Its settings, in words.
    pub fn settings(&self) -> String {
        let settings = &self.introduction.settings;
        settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    /// What it cannot do here, and why.
    pub fn cannot(&self) -> impl Iterator<Item = (&str, &str)> {
        self.introduction.cannot.iter().map(|cannot| (cannot.what.as_str(), cannot.why.as_str()))
    }

    /// One measurement of one figure, in that unit.
    pub fn measure(&mut self, key: &str, unit: &str) -> Result<Measurement> {
        match self.introduction.figures.iter().find(|figure| figure.key == key) {
            Some(figure) if figure.unit == unit => {}
            Some(figure) => bail!("{} gives {key} in {}, not in {unit}", self.name(), figure.unit),
            None => bail!("{} has no figure {key}", self.name()),
        }
        if self.requests.write_all(format!("{key}\n").as_bytes()).is_err() {
            return Err(self.ended());
        }
        answer::measurement(&self.line()?)
    }

    fn line(&mut self) -> Result<String> {
        match self.answers.recv_timeout(ANSWER_WAIT) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Disconnected) => Err(self.ended()),
            Err(RecvTimeoutError::Timeout) => {
                self.end();
                Err(anyhow!("no answer within {} s; {}", ANSWER_WAIT.as_secs(), self.last_messages()))
            }
        }
    }

    fn ended(&mut self) -> anyhow::Error {
        self.end();
        anyhow!("its program has ended; {}", self.last_messages())
    }

    fn last_messages(&mut self) -> String {
        let mut text = String::new();
        if self.messages.rewind().and_then(|()| self.messages.read_to_string(&mut text)).is_err() || text.is_empty() {
            return "it said nothing".to_owned();
        }
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        format!("it said last: {}", lines[lines.len().saturating_sub(MESSAGE_LINES)..].join(" / "))
    }

    /// Ends it and what it has started.
    fn end(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A peer that does nothing for now.
pub struct Stopped<'a>(&'a PeerProcess);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const INTRODUCTION: &str = r#"echo '{"peer":"p","version":"1","settings":{"a":"b"},"cannot":[],
        "figures":[{"key":"k","what":"w","unit":"us"}]}' | tr -d '\n'; echo;"#;

    #[test]
    fn a_figure_is_asked_for_by_its_key_and_unit() {
        let script = format!("{INTRODUCTION} read key; echo '{{\"value\": 7}}'; read end");
        let mut process = PeerProcess::start(shell(&script)).unwrap();
        assert_eq!(process.settings(), "a=b");
        assert_eq!(process.measure("k", "us").unwrap().value, 7.0);
        assert!(process.measure("k", "GB/s").is_err());
        assert!(process.measure("other", "us").is_err());
    }

    #[test]
    fn a_stopped_program_answers_when_it_goes_on() {
        let script = format!("{INTRODUCTION} read key; echo '{{\"value\": 7}}'; read end");
        let mut process = PeerProcess::start(shell(&script)).unwrap();
        let state = format!("/proc/{}/stat", process.child.id());
        let is_stopped = || std::fs::read_to_string(&state).unwrap().contains(") T ");
        let stopped = process.stopped();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !is_stopped() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(is_stopped());
        drop(stopped);
        assert_eq!(process.measure("k", "us").unwrap().value, 7.0);
    }

    #[test]
    fn a_program_that_ends_is_told_with_what_it_said() {
        let script = format!("{INTRODUCTION} read key; echo 'error: the reason' >&2");
        let mut process = PeerProcess::start(shell(&script)).unwrap();
        let error = process.measure("k", "us").unwrap_err().to_string();
        assert!(error.contains("the reason"), "{error}");
        let error = PeerProcess::start(shell("echo 'no module' >&2; exit 1")).err().unwrap().to_string();
        assert!(error.contains("no module"), "{error}");
    }
}
