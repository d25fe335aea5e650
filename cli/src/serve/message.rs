//! What router and workers say to each other: JSON in frames, over the worker's standard input and output.

use anyhow::{Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read, Write};

/// Far more than any message has.
const FRAME_BYTES_MAX: u32 = 16 << 20;

/// One attempt at a request. A request that is tried again is another job, so that nothing late is taken for it.
pub type Job = u64;

/// A transfer's manifest on its way through the router, which cannot read it: the lease's token is inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    pub prefill_shard: u32,
    pub decode_shard: u32,
    /// In hexadecimal.
    pub manifest: String,
}

/// What the router tells a worker.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Order {
    /// To prefill: a decode worker's shards listen here. It may have been known under other addresses.
    Dial { name: String, addresses: Vec<String> },
    /// To prefill: compute this prompt's cache for `to`. Push: write it where the manifests say.
    Prefill { job: Job, prompt: Vec<u32>, to: String, passages: Vec<Passage> },
    /// To decode: a cache comes from `from`. Pull: read it as the manifests say.
    Decode { job: Job, prompt_tokens: u32, generate: u32, from: String, passages: Vec<Passage> },
    /// End this job; its blocks are wanted at once.
    Abort { job: Job },
    /// No more jobs will come: say what is left, and end.
    Stop,
}

/// How a job ended on a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// This worker's part is done.
    Done,
    /// The router ordered it.
    Aborted,
    /// The other worker is gone, or has ended its part.
    FarSide,
    /// Something else is wrong.
    Failed,
}

/// A generated answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Answer {
    pub tokens: Vec<u32>,
    /// Digest of the logits of the first token, bit for bit.
    pub first_logits: u64,
    /// Digest of the logits of all others.
    pub logits: u64,
}

/// What a worker has done since it started, and what it has now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Jobs that it has in hand.
    pub jobs: u32,
    /// Tokens computed.
    pub tokens: u64,
    /// The fewest free blocks of any of its shards.
    pub blocks_free: u32,
    /// Blocks of each shard.
    pub blocks: u32,
    /// Transfers under way, of all its shards.
    pub transfers: u32,
    /// Bytes that came, or that were written elsewhere.
    pub bytes_moved: u64,
    /// Leases, claimed leases and lists in use, of all its shards.
    pub leases: u64,
    pub imports: u64,
    pub lists: u64,
    /// How long each abort took since the last status, from the order to memory that may be used again: where the
    /// memory was leased to the other worker, and where only this one's operations touched it.
    pub aborts_ns: Vec<u64>,
    pub withdrawals_ns: Vec<u64>,
}

/// What a worker tells the router.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Report {
    /// It serves; its shards listen here (decode only).
    Ready {
        addresses: Vec<String>,
    },
    /// Who owns the memory of a transfer has leased it.
    Opened {
        job: Job,
        passages: Vec<Passage>,
    },
    /// Prefill computes.
    Started {
        job: Job,
    },
    /// The first layer is on its way.
    Moving {
        job: Job,
    },
    /// Prefill has computed all, and the last layer is on its way.
    Computed {
        job: Job,
    },
    /// Decode has the whole cache.
    Landed {
        job: Job,
    },
    /// Decode has generated all.
    Answered {
        job: Job,
        answer: Answer,
    },
    /// Nothing of this job is left on this worker.
    Ended {
        job: Job,
        ending: Ending,
        why: String,
    },
    Status(Status),
    /// The last word, after [`Order::Stop`].
    Stopped(Status),
}

/// Writes a message in its frame.
pub fn write(to: &mut impl Write, message: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    ensure!(length <= FRAME_BYTES_MAX, "a message of {} bytes, at most {FRAME_BYTES_MAX} are allowed", text.len());
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&text)?;
    Ok(to.flush()?)
}

/// Reads the next message; `None` where the other side has ended between two.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let length = u32::from_le_bytes(length);
    ensure!(length <= FRAME_BYTES_MAX, "a message of {length} bytes, at most {FRAME_BYTES_MAX} are allowed");
    let mut text = vec![0; length as usize];
    from.read_exact(&mut text)?;
    Ok(Some(serde_json::from_slice(&text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_pipe_and_its_end_is_told_from_a_cut() {
        let passage = Passage { prefill_shard: 1, decode_shard: 0, manifest: "00ff".into() };
        let sent = [
            Order::Dial { name: "D1".into(), addresses: vec!["tcp:127.0.0.1:1".into()] },
            Order::Decode { job: 7, prompt_tokens: 3, generate: 4, from: "P0".into(), passages: vec![passage] },
            Order::Stop,
        ];
        let mut pipe = Vec::new();
        sent.iter().for_each(|order| write(&mut pipe, order).unwrap());
        let mut rest = &pipe[..];
        for order in &sent {
            assert_eq!(read::<Order>(&mut rest).unwrap().as_ref(), Some(order));
        }
        assert_eq!(read::<Order>(&mut rest).unwrap(), None);
        assert!(read::<Order>(&mut &pipe[..pipe.len() - 1]).is_ok(), "the first is whole");
        assert!(read::<Order>(&mut &pipe[..9]).is_err(), "a cut message is not an end");
    }

    #[test]
    fn a_frame_of_absurd_length_is_refused_before_it_is_allocated() {
        let error = read::<Order>(&mut &[0xff; 8][..]).unwrap_err();
        assert_eq!(error.to_string(), "a message of 4294967295 bytes, at most 16777216 are allowed");
    }

    #[test]
    fn what_is_no_order_is_an_error() {
        let mut frame = 2u32.to_le_bytes().to_vec();
        frame.extend(b"{}");
        assert!(read::<Order>(&mut &frame[..]).is_err());
    }
}
