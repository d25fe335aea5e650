//! The flags of `send` and `recv`.

use super::key;
use crate::host::HostArguments;
use anyhow::{Context, Result, ensure};
use clap::builder::ArgPredicate;
use clap::{Args, ValueEnum};
use dmaplane::{Config, Plane};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fabric {
    /// Shared memory of one host: the place is the PATH of a socket
    Shm,
    /// Sockets: the place is HOST:PORT
    Tcp,
    /// Contexts of the kernel driver on one host: the place is a NAME
    Local,
}

impl Fabric {
    /// As it is written in addresses and flags.
    pub fn name(self) -> &'static str {
        match self {
            Fabric::Shm => "shm",
            Fabric::Tcp => "tcp",
            Fabric::Local => "local",
        }
    }

    /// The library's address of a place.
    pub fn address(self, place: &str) -> String {
        format!("{}:{place}", self.name())
    }
}

/// A second to a day.
fn seconds() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=86_400)
}

#[derive(Args, Clone, Debug)]
pub struct CommonArguments {
    /// How the two processes are connected; local with --device
    #[arg(long, value_enum, default_value = "tcp", default_value_if("device", ArgPredicate::IsPresent, "local"))]
    pub fabric: Fabric,
    #[command(flatten)]
    pub host: HostArguments,
    /// The pre-shared key for tcp, which then is encrypted: a file of 32 bytes, or of 64 hexadecimal digits
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Give up on a peer that has said nothing for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = seconds())]
    pub patience: u64,
    /// The last line of the output is one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone, Debug)]
pub struct SendArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// Where `dmaplane recv` listens: HOST:PORT, a PATH with --fabric shm, a NAME with --device
    #[arg(long, value_name = "HOST:PORT|PATH|NAME")]
    pub to: String,
    /// Send at most so many MiB in a second
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub limit_rate: Option<u64>,
    /// The safetensors file
    pub file: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub struct RecvArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// Where to listen: HOST:PORT (port 0 picks one), a PATH with --fabric shm, a NAME with --device
    #[arg(long, value_name = "HOST:PORT|PATH|NAME")]
    pub listen: String,
    /// What the file is to be called; it appears when it is complete and verified, in place of what is there
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Give up when nobody has connected within so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = seconds())]
    pub wait: u64,
}

impl CommonArguments {
    /// The context's settings, the key among them.
    pub fn config(&self) -> Result<Config> {
        let key = self.key_file.as_deref().map(|path: &Path| {
            ensure!(
                self.fabric == Fabric::Tcp,
                "--key-file is for --fabric tcp: {} connects processes of one host and one user, by the kernel's word",
                self.fabric.name()
            );
            key::load(path).with_context(|| format!("--key-file {}", path.display()))
        });
        Ok(Config { key: key.transpose()?, ..Config::default() })
    }

    /// Opens the plane of this command.
    pub fn open(&self, config: Config) -> Result<Plane> {
        self.host.open(self.fabric == Fabric::Local, config)
    }

    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}
