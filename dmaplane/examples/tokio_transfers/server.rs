//! The side that owns the memory: leases it, and looks at what came of it.

use super::workload::{Answer, Failure, Order, Reading, fill, fills, idle_cpu, settled};
use dmaplane::asynchronous::{AsyncPeer, AsyncPlane};
use dmaplane::{Buffer, Config, Leased, Rights, Usage};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// What is in memory whose lease has ended.
const AFTER: u8 = 0x5a;

#[derive(Default)]
struct Books {
    leases: HashMap<u32, Leased<Buffer>>,
    immediates: HashSet<u32>,
    /// Memory that transfers were dropped on: revoked, filled anew, and to stay so.
    reused: Vec<Buffer>,
}

/// Serves one client until it is gone. `ready` is told the address.
pub async fn serve(address: &str, ready: impl FnOnce(&str)) -> Result<(), Failure> {
    let plane = AsyncPlane::open(Config::default())?;
    let (listener, address) = plane.listen(address)?;
    ready(&address);
    let peer = Arc::new(plane.accept(&listener).await?);
    settled(&plane, None).await?;
    // With all of its receives posted: the first orders may be there already.
    let base = Usage { operations: 16, ..plane.usage() };
    let books = Arc::new(Mutex::new(Books::default()));
    let mut tasks = JoinSet::new();
    loop {
        let arrival = match peer.receive().await {
            Ok(arrival) => arrival,
            Err(error) if error.is_disconnect() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if let Some(immediate) = arrival.immediate {
            books.lock().await.immediates.insert(immediate);
            continue;
        }
        match Order::parse(&arrival.payload).ok_or("an order that nobody gives")? {
            Order::Report => {
                while let Some(task) = tasks.join_next().await {
                    task??;
                }
                let damaged = books.lock().await.reused.drain(..).filter(|buffer| !holds_only(buffer, AFTER)).count();
                *books.lock().await = Books::default();
                settled(&plane, Some(base)).await?;
                Answer::Report { damaged: damaged as u32 }.send(&peer).await?;
            }
            Order::Idle { milliseconds } => {
                let share = idle_cpu(Duration::from_millis(milliseconds.into())).await;
                Answer::Idle { millionths: (share * 1e6) as u32 }.send(&peer).await?;
            }
            order => {
                tasks.spawn(one(plane.clone(), peer.clone(), books.clone(), order));
                while let Some(task) = tasks.try_join_next() {
                    task??;
                }
            }
        }
    }
}

fn holds_only(buffer: &Buffer, byte: u8) -> bool {
    buffer.as_slice().iter().all(|&other| other == byte)
}

async fn one(plane: AsyncPlane, peer: Arc<AsyncPeer>, books: Arc<Mutex<Books>>, order: Order) -> Result<(), Failure> {
    match order {
        Order::Lease { number, length, reading } => {
            let mut buffer = plane.alloc(length.into()).await?;
            let rights = match reading {
                Reading::Yes => {
                    fill(&mut buffer.as_mut_slice()[..length as usize], number);
                    Rights::READ
                }
                Reading::No => Rights::WRITE,
            };
            let leased = plane.grant_to(buffer, rights, &peer).await?;
            let token = plane.token(&leased).await?;
            books.lock().await.leases.insert(number, leased);
            Answer::Leased { number, token }.send(&peer).await?;
        }
        Order::Ended { number, length, notified } => {
            let leased = books.lock().await.leases.remove(&number).ok_or("a lease that is not there")?;
            let delivered = !notified || books.lock().await.immediates.contains(&number);
            let buffer = plane.revoke(leased).await?;
            // Read or written, it holds its pattern.
            let right = delivered && fills(&buffer.as_slice()[..length as usize], number);
            Answer::Checked { number, right }.send(&peer).await?;
        }
        Order::Dropped { number } => {
            let leased = books.lock().await.leases.remove(&number).ok_or("a lease that is not there")?;
            let mut buffer = plane.revoke(leased).await?;
            buffer.as_mut_slice().fill(AFTER);
            books.lock().await.reused.push(buffer);
            Answer::Checked { number, right: true }.send(&peer).await?;
        }
        Order::Report | Order::Idle { .. } => {}
    }
    Ok(())
}
