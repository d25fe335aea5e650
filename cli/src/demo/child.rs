//! A process of the demo.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

/// A child whose standard output is lines for us. It dies with us.
pub struct Child {
    name: &'static str,
    child: std::process::Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Child {
    pub fn spawn(name: &'static str, arguments: &[String]) -> Result<Child> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the {name} process"))?;
        let output = child.stdout.take().context("the child has no standard output")?;
        Ok(Child { name, child, output: BufReader::new(output) })
    }

    /// The next line; the child's own words when there is none.
    pub fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("{}", self.last_words());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Waits for its end; its last line is its report.
    pub fn finish<T: DeserializeOwned>(mut self) -> Result<T> {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{} ({status})", self.last_words());
        }
        let line = rest.lines().last().with_context(|| format!("the {} process said nothing", self.name))?;
        Ok(serde_json::from_str(line)?)
    }

    fn last_words(&mut self) -> String {
        let mut words = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut words);
        }
        format!("the {} process: {}", self.name, words.trim())
    }
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
