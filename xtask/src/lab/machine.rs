//! One virtual machine: booted, watched, ended.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::initramfs::{self, END, EXIT, MESSAGES, STARTED};
use super::kernel::KernelFiles;
use super::{leaks, messages};
use crate::workspace::Workspace;

/// Boots that may fail before the machine's first program runs: one in ten does, under the emulator.
const BOOTS: usize = 5;
/// How long a machine may take to go once its command has ended.
const GOING: Duration = Duration::from_secs(20);
/// How long a boot may take until then.
const BOOT_TIME: Duration = Duration::from_secs(90);

/// What a machine is to be.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Virtual processors.
    pub processors: u32,
    /// Memory.
    pub memory_mib: u32,
    /// How long the command may take.
    pub time: Duration,
    /// Nodes, among which processors and memory are divided.
    pub nodes: u32,
    /// A device on each node, behind a bridge of its own. Kernels with every checker need a minute to find one.
    pub near_devices: bool,
    /// More of QEMU's arguments.
    pub more: Vec<String>,
}

impl Default for Machine {
    fn default() -> Self {
        Machine {
            processors: 2,
            memory_mib: 2048,
            time: Duration::from_secs(600),
            nodes: 1,
            near_devices: false,
            more: Vec::new(),
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Ran {
    /// The command's exit status.
    pub status: i32,
    /// What it printed.
    pub printed: Vec<String>,
    /// Lines of the kernel's that report a defect.
    pub defects: Vec<String>,
}

/// What became of one boot.
enum Boot {
    Ran(Ran),
    /// The machine's first program never ran.
    NeverStarted,
}

/// Runs a command of a shell in the tree, in a machine of this kernel, and passes what it prints on.
pub fn run(workspace: &Workspace, files: &KernelFiles, machine: &Machine, command: &str) -> Result<Ran> {
    let folder = workspace.target.join("lab/runs").join(std::process::id().to_string());
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let archive = folder.join("initramfs");
    fs::write(&archive, initramfs::make(files, &workspace.root, command)?)?;
    let mut outcome = Ok(Boot::NeverStarted);
    for boot in 1..=BOOTS {
        outcome = once(files, machine, &archive);
        match &outcome {
            Ok(Boot::NeverStarted) => println!("vm: boot {boot} ended before the first program ran"),
            _ => break,
        }
    }
    let _ = fs::remove_dir_all(&folder);
    match outcome? {
        Boot::Ran(ran) => Ok(ran),
        Boot::NeverStarted => bail!("{BOOTS} boots ended before the first program ran"),
    }
}

/// Ends the emulator whatever happens.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Arguments that divide a machine into nodes: each has its share of memory and processors.
fn divided(machine: &Machine) -> Vec<String> {
    let Machine { processors, memory_mib, nodes, .. } = *machine;
    let mut arguments = Vec::new();
    if nodes < 2 {
        return arguments;
    }
    let (share, mib) = (processors / nodes, memory_mib / nodes);
    for node in 0..nodes {
        let cpus = format!("{}-{}", node * share, node * share + share - 1);
        arguments.extend([
            "-object".to_owned(),
            format!("memory-backend-ram,id=m{node},size={mib}M"),
            "-numa".to_owned(),
            format!("node,nodeid={node},cpus={cpus},memdev=m{node}"),
        ]);
    }
    for node in (0..nodes).filter(|_| machine.near_devices) {
        for device in [
            format!("pxb-pcie,id=bridge{node},bus_nr={},numa_node={node},bus=pcie.0", 64 * (node + 1)),
            format!("pcie-root-port,id=port{node},bus=bridge{node},chassis={}", node + 1),
            format!("virtio-rng-pci,bus=port{node}"),
        ] {
            arguments.extend(["-device".to_owned(), device]);
        }
    }
    for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))).filter(|(from, to)| from < to) {
        arguments.extend(["-numa".to_owned(), format!("dist,src={from},dst={to},val=21")]);
    }
    arguments
}

fn once(files: &KernelFiles, machine: &Machine, archive: &Path) -> Result<Boot> {
    let Machine { processors, memory_mib, time, nodes, more, .. } = machine;
    let mut qemu = Command::new("qemu-system-x86_64");
    // Without erms and fsrm a kernel copies and zeroes by words. By strings of bytes, which the emulator runs byte by
    // byte and sometimes leaves after each, a machine stood still for a minute in the zeroing of 4 MiB.
    // A store to a page that has held code looks at everything translated of it, in a list. Little room for
    // translations keeps that short: by default a machine that starts many programs litters all of its memory with
    // them.
    // The emulator keeps vectors of 256 bits in the processor's own, and leaves their upper halves as they are when it
    // calls its functions for floating point, which use SSE: some processors take 100 ns for each change from one to
    // the other, and a model in the machine six times as long.
    const CPU: &str = "max,la57=off,erms=off,fsrm=off,avx=off,avx2=off,fma=off,f16c=off";
    qemu.args(["-accel", "tcg,thread=multi,tb-size=64", "-cpu", CPU]);
    qemu.args(["-machine", "q35", "-nographic", "-no-reboot"]);
    // A socket a node: what shares a cache is not on two.
    let topology = format!("{processors},sockets={nodes},cores={}", processors / nodes);
    qemu.args(["-smp", &topology, "-m", &format!("{memory_mib}M"), "-nic", "none"]);
    qemu.arg("-kernel").arg(&files.image).arg("-initrd").arg(archive);
    // The emulator's time stamp counters are one, which it does not say: a kernel would ask a device for the time.
    // A kernel with every checker makes its terminals of old in four seconds.
    const WORDS: &str = "console=ttyS0 quiet panic=-1 oops=panic log_buf_len=8M tsc=reliable pty.legacy_count=0";
    qemu.args(["-append", WORDS]);
    qemu.args(["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"]);
    qemu.args(["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]).args(more).args(divided(machine));
    let mut child =
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().context("starting QEMU")?;
    let output = child.stdout.take().context("QEMU has no output")?;
    let _emulator = Emulator(child);
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(output);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            if sender.send(line).is_err() {
                return;
            }
            bytes.clear();
        }
    });
    watch(&lines, *time)
}

/// Reads what the machine prints until it ends or its time is up.
fn watch(lines: &Receiver<String>, time: Duration) -> Result<Boot> {
    let (mut printed, mut kernel, mut all) = (Vec::new(), String::new(), Vec::new());
    let (mut started, mut in_messages, mut status) = (false, false, None);
    let mut until = Instant::now() + BOOT_TIME;
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if line.ends_with(STARTED) {
                    started = true;
                    until = Instant::now() + time;
                } else if line == MESSAGES {
                    in_messages = true;
                } else if line == END {
                    in_messages = false;
                } else if let Some(number) = line.strip_prefix(EXIT) {
                    status = number.parse().ok();
                    until = Instant::now() + GOING;
                } else if in_messages {
                    kernel.push_str(&line);
                    kernel.push('\n');
                } else if started {
                    println!("{line}");
                    printed.push(line.clone());
                }
                all.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if status.is_some() => break,
            Err(RecvTimeoutError::Timeout) if !started => return Ok(Boot::NeverStarted),
            Err(RecvTimeoutError::Timeout) => {
                let last = printed.last().map_or("nothing", String::as_str);
                bail!("the command was not done after {} s; the last that it printed: {last}", time.as_secs())
            }
        }
    }
    if !started {
        return Ok(Boot::NeverStarted);
    }
    let Some(status) = status else {
        let defects = messages::defects(&all.join("\n")).join("\n");
        bail!("the machine ended before its command had: {defects}");
    };
    let kernel = leaks::without_control(&printed, &kernel);
    let defects = messages::defects(&kernel).into_iter().map(str::to_owned).collect::<Vec<_>>();
    if !defects.is_empty() {
        println!("{kernel}");
    }
    Ok(Boot::Ran(Ran { status, printed, defects }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(lines: &[&str]) -> Result<Boot> {
        let (sender, receiver) = channel();
        lines.iter().for_each(|line| sender.send((*line).to_owned()).unwrap());
        drop(sender);
        watch(&receiver, Duration::from_secs(1))
    }

    #[test]
    fn a_run_has_its_status_its_output_and_the_kernels_complaints() {
        let Boot::Ran(ran) = watched(&[
            "SeaBIOS",
            "\u{1b}cdmaplane-lab: started",
            "ok one",
            MESSAGES,
            "[1] WARNING: CPU: 0",
            END,
            "dmaplane-lab: exit 3",
        ])
        .unwrap() else {
            panic!("it has started")
        };
        assert_eq!((ran.status, ran.printed, ran.defects.len()), (3, vec!["ok one".to_owned()], 1));
    }

    #[test]
    fn a_boot_that_never_comes_to_the_first_program_is_no_run_and_a_panic_is_a_failure() {
        assert!(matches!(watched(&["SeaBIOS"]), Ok(Boot::NeverStarted)));
        let error = watched(&[STARTED, "[2] Kernel panic - not syncing"]).err().unwrap().to_string();
        assert!(error.contains("Kernel panic"), "{error}");
    }
}
