//! Running programs: with their output streamed on and read line by line, or captured.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Output};
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail};

/// Has make do as much at once as there are processors for.
pub fn jobs() -> String {
    format!("-j{}", available_parallelism().map_or(1, usize::from))
}

/// Runs a program, passes its output on as it comes and gives each line of it to `on_line`.
///
/// Standard output and standard error are one pipe, so that lines keep their order. The command is
/// taken by value, because it holds the pipe's writing end and so has to go before the end is seen.
pub fn stream(mut command: Command, mut on_line: impl FnMut(&str)) -> Result<ExitStatus> {
    let description = describe(&command);
    println!("$ {description}");
    let (reader, writer) = io::pipe().context("making a pipe")?;
    command.stdout(writer.try_clone().context("cloning a pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("starting {description}"))?;
    drop(command);

    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).context("reading output")? > 0 {
        let line = String::from_utf8_lossy(&bytes);
        print!("{line}");
        io::stdout().flush().context("writing output")?;
        on_line(line.trim_end());
        bytes.clear();
    }
    child.wait().with_context(|| format!("waiting for {description}"))
}

/// Runs a program, streams its output, and says whether it succeeded.
pub fn succeeds(command: Command) -> Result<bool> {
    Ok(stream(command, |_| {})?.success())
}

/// Runs a program to its end and gives its standard output; its standard error is in the error.
pub fn capture(mut command: Command) -> Result<String> {
    let description = describe(&command);
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("starting {description}"))?;
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr);
        bail!("{description}: {status}\n{}", stderr.trim_end());
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Runs a program to its end and gives its status and all that it printed, errors last.
pub fn capture_all(mut command: Command) -> Result<(ExitStatus, String)> {
    let description = describe(&command);
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("starting {description}"))?;
    let printed = [String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)].concat();
    Ok((status, format!("$ {description}\n{printed}")))
}

/// Whether a program starts and succeeds; its output goes nowhere.
#[must_use]
pub fn probe(mut command: Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// The program and its arguments as one would type them, with the variables that change what it does.
fn describe(command: &Command) -> String {
    const UNREMARKABLE: [&str; 3] = ["PATH", "CARGO_TERM_COLOR", "CARGO_NET_OFFLINE"];
    let mut words = Vec::new();
    for (name, value) in command.get_envs() {
        let name = name.to_string_lossy();
        if let Some(value) = value.filter(|_| !UNREMARKABLE.contains(&name.as_ref())) {
            words.push(format!("{name}={}", quote(&value.to_string_lossy())));
        }
    }
    words.push(quote(&command.get_program().to_string_lossy()));
    words.extend(command.get_args().map(|argument| quote(&argument.to_string_lossy())));
    words.join(" ")
}

fn quote(word: &str) -> String {
    if word.contains([' ', '*', '$', '(']) { format!("'{word}'") } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_arrive_in_order_and_the_status_is_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three; exit 7"]);
        let mut lines = Vec::new();
        let status = stream(command, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
        assert_eq!(status.code(), Some(7));
    }

    #[test]
    fn a_captured_failure_carries_what_the_program_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo the reason >&2; exit 3"]);
        let error = capture(command).unwrap_err().to_string();
        assert!(error.contains("the reason"), "{error}");
    }

    #[test]
    fn a_description_names_the_variables_that_matter() {
        let mut command = Command::new("cargo");
        command.args(["test", "--test", "*"]).env("RUSTFLAGS", "--cfg loom").env("PATH", "x");
        assert_eq!(describe(&command), "RUSTFLAGS='--cfg loom' cargo test --test '*'");
    }
}
