//! The peers' own programs: where they are, what is missing, and how to get it.

mod answer;
mod process;

pub use process::PeerProcess;

use crate::goals;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const HOW_TO_GET_IT: &str = "run `cargo xtask setup --bench`";

/// One peer in one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// NIXL as it comes: UCX chooses its transport, and NIXL's own thread makes progress.
    NixlDefault,
    /// NIXL for few cores: UCX confined to shared memory, no thread.
    NixlTuned,
    /// UCX's own choice, without the thread.
    NixlCma,
    /// NIXL, its UCX confined to tcp, without the thread.
    NixlTcp,
    /// Mooncake's transfer engine over tcp, the only way that its wheel has on one host.
    Mooncake,
    /// One stream of iperf3.
    Iperf3,
}

impl Kind {
    #[cfg(test)]
    const ALL: [Kind; 6] =
        [Kind::NixlDefault, Kind::NixlTuned, Kind::NixlCma, Kind::NixlTcp, Kind::Mooncake, Kind::Iperf3];

    pub fn name(self) -> &'static str {
        match self {
            Kind::NixlDefault => goals::NIXL_DEFAULT,
            Kind::NixlTuned => goals::NIXL_TUNED,
            Kind::NixlCma => goals::NIXL_CMA,
            Kind::NixlTcp => "NIXL (UCX tcp, progress thread off)",
            Kind::Mooncake => "Mooncake (tcp)",
            Kind::Iperf3 => "iperf3",
        }
    }

    fn program(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Kind::NixlDefault => ("nixl_peer.py", &["--fabric", "default", "--progress-thread"]),
            Kind::NixlTuned => ("nixl_peer.py", &["--fabric", "shm"]),
            Kind::NixlCma => ("nixl_peer.py", &["--fabric", "default"]),
            Kind::NixlTcp => ("nixl_peer.py", &["--fabric", "tcp"]),
            Kind::Mooncake => ("mooncake_peer.py", &[]),
            Kind::Iperf3 => ("iperf3_peer.py", &[]),
        }
    }
}

/// The Python environment in which the peers are installed, or why there is none.
pub struct Peers {
    python: Result<PathBuf, String>,
}

impl Peers {
    /// Looks for the environment, and says loudly when it is missing.
    pub fn find(folder: Option<PathBuf>) -> Peers {
        let python = folder.unwrap_or_else(default_folder).join("bin").join("python");
        if python.exists() {
            return Peers { python: Ok(python) };
        }
        let missing = format!("{} is missing: {HOW_TO_GET_IT}", python.display());
        eprintln!("warning: NIXL, Mooncake and iperf3 are not measured: {missing}");
        Peers { python: Err(missing) }
    }

    /// Starts a peer's program, and says what it reports that it cannot do.
    pub fn start(&self, kind: Kind) -> Result<PeerProcess> {
        let python = match &self.python {
            Ok(python) => python,
            Err(missing) => bail!("{missing}"),
        };
        let (program, arguments) = kind.program();
        let mut command = Command::new(python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(program)).args(arguments);
        command.arg("--stepwise").env("PYTHONDONTWRITEBYTECODE", "1");
        PeerProcess::start(command)
    }
}

/// The folder that `cargo xtask setup --bench` fills.
fn default_folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder));
    target.join("bench-peers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_environment_is_told_with_the_command_that_makes_it() {
        let peers = Peers::find(Some(PathBuf::from("no/such/folder")));
        let error = peers.start(Kind::Iperf3).err().expect("there is none").to_string();
        assert!(error.contains("no/such/folder"), "{error}");
        assert!(error.contains("cargo xtask setup --bench"), "{error}");
    }

    #[test]
    fn the_program_of_each_peer_is_there() {
        for kind in Kind::ALL {
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(kind.program().0).is_file(), "{kind:?}");
        }
    }
}
