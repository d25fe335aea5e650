//! The demo's flags, and how they are passed on to its processes.

use crate::model::{ModelShape, Transformer, encode};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use dmaplane_kv::{Attention, CacheLayout, DType};
use std::path::PathBuf;

/// Weights of the built-in model follow from this number.
const SEED: u64 = 0x00d3_a91a_4e00_0001;
/// Blocks of different sizes on the two sides, so that fragments must be cut.
const PREFILL_BLOCK_TOKENS: u32 = 32;
const DECODE_BLOCK_TOKENS: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fabric {
    /// Shared memory of one host
    Shm,
    /// Sockets
    Tcp,
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
    /// Prefill answers a transfer that decode has aborted
    ReplayGeneration,
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[derive(Args, Clone, Debug)]
pub struct CommonArguments {
    /// How the two processes are connected
    #[arg(long, value_enum, default_value = "shm")]
    pub fabric: Fabric,
    /// Who moves the cache
    #[arg(long, value_enum, default_value = "push")]
    pub mode: Mode,
    /// Tokens to generate
    #[arg(long, default_value_t = 32)]
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
    #[arg(long)]
    pub prompt_tokens: Option<u32>,
}

#[derive(Args, Clone, Debug)]
pub struct DemoArguments {
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

impl CommonArguments {
    /// The prompt's tokens.
    pub fn prompt_tokens(&self) -> Result<Vec<u32>> {
        let once = encode(&self.prompt);
        ensure!(!once.is_empty(), "the prompt is empty: give at least one character");
        Ok(match self.prompt_tokens {
            Some(tokens) => {
                ensure!(tokens > 0, "--prompt-tokens 0: a prompt has at least one token");
                once.into_iter().cycle().take(tokens as usize).collect()
            }
            None => once,
        })
    }
}

impl DemoArguments {
    fn model_flags(&self) -> Vec<String> {
        let common = &self.common;
        let mut flags = vec![
            "--mode".to_owned(),
            name(common.mode),
            "--tokens".to_owned(),
            common.tokens.to_string(),
            "--shape".to_owned(),
            name(common.shape),
        ];
        if let Some(model) = &common.model {
            flags.extend(["--model".to_owned(), model.display().to_string()]);
        }
        if let Some(sabotage) = common.sabotage {
            flags.extend(["--sabotage".to_owned(), name(sabotage)]);
        }
        flags
    }

    pub fn decode_command(&self, listen: &str) -> Vec<String> {
        let mut command = vec!["demo-decode".to_owned(), "--listen".to_owned(), listen.to_owned()];
        command.extend(self.model_flags());
        command
    }

    pub fn prefill_command(&self, to: &str) -> Vec<String> {
        let mut command = vec!["demo-prefill".to_owned(), "--to".to_owned(), to.to_owned()];
        command.extend(self.model_flags());
        command.extend(["--prompt".to_owned(), self.common.prompt.clone()]);
        if let Some(tokens) = self.common.prompt_tokens {
            command.extend(["--prompt-tokens".to_owned(), tokens.to_string()]);
        }
        command
    }
}
