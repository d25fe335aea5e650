//! The demo's flags, and how they are passed on to its processes.

use crate::host::HostArguments;
use crate::model::{ModelShape, Transformer, encode};
use crate::serve::{PromptArguments, ServeArguments, WorkerArguments};
use anyhow::{Context, Result, ensure};
use clap::builder::ArgPredicate;
use clap::{Args, Subcommand, ValueEnum};
use dmaplane_kv::{Attention, CacheLayout, DType};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Weights of the built-in model follow from this number.
const SEED: u64 = 0x00d3_a91a_4e00_0001;
/// Blocks of different sizes on the two sides, so that fragments must be cut.
const PREFILL_BLOCK_TOKENS: u32 = 32;
const DECODE_BLOCK_TOKENS: u32 = 16;
/// Bytes of cache that decode has room for, and the fewest and most blocks.
const DECODE_POOL_BYTES: u64 = 768 << 20;
const DECODE_BLOCKS: std::ops::RangeInclusive<u32> = 64..=4096;
/// As many as decode ever has room for, prompt and generation together.
const TOKENS_MAX: i64 = *DECODE_BLOCKS.end() as i64 * DECODE_BLOCK_TOKENS as i64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fabric {
    /// Shared memory of one host
    Shm,
    /// Sockets
    Tcp,
    /// Contexts of the kernel driver on one host
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Prefill writes into decode's blocks
    Push,
    /// Decode reads prefill's blocks
    Pull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// 4 KiB of cache a token
    Small,
    /// 256 KiB of cache a token
    Wide,
}

/// A defect made on purpose, that the comparison must catch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// Decode zeroes one block of what arrived
    ZeroBlock,
    /// Decode swaps two blocks of what arrived
    SwapBlocks,
    /// Prefill writes under a live lease, but in the name of a transfer that decode has aborted; push only
    ReplayGeneration,
    /// The lease that moves the cache is over before anything moves
    ReplayLease,
    /// Prefill ends before it connects
    NoPrefill,
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[derive(Args, Clone, Debug)]
pub struct CommonArguments {
    /// How the two processes are connected; local with --device
    #[arg(long, value_enum, default_value = "shm", default_value_if("device", ArgPredicate::IsPresent, "local"))]
    pub fabric: Fabric,
    #[command(flatten)]
    pub host: HostArguments,
    /// Who moves the cache
    #[arg(long, value_enum, default_value = "push")]
    pub mode: Mode,
    /// Tokens to generate
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=TOKENS_MAX))]
    pub tokens: u32,
    /// A Llama model as safetensors, with its config.json beside it; without it, a built-in one with seeded weights
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// The built-in model's shape
    #[arg(long, value_enum, default_value = "small")]
    pub shape: Shape,
    #[arg(long, value_enum, hide = true)]
    pub sabotage: Option<Sabotage>,
    /// The prompt
    #[arg(
        long,
        default_value = "The layer under transport libraries makes sure that a buffer is allocated, placed, \
        shared, registered and safe to reuse; "
    )]
    pub prompt: String,
    /// Repeat the prompt until it has so many tokens
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=TOKENS_MAX))]
    pub prompt_tokens: Option<u32>,
}

/// What else there is to show.
#[derive(Clone, Debug, Subcommand)]
pub enum DemoCommand {
    /// Serve many requests with two prefill and two decode workers, abort some, kill one, and compare every answer
    Serve(ServeArguments),
    #[command(hide = true)]
    ServeWorker(WorkerArguments),
    #[command(hide = true)]
    ServePrompts(PromptArguments),
}

#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DemoArguments {
    #[command(subcommand)]
    pub command: Option<DemoCommand>,
    #[command(flatten)]
    pub common: CommonArguments,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone, Debug)]
pub struct PrefillArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    #[arg(long)]
    pub to: String,
}

/// Decode is not told the prompt.
#[derive(Args, Clone, Debug)]
pub struct DecodeArguments {
    #[command(flatten)]
    pub host: HostArguments,
    #[arg(long, value_enum)]
    pub fabric: Fabric,
    #[arg(long, value_enum)]
    pub mode: Mode,
    #[arg(long)]
    pub tokens: u32,
    #[arg(long)]
    pub model: Option<PathBuf>,
    #[arg(long, value_enum)]
    pub shape: Shape,
    #[arg(long, value_enum)]
    pub sabotage: Option<Sabotage>,
    #[arg(long)]
    pub listen: String,
}

/// Loads or makes the model.
pub fn load_model(model: Option<&PathBuf>, shape: Shape) -> Result<Transformer> {
    match model {
        Some(path) => Transformer::from_safetensors(path).with_context(|| format!("loading {}", path.display())),
        None => {
            let shape = match shape {
                Shape::Small => ModelShape::small(),
                Shape::Wide => ModelShape::wide_cache(),
            };
            Ok(Transformer::seeded(shape, SEED)?)
        }
    }
}

/// The model's cache in blocks of so many tokens.
pub fn layout(shape: &ModelShape, block_tokens: u32) -> Result<CacheLayout> {
    let attention = Attention::GroupedQuery {
        kv_heads: u32::try_from(shape.kv_heads)?,
        head_size: u32::try_from(shape.head_size)?,
    };
    Ok(CacheLayout::new(u32::try_from(shape.layers)?, attention, DType::F32, block_tokens)?)
}

/// Prefill's cache.
pub fn prefill_layout(shape: &ModelShape) -> Result<CacheLayout> {
    layout(shape, PREFILL_BLOCK_TOKENS)
}

/// Decode's cache.
pub fn decode_layout(shape: &ModelShape) -> Result<CacheLayout> {
    layout(shape, DECODE_BLOCK_TOKENS)
}

/// Blocks of decode's pool.
pub fn decode_blocks(layout: &CacheLayout) -> u32 {
    let blocks = DECODE_POOL_BYTES / layout.bytes_per_block();
    u32::try_from(blocks).unwrap_or(u32::MAX).clamp(*DECODE_BLOCKS.start(), *DECODE_BLOCKS.end())
}

impl CommonArguments {
    /// The prompt's tokens, of which decode has room for as many and the generated ones.
    pub fn prompt_tokens(&self, shape: &ModelShape) -> Result<Vec<u32>> {
        let once = encode(&self.prompt);
        ensure!(!once.is_empty(), "the prompt is empty: give at least one character");
        let prompt: Vec<u32> = match self.prompt_tokens {
            Some(tokens) => once.into_iter().cycle().take(tokens as usize).collect(),
            None => once,
        };
        let layout = decode_layout(shape)?;
        let room = u64::from(decode_blocks(&layout)) * u64::from(layout.block_tokens());
        let needed = prompt.len() as u64 + u64::from(self.tokens);
        ensure!(
            needed <= room,
            "decode has room for {room} tokens of this model: shorten the prompt of {}, or generate less than {}",
            prompt.len(),
            self.tokens
        );
        Ok(prompt)
    }
}

/// `--NAME=VALUE`: a value that begins with a dash is a value all the same.
fn flag(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(value);
    flag
}

impl DemoArguments {
    fn model_flags(&self) -> Vec<OsString> {
        let common = &self.common;
        let mut flags = vec![
            flag("fabric", name(common.fabric)),
            flag("mode", name(common.mode)),
            flag("tokens", common.tokens.to_string()),
            flag("shape", name(common.shape)),
        ];
        flags.extend(common.host.flags());
        flags.extend(common.model.as_ref().map(|model| flag("model", model)));
        flags.extend(common.sabotage.map(|sabotage| flag("sabotage", name(sabotage))));
        flags
    }

    pub fn decode_command(&self, listen: &str) -> Vec<OsString> {
        let mut command = vec!["demo-decode".into(), flag("listen", listen)];
        command.extend(self.model_flags());
        command
    }

    pub fn prefill_command(&self, to: &str) -> Vec<OsString> {
        let mut command = vec!["demo-prefill".into(), flag("to", to)];
        command.extend(self.model_flags());
        command.push(flag("prompt", &self.common.prompt));
        command.extend(self.common.prompt_tokens.map(|tokens| flag("prompt-tokens", tokens.to_string())));
        command
    }
}
