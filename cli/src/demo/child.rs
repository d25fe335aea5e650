//! A process of the demo.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a child is looked at that is not waited for for ever.
const GLANCE: Duration = Duration::from_millis(5);

/// A child whose standard output is lines for us. It dies with us.
pub struct Child {
    name: &'static str,
    child: std::process::Child,
    lines: Receiver<String>,
    /// What it says on standard error, read all the time so that it never has to wait for us.
    words: Option<JoinHandle<String>>,
}

impl Child {
    pub fn spawn(name: &'static str, arguments: &[OsString]) -> Result<Child> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the {name} process"))?;
        let output = child.stdout.take().context("the child has no standard output")?;
        let errors = child.stderr.take().context("the child has no standard error")?;
        let (give, lines) = channel();
        std::thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|l| give.send(l)));
        let words = std::thread::spawn(move || listen_to_words(name, errors));
        Ok(Child { name, child, lines, words: Some(words) })
    }

    /// The next line; the child's own words when there is none.
    pub fn read_line(&mut self) -> Result<String> {
        match self.lines.recv() {
            Ok(line) => Ok(line),
            Err(_) => bail!("{}", self.last_words()),
        }
    }

    /// Waits for its end; its last line is its report.
    pub fn finish<T: DeserializeOwned>(mut self) -> Result<T> {
        let last = self.lines.iter().last();
        let status = self.child.wait()?;
        self.report(last, status)
    }

    /// The same, but it is ended when it takes longer.
    pub fn finish_within<T: DeserializeOwned>(mut self, limit: Duration) -> Result<T> {
        let deadline = Instant::now() + limit;
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() < deadline => std::thread::sleep(GLANCE),
                None => bail!("the {} process still waited {} s later", self.name, limit.as_secs()),
            }
        };
        let last = self.lines.iter().last();
        self.report(last, status)
    }

    fn report<T: DeserializeOwned>(&mut self, line: Option<String>, status: ExitStatus) -> Result<T> {
        if !status.success() {
            bail!("{} ({status})", self.last_words());
        }
        let line = line.with_context(|| format!("the {} process said nothing", self.name))?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Why it ended, in one line.
    fn last_words(&mut self) -> String {
        let words = self.words.take().and_then(|words| words.join().ok()).unwrap_or_default();
        let error = words.lines().rfind(|line| line.starts_with("dmaplane: "));
        let words = match error.and_then(|line| line.strip_prefix("dmaplane: ")) {
            Some(error) => error.to_owned(),
            None if words.is_empty() => "ended without a word".to_owned(),
            None => words.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        format!("the {} process: {words}", self.name)
    }
}

/// Reads what a child says on standard error. Its log, if one was asked for, is passed on as it comes.
pub fn listen_to_words(name: &str, errors: impl Read) -> String {
    let pass_on = std::env::var_os("DMAPLANE_LOG").is_some();
    let mut words = String::new();
    for line in BufReader::new(errors).lines().map_while(Result::ok) {
        if pass_on && !line.starts_with("dmaplane: ") {
            eprintln!("{name}: {line}");
        } else {
            words += &format!("{line}\n");
        }
    }
    words
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends this process when its parent ends, however that happens.
pub fn die_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}
