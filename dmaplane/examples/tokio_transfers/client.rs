//! The side that moves bytes, and changes its mind.

use super::workload::{Answer, Failure, Order, Random, Reading, fill, fills, idle_cpu, settled};
use dmaplane::asynchronous::{AsyncPeer, AsyncPlane, Transfer};
use dmaplane::{Buffer, Config, Error, Import};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// What is in memory that was allocated after a read was dropped.
const AFTER: u8 = 0xa5;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Transfers at a time.
    pub transfers: u32,
    /// Of those, how many are to be dropped, in percent.
    pub dropped_percent: u32,
    /// For sizes, kinds and moments.
    pub seed: u64,
    /// How long to look at the processor time of doing nothing.
    pub idle: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Transfers that ended with success, and their bytes.
    pub completed: u32,
    pub bytes: u64,
    /// Futures that were dropped: before their first poll, in flight, when they had ended already.
    pub dropped_before: u32,
    pub dropped_in_flight: u32,
    pub dropped_late: u32,
    /// Completed ones whose bytes were wrong on either side, or whose immediate had not come.
    pub wrong: u32,
    /// Pieces of memory that changed after they had been taken into use for something else.
    pub damaged: u32,
    /// From the first poll to the last end.
    pub seconds: f64,
    /// How long it took until nothing more was in use than before.
    pub settled: Duration,
    /// Shares of one core.
    pub idle_client: f64,
    pub idle_server: f64,
}

#[derive(Clone, Copy)]
enum Fate {
    Completes,
    /// Before the first poll.
    NeverBegins,
    /// After one poll and so many turns of other tasks.
    AfterTurns(u32),
    After(Duration),
}

#[derive(Clone, Copy)]
struct Task {
    number: u32,
    length: u32,
    reading: Reading,
    notified: bool,
    fate: Fate,
}

fn plan(number: u32, plan: &Plan, random: &mut Random) -> Task {
    // From 64 B to 4 MiB, as many of each magnitude.
    let magnitude = random.below(17) as u32;
    let length = ((64u64 << magnitude) + random.below(64 << magnitude)).min(4 << 20) as u32;
    let kind = random.below(20);
    let reading = if kind < 8 { Reading::Yes } else { Reading::No };
    let fate = match random.below(20) {
        _ if random.below(100) >= plan.dropped_percent.into() => Fate::Completes,
        0 => Fate::NeverBegins,
        1..=9 => Fate::AfterTurns(random.below(40) as u32),
        _ => Fate::After(Duration::from_millis(1 + random.below(150))),
    };
    Task { number, length, reading, notified: (8..11).contains(&kind), fate }
}

async fn hear(peer: &AsyncPeer) -> Result<Answer, Failure> {
    let arrival = peer.receive().await?;
    Answer::parse(&arrival.payload).ok_or_else(|| "an answer that nobody gives".into())
}

/// Does it all against the server at an address.
pub async fn transfer(address: &str, what: Plan) -> Result<Report, Failure> {
    let plane = AsyncPlane::open(Config::default())?;
    let peer = Arc::new(connect(&plane, address).await?);
    settled(&plane, None).await?;
    let base = plane.usage();
    let mut random = Random::new(what.seed);
    let tasks: Vec<_> = (0..what.transfers).map(|number| plan(number, &what, &mut random)).collect();

    // Leases and memory first, so that all transfers begin at once.
    let ordering = async {
        for &Task { number, length, reading, .. } in &tasks {
            Order::Lease { number, length, reading }.send(&peer).await?;
        }
        Ok::<_, Failure>(())
    };
    let claiming = async {
        let mut imports = HashMap::new();
        while imports.len() < tasks.len() {
            let Answer::Leased { number, token } = hear(&peer).await? else { return Err("no lease".into()) };
            imports.insert(number, plane.import(&peer, &token).await?);
        }
        Ok::<_, Failure>(imports)
    };
    let ((), mut imports) = tokio::try_join!(ordering, claiming)?;
    let mut ready = Vec::new();
    for task in &tasks {
        let mut memory = plane.alloc(task.length.into()).await?;
        if task.reading == Reading::No {
            fill(&mut memory.as_mut_slice()[..task.length as usize], task.number);
        }
        let import = imports.remove(&task.number).ok_or("a lease is missing")?;
        ready.push((*task, memory, import));
    }

    let start = Instant::now();
    let running: Vec<_> = ready
        .into_iter()
        .map(|(task, memory, import)| tokio::spawn(one(plane.clone(), peer.clone(), task, memory, import)))
        .collect();
    let checking = async {
        let mut wrong = 0;
        for _ in 0..tasks.len() {
            match hear(&peer).await? {
                Answer::Checked { right, .. } => wrong += u32::from(!right),
                answer => return Err(format!("{answer:?}").into()),
            }
        }
        Ok::<_, Failure>(wrong)
    };
    let mut reused = Vec::new();
    let collecting = async {
        let mut report = Report::default();
        for one in running {
            let (outcome, new) = one.await??;
            reused.extend(new);
            match outcome {
                Outcome::Completed { bytes, right } => {
                    (report.completed, report.bytes) = (report.completed + 1, report.bytes + bytes);
                    report.wrong += u32::from(!right);
                }
                Outcome::NeverBegan => report.dropped_before += 1,
                Outcome::CutOff => report.dropped_in_flight += 1,
                Outcome::Late => report.dropped_late += 1,
            }
        }
        report.seconds = start.elapsed().as_secs_f64();
        Ok::<_, Failure>(report)
    };
    let (wrong, mut report) = tokio::try_join!(checking, collecting)?;
    report.wrong += wrong;

    report.damaged = reused.iter().filter(|buffer| buffer.as_slice().iter().any(|&byte| byte != AFTER)).count() as u32;
    drop(reused);
    Order::Report.send(&peer).await?;
    match hear(&peer).await? {
        Answer::Report { damaged } => report.damaged += damaged,
        answer => return Err(format!("{answer:?}").into()),
    }
    // An answer that nobody has read would hold a receive.
    report.settled = settled(&plane, Some(base)).await?;
    Order::Idle { milliseconds: what.idle.as_millis() as u32 }.send(&peer).await?;
    report.idle_client = idle_cpu(what.idle).await;
    match hear(&peer).await? {
        Answer::Idle { millionths } => report.idle_server = f64::from(millionths) / 1e6,
        answer => return Err(format!("{answer:?}").into()),
    }
    Ok(report)
}

/// The server may not be up yet.
async fn connect(plane: &AsyncPlane, address: &str) -> Result<AsyncPeer, Error> {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        match plane.connect(address).await {
            Err(_) if Instant::now() < patience => tokio::time::sleep(Duration::from_millis(20)).await,
            result => return result,
        }
    }
}

enum Outcome {
    Completed { bytes: u64, right: bool },
    NeverBegan,
    CutOff,
    Late,
}

/// One transfer to its end, whichever that is. With one that was dropped comes memory that was allocated right after.
async fn one(
    plane: AsyncPlane,
    peer: Arc<AsyncPeer>,
    task: Task,
    memory: Buffer,
    import: Import,
) -> Result<(Outcome, Option<Buffer>), Failure> {
    let Task { number, length, reading, notified, fate } = task;
    let mut transfer = match (reading, notified) {
        (Reading::Yes, _) => plane.read(memory, 0, &import, 0, length.into()),
        (Reading::No, true) => plane.write_imm(memory, 0, &import, 0, length.into(), number),
        (Reading::No, false) => plane.write(memory, 0, &import, 0, length.into()),
    };
    let outcome = match fate {
        Fate::Completes => {
            let (bytes, memory) = transfer.await?;
            let right = bytes == u64::from(length) && fills(&memory.as_slice()[..length as usize], number);
            Order::Ended { number, length, notified }.send(&peer).await?;
            return Ok((Outcome::Completed { bytes, right }, None));
        }
        Fate::NeverBegins => Outcome::NeverBegan,
        Fate::AfterTurns(turns) => {
            let mut over = poll_once(&mut transfer).await;
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            // A last look tells whether it had ended.
            over = over || poll_once(&mut transfer).await;
            if over { Outcome::Late } else { Outcome::CutOff }
        }
        Fate::After(time) => match tokio::time::timeout(time, &mut transfer).await {
            Ok(_) => Outcome::Late,
            Err(_) => Outcome::CutOff,
        },
    };
    drop(transfer);
    Order::Dropped { number }.send(&peer).await?;
    let mut after = plane.alloc(length.into()).await?;
    after.as_mut_slice().fill(AFTER);
    Ok((outcome, Some(after)))
}

async fn poll_once(transfer: &mut Transfer<Buffer>) -> bool {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *transfer).poll(context).is_ready())).await
}
