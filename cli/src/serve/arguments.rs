//! Flags of `demo serve`, and how they are passed on to its workers.

use super::cluster::MEMBERS;
use crate::demo::arguments::{Fabric, Mode};
use crate::host::HostArguments;
use clap::builder::ArgPredicate;
use clap::{Args, ValueEnum};
use dmaplane_kv::ChecksumAlgorithm;
use std::ffi::OsString;
use std::path::PathBuf;

/// What guards a cache on its way besides its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Checksum {
    /// Nothing: an answer is right because leases hold
    None,
    /// CRC-32C of each part
    Crc32c,
    /// XXH3 of the whole sequence
    Xxh3,
}

impl From<Checksum> for ChecksumAlgorithm {
    fn from(checksum: Checksum) -> ChecksumAlgorithm {
        match checksum {
            Checksum::None => ChecksumAlgorithm::None,
            Checksum::Crc32c => ChecksumAlgorithm::Crc32c,
            Checksum::Xxh3 => ChecksumAlgorithm::Xxh3,
        }
    }
}

#[derive(Args, Clone, Debug)]
pub struct ServeArguments {
    /// How long requests come
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// How the workers are connected; local with --device
    #[arg(long, value_enum, default_value = "shm", default_value_if("device", ArgPredicate::IsPresent, "local"))]
    pub fabric: Fabric,
    #[command(flatten)]
    pub host: HostArguments,
    /// Who moves the caches
    #[arg(long, value_enum, default_value = "push")]
    pub mode: Mode,
    /// What is checked besides leases
    #[arg(long, value_enum, default_value = "none")]
    pub checksum: Checksum,
    /// Requests at any time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub requests: u32,
    #[command(flatten)]
    pub asked: PromptArguments,
    /// No table while it runs; the last line is one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone, Debug)]
pub struct PromptArguments {
    /// Prompts, aborts and kills follow from this number
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Prompts that are asked over and over: each is answered in one process first
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u32).range(6..=256))]
    pub prompts: u32,
}

#[derive(Args, Clone, Debug)]
pub struct WorkerArguments {
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(MEMBERS.map(|member| member.name)))]
    pub name: String,
    #[arg(long, value_enum)]
    pub fabric: Fabric,
    #[command(flatten)]
    pub host: HostArguments,
    #[arg(long, value_enum)]
    pub mode: Mode,
    #[arg(long, value_enum)]
    pub checksum: Checksum,
    #[arg(long)]
    pub seed: u64,
    /// Where sockets of this life of the worker go
    #[arg(long)]
    pub folder: PathBuf,
}

impl WorkerArguments {
    /// Where a shard listens.
    pub fn address(&self, shard: u32) -> String {
        match self.fabric {
            Fabric::Shm => format!("shm:{}", self.folder.join(format!("shard-{shard}")).display()),
            Fabric::Tcp => "tcp:127.0.0.1:0".to_owned(),
            Fabric::Local => format!("local:{}", self.folder.join(format!("shard-{shard}")).display()),
        }
    }

    /// The command that starts this worker.
    pub fn command(&self) -> Vec<OsString> {
        let name = |value: OsString, flag: &str| {
            let mut argument = OsString::from(format!("--{flag}="));
            argument.push(value);
            argument
        };
        let of = |value: clap::builder::PossibleValue| OsString::from(value.get_name().to_owned());
        let fabric = self.fabric.to_possible_value().map(of).unwrap_or_default();
        let mode = self.mode.to_possible_value().map(of).unwrap_or_default();
        let checksum = self.checksum.to_possible_value().map(of).unwrap_or_default();
        let mut command = vec![
            "demo".into(),
            "serve-worker".into(),
            name(self.name.clone().into(), "name"),
            name(fabric, "fabric"),
            name(mode, "mode"),
            name(checksum, "checksum"),
            name(self.seed.to_string().into(), "seed"),
            name(self.folder.clone().into(), "folder"),
        ];
        command.extend(self.host.flags());
        command
    }
}
