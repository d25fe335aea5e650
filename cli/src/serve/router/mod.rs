//! The router: asks, pairs a prefill with a decode worker, aborts some, kills one, and compares every answer.
//!
//! What it never does is look into what travels through it: manifests are opaque, and the bytes of the caches go from
//! worker to worker.

mod jobs;
mod outcome;
mod process;
mod request;
mod seats;

use super::arguments::ServeArguments;
use super::cluster::{MEMBERS, Role};
use super::memory::{self, MemoryLog};
use super::message::{Job, Order, Report};
use super::prompts::{self, Prompt};
use super::table::Table;
use anyhow::{Context, Result, bail};
use outcome::{Counts, Outcome};
use process::{FromWorker, Heard};
use request::{AbortPlan, JobState, Request};
pub use seats::Seat;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Of a hundred requests, so many are aborted.
const ABORTED_PERCENT: u8 = 10;
/// Of a hundred, so many go to the pair of workers whose numbers are equal; the others cross over.
const PAIRED_PERCENT: u8 = 65;
/// A run this long loses a prefill worker too.
const SECONDS_FOR_TWO_KILLS: u64 = 20;
/// How long workers may take to start.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a worker may say nothing: it tells how it is several times a second.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long what is under way may take when no more requests come.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// The same after a wrong answer: then nothing more has to be shown.
const DRAIN_AFTER_WRONG: Duration = Duration::from_secs(3);
/// How long a worker may take to notice by itself that the other side has ended; then it is told.
const NOTICE_MAX: Duration = Duration::from_secs(5);
const GLANCE: Duration = Duration::from_millis(20);
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// So many failures that nobody ordered are enough.
const FAILURES_MAX: u64 = 200;

/// Runs the service for a while; an error where anything was wrong.
pub fn run(arguments: &ServeArguments) -> Result<()> {
    let folder = tempfile::tempdir().context("making a directory for sockets")?;
    let (give, heard) = channel();
    let mut router = Router::start(arguments, folder.path(), give)?;
    // While the workers start.
    router.asked = prompts::ask_for_prompts(&arguments.asked)?;
    router.wait_until_ready(&heard)?;
    let ended = router.serve(&heard);
    let outcome = router.outcome(ended);
    outcome.print(arguments.json)?;
    match outcome.complaint() {
        None => Ok(()),
        Some(complaint) => bail!("{complaint}"),
    }
}

struct Router<'a> {
    arguments: &'a ServeArguments,
    folder: &'a std::path::Path,
    give: Sender<FromWorker>,
    random: fastrand::Rng,
    /// What is asked.
    asked: Vec<Prompt>,
    /// By number in [`MEMBERS`].
    seats: Vec<Seat>,
    requests: HashMap<u64, Request>,
    jobs: HashMap<Job, JobState>,
    /// Requests without a job: no pair of workers is there.
    waiting: VecDeque<u64>,
    next_request: u64,
    next_job: Job,
    /// When to abort which request.
    aborts: BinaryHeap<Reverse<(Instant, u64)>>,
    /// When to kill which worker, the next one last.
    kills: Vec<(Duration, usize)>,
    start: Instant,
    /// When requests stopped coming.
    took: Option<Duration>,
    counts: Counts,
    memory: MemoryLog,
    table: Table,
}

impl<'a> Router<'a> {
    fn start(
        arguments: &'a ServeArguments,
        folder: &'a std::path::Path,
        give: Sender<FromWorker>,
    ) -> Result<Router<'a>> {
        let mut router = Router {
            arguments,
            folder,
            give,
            random: fastrand::Rng::with_seed(arguments.asked.seed ^ 0x5e7e),
            asked: Vec::new(),
            seats: Vec::new(),
            requests: HashMap::new(),
            jobs: HashMap::new(),
            waiting: VecDeque::new(),
            next_request: 0,
            next_job: 0,
            aborts: BinaryHeap::new(),
            kills: Vec::new(),
            start: Instant::now(),
            took: None,
            counts: Counts::default(),
            memory: MemoryLog::default(),
            table: Table::new(!arguments.json),
        };
        for worker in 0..MEMBERS.len() {
            let seat = Seat::start(&router, worker, 0)?;
            router.seats.push(seat);
        }
        router.kills = router.draw_kills();
        Ok(router)
    }

    /// A decode worker after a third of the run; in a long one a prefill worker after two thirds.
    fn draw_kills(&mut self) -> Vec<(Duration, usize)> {
        let of_role = |role| (0..MEMBERS.len()).filter(|&worker| MEMBERS[worker].role == role).collect::<Vec<_>>();
        let (prefill, decode) = (of_role(Role::Prefill), of_role(Role::Decode));
        let seconds = self.arguments.seconds as f64;
        let mut at = |thirds: f64| Duration::from_secs_f64(seconds * (thirds / 3.0 + 0.05 * self.random.f64()));
        let mut kills = vec![(at(2.0), prefill), (at(1.0), decode)];
        if self.arguments.seconds < SECONDS_FOR_TWO_KILLS {
            kills.remove(0);
        }
        kills.into_iter().map(|(at, of_role)| (at, of_role[self.random.usize(..of_role.len())])).collect()
    }

    fn wait_until_ready(&mut self, heard: &Receiver<FromWorker>) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        while !self.seats.iter().all(Seat::is_ready) {
            let left = deadline.saturating_duration_since(Instant::now());
            match heard.recv_timeout(left) {
                Ok(from) => self.hear(from)?,
                Err(_) => bail!("the workers did not start within {} s", START_MAX.as_secs()),
            }
        }
        self.start = Instant::now();
        Ok(())
    }

    /// Serves until the time is up and what is under way has ended.
    fn serve(&mut self, heard: &Receiver<FromWorker>) -> Result<()> {
        let until = Duration::from_secs(self.arguments.seconds);
        let mut kept = Instant::now();
        loop {
            let elapsed = self.start.elapsed();
            if self.took.is_none() && (elapsed >= until || self.counts.wrong_answers > 0) {
                self.took = Some(elapsed);
            }
            if let Some(took) = self.took {
                if self.requests.is_empty() {
                    break;
                }
                let most = if self.counts.wrong_answers > 0 { DRAIN_AFTER_WRONG } else { DRAIN_MAX };
                if elapsed > took + most {
                    bail!("{} requests hang: {}", self.requests.len(), self.hanging());
                }
            } else {
                self.ask();
            }
            self.kill_if_due(elapsed);
            self.abort_those_due();
            if kept.elapsed() >= HOUSEKEEPING {
                kept = Instant::now();
                self.keep_house(elapsed)?;
            }
            match heard.recv_timeout(self.next_look()) {
                Ok(from) => self.hear(from)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("no worker can be heard any more"),
            }
            // All that is there, before anything is looked at again.
            while let Ok(from) = heard.try_recv() {
                self.hear(from)?;
            }
        }
        self.stop(heard)
    }

    fn next_look(&self) -> Duration {
        let next = self.aborts.peek().map(|Reverse((at, _))| at.saturating_duration_since(Instant::now()));
        next.unwrap_or(GLANCE).min(GLANCE)
    }

    /// As many requests as there may be at any time.
    fn ask(&mut self) {
        while self.requests.len() < self.arguments.requests as usize {
            let prompt = self.random.usize(..self.asked.len());
            // Some aborts come too late; more are planned while there are too few.
            let aborted = self.counts.aborted.values().sum::<u64>();
            let is_behind = aborted * 100 < (aborted + self.counts.completed) * u64::from(ABORTED_PERCENT);
            let percent = if is_behind { 2 * ABORTED_PERCENT } else { ABORTED_PERCENT };
            let is_to_abort = self.random.u8(..100) < percent;
            let abort = is_to_abort.then(|| AbortPlan::draw(&mut self.random));
            let request = self.next_request;
            self.next_request += 1;
            self.requests.insert(request, Request { prompt, abort, is_aborted: false });
            self.waiting.push_back(request);
            self.dispatch();
        }
    }

    fn hear(&mut self, from: FromWorker) -> Result<()> {
        let FromWorker { worker, life, heard } = from;
        if self.seats[worker].life() != life {
            return Ok(());
        }
        self.seats[worker].note_heard();
        match heard {
            Heard::Gone(words) => self.bury(worker, &words),
            Heard::Said(Report::Ready { addresses }) => {
                self.counts.restarted += u64::from(life > 0);
                self.seats[worker].ready(addresses);
                self.introduce(worker);
                self.dispatch();
                Ok(())
            }
            Heard::Said(Report::Status(status) | Report::Stopped(status)) => {
                self.seats[worker].note_status(status);
                Ok(())
            }
            Heard::Said(report) => {
                self.on_report(worker, report);
                Ok(())
            }
        }
    }

    /// Tells prefill workers where a decode worker listens, be it the one or the other that has started.
    fn introduce(&self, worker: usize) {
        let decodes = (0..MEMBERS.len()).filter(|&other| MEMBERS[other].role == Role::Decode);
        let prefills = (0..MEMBERS.len()).filter(|&other| MEMBERS[other].role == Role::Prefill);
        for (prefill, decode) in prefills.flat_map(|prefill| decodes.clone().map(move |decode| (prefill, decode))) {
            let is_news = prefill == worker || decode == worker;
            if is_news && self.seats[prefill].is_ready() && self.seats[decode].is_ready() {
                let addresses = self.seats[decode].addresses().to_vec();
                self.seats[prefill].order(Order::Dial { name: MEMBERS[decode].name.to_owned(), addresses });
            }
        }
    }

    fn kill_if_due(&mut self, elapsed: Duration) {
        if let Some((_, worker)) = self.kills.pop_if(|(at, _)| *at <= elapsed && self.took.is_none()) {
            tracing::debug!(worker = MEMBERS[worker].name, "killed");
            self.seats[worker].kill();
        }
    }

    /// A worker is gone: its jobs are over, and it is started again.
    fn bury(&mut self, worker: usize, words: &str) -> Result<()> {
        if !self.seats[worker].was_killed() {
            bail!("worker {} ended by itself: {}", MEMBERS[worker].name, words.trim());
        }
        let life = self.seats[worker].life() + 1;
        let past = self.seats[worker].past();
        self.seats[worker] = Seat::start(self, worker, life)?.after(past);
        self.bereave(worker);
        Ok(())
    }

    fn keep_house(&mut self, elapsed: Duration) -> Result<()> {
        for (seat, member) in self.seats.iter().zip(&MEMBERS) {
            if seat.silence() > SILENCE_MAX {
                bail!("worker {} has said nothing for {} s", member.name, SILENCE_MAX.as_secs());
            }
        }
        if self.counts.unexpected_failures >= FAILURES_MAX {
            bail!("{FAILURES_MAX} failures that no abort and no kill explains");
        }
        self.tell_those_who_do_not_notice();
        let used: Option<u64> = self.seats.iter().map(|seat| memory::used_bytes(seat.process_id())).sum();
        if let Some(bytes) = used.filter(|_| self.seats.iter().all(Seat::is_ready)) {
            self.memory.note(elapsed, bytes);
        }
        let summary = format!(
            "{:.0} s  {} answered  {} wrong  {} aborted  {} retried  {} restarted  {:.1} MiB",
            elapsed.as_secs_f64(),
            self.counts.completed,
            self.counts.wrong_answers,
            self.counts.aborted.values().sum::<u64>(),
            self.counts.retried,
            self.counts.restarted,
            used.unwrap_or_default() as f64 / f64::from(1 << 20),
        );
        self.table.show(&self.seats, &summary);
        Ok(())
    }

    /// Everybody stops, and nothing may be left behind.
    fn stop(&mut self, heard: &Receiver<FromWorker>) -> Result<()> {
        for seat in &mut self.seats {
            seat.stop();
        }
        let deadline = Instant::now() + START_MAX;
        while !self.seats.iter().all(Seat::has_stopped) {
            let left = deadline.saturating_duration_since(Instant::now());
            match heard.recv_timeout(left) {
                Ok(FromWorker { worker, life, heard: Heard::Said(Report::Stopped(status)) })
                    if life == self.seats[worker].life() =>
                {
                    self.seats[worker].stopped(status);
                }
                Ok(FromWorker { worker, heard: Heard::Gone(_), .. }) if self.seats[worker].has_stopped() => {}
                Ok(from) => self.hear(from)?,
                Err(_) => bail!("the workers did not stop within {} s", START_MAX.as_secs()),
            }
        }
        for (seat, member) in self.seats.iter().zip(&MEMBERS) {
            if let Some(left) = seat.left_behind() {
                self.counts.note_failure(format!("worker {} has left behind {left}", member.name));
            }
        }
        Ok(())
    }

    fn outcome(mut self, ended: Result<()>) -> Outcome {
        self.table.end();
        if let Err(error) = ended {
            self.counts.note_failure(format!("{error:#}"));
        }
        if !self.kills.is_empty() && self.counts.wrong_answers == 0 {
            self.counts.note_failure(format!("{} workers were not killed in time", self.kills.len()));
        }
        let took = self.took.unwrap_or_else(|| self.start.elapsed());
        let mut aborts_ns = [Vec::new(), Vec::new()];
        for seat in &mut self.seats {
            for (all, of_seat) in aborts_ns.iter_mut().zip(seat.take_aborts_ns()) {
                all.extend(of_seat);
            }
        }
        let bytes_moved = self.seats.iter().map(Seat::bytes_moved).sum();
        Outcome::new(self.arguments, self.counts, &self.memory, aborts_ns, bytes_moved, took)
    }
}
