//! From request to answer: jobs, their ends, and what becomes of the request then.

use super::request::{AbortPlan, JobState, Moment, Side};
use super::{NOTICE_MAX, PAIRED_PERCENT, Router};
use crate::serve::Mode;
use crate::serve::cluster::{MEMBERS, Role};
use crate::serve::message::{Answer, Ending, Job, Order, Passage, Report};
use crate::serve::prompts::Prompt;
use std::cmp::Reverse;
use std::time::Instant;

/// So many of those that hang are named.
const NAMED_MAX: usize = 3;

impl Router<'_> {
    /// Gives waiting requests to workers, where there are any.
    pub(super) fn dispatch(&mut self) {
        while let Some(&request) = self.waiting.front() {
            let Some((prefill, decode)) = self.draw_pair() else { return };
            self.waiting.pop_front();
            self.begin(request, prefill, decode);
        }
    }

    /// Two workers that are there.
    fn draw_pair(&mut self) -> Option<(usize, usize)> {
        let ready = |role: Role| {
            let of_role = |&worker: &usize| MEMBERS[worker].role == role && self.seats[worker].is_ready();
            (0..MEMBERS.len()).filter(of_role).collect::<Vec<_>>()
        };
        let (prefills, decodes) = (ready(Role::Prefill), ready(Role::Decode));
        if prefills.is_empty() || decodes.is_empty() {
            return None;
        }
        let prefill = prefills[self.random.usize(..prefills.len())];
        // The one with the same number, or the other one; where there is one alone it gets everything.
        let is_pair = |decode: &usize| MEMBERS[*decode].name[1..] == MEMBERS[prefill].name[1..];
        let wants_pair = self.random.u8(..100) < PAIRED_PERCENT;
        let decode = decodes.iter().copied().find(|decode| is_pair(decode) == wants_pair);
        Some((prefill, decode.unwrap_or(decodes[0])))
    }

    fn begin(&mut self, request: u64, prefill: usize, decode: usize) {
        let Some(prompt) = self.requests.get(&request).and_then(|request| self.asked.get(request.prompt)) else {
            return;
        };
        let job = self.next_job;
        self.next_job += 1;
        let mut state = JobState::new(request, prefill, decode);
        // Who owns the memory begins.
        let owner = state.owner(self.arguments.mode);
        *state.side(owner) = Side::Open;
        state.is_read_late = self.arguments.mode == Mode::Pull && self.random.bool();
        self.seats[owner].order(order_for(job, &state, owner, prompt, Vec::new()));
        self.jobs.insert(job, state);
        self.enter(job, Moment::Queued);
    }

    /// Tells the other side of a job where the memory is.
    fn pass_on(&mut self, job: Job, passages: Vec<Passage>) {
        let Some(state) = self.jobs.get_mut(&job) else { return };
        let other = state.other(state.owner(self.arguments.mode));
        if *state.side(other) != Side::Untold {
            return;
        }
        let prompt = self.requests.get(&state.request).and_then(|request| self.asked.get(request.prompt));
        let Some(prompt) = prompt else { return };
        *state.side(other) = Side::Open;
        self.seats[other].order(order_for(job, state, other, prompt, passages));
    }

    /// A job is so far; an abort that is planned for this moment is set.
    fn enter(&mut self, job: Job, moment: Moment) {
        let Some(state) = self.jobs.get_mut(&job) else { return };
        state.moment = state.moment.max(moment);
        let request = state.request;
        let plan = self.requests.get(&request).and_then(|request| request.abort);
        // With a push the first layer moves as soon as it is computed.
        let is_now = |plan: &AbortPlan| {
            let moves = self.arguments.mode == Mode::Push && moment == Moment::Prefilling;
            plan.moment == moment || (moves && plan.moment == Moment::Moving)
        };
        if let Some(plan) = plan.filter(is_now) {
            self.aborts.push(Reverse((Instant::now() + plan.delay, request)));
        }
    }

    fn enter_if_under_way(&mut self, job: Job) {
        if self.jobs.get(&job).is_some_and(|state| state.is_under_way(self.arguments.mode)) {
            self.enter(job, Moment::Computed);
        }
    }

    pub(super) fn abort_those_due(&mut self) {
        while let Some(&Reverse((at, request))) = self.aborts.peek() {
            if at > Instant::now() {
                return;
            }
            self.aborts.pop();
            self.abort(request);
        }
    }

    fn abort(&mut self, request: u64) {
        let Some(plan) = self.requests.get(&request).and_then(|request| request.abort) else { return };
        let found = self.jobs.iter_mut().find(|(_, state)| state.request == request);
        let Some((&job, state)) = found else {
            // It waits for workers: nobody has to be told.
            self.waiting.retain(|waiting| *waiting != request);
            self.end_aborted(request, Moment::Queued);
            return;
        };
        if let Some(worker) = state.whom_to_abort(plan, self.arguments.mode) {
            self.seats[worker].order(Order::Abort { job });
            if let Some(request) = self.requests.get_mut(&request) {
                request.is_aborted = true;
            }
        }
    }

    fn end_aborted(&mut self, request: u64, moment: Moment) {
        self.requests.remove(&request);
        *self.counts.aborted.entry(moment).or_default() += 1;
    }

    pub(super) fn on_report(&mut self, worker: usize, report: Report) {
        match report {
            Report::Opened { job, passages } => {
                let Some(state) = self.jobs.get_mut(&job) else { return };
                if state.is_read_late && !state.is_computed {
                    state.passages = passages;
                } else {
                    self.pass_on(job, passages);
                }
            }
            Report::Started { job } => self.enter(job, Moment::Prefilling),
            Report::Moving { job } => {
                self.enter(job, Moment::Moving);
                self.enter_if_under_way(job);
            }
            Report::Computed { job } => {
                let Some(state) = self.jobs.get_mut(&job) else { return };
                state.is_computed = true;
                let passages = std::mem::take(&mut state.passages);
                if !passages.is_empty() {
                    self.pass_on(job, passages);
                }
                self.enter_if_under_way(job);
            }
            Report::Landed { job } => self.enter(job, Moment::Decoding),
            Report::Answered { job, answer } => {
                if let Some(state) = self.jobs.get_mut(&job) {
                    state.answer = Some(answer);
                }
            }
            Report::Ended { job, ending, why } => {
                let Some(state) = self.jobs.get_mut(&job) else { return };
                if !matches!(ending, Ending::Done | Ending::Aborted) {
                    tracing::debug!(job, worker = MEMBERS[worker].name, ?ending, why, "ended");
                    state.failures.push(format!("{}: {why}", MEMBERS[worker].name));
                }
                let is_other_killed = self.seats[state.other(worker)].was_killed();
                let untold = state.close(worker, ending, self.arguments.mode, is_other_killed);
                if let Some(other) = untold {
                    self.seats[other].order(Order::Abort { job });
                }
                self.settle(job);
            }
            Report::Ready { .. } | Report::Status(_) | Report::Stopped(_) => {}
        }
    }

    /// A worker is gone: the others are told of its jobs, which will be tried again.
    pub(super) fn bereave(&mut self, worker: usize) {
        let mut over = Vec::new();
        for (&job, state) in &mut self.jobs {
            if (state.prefill != worker && state.decode != worker) || *state.side(worker) == Side::Closed {
                continue;
            }
            *state.side(worker) = Side::Closed;
            state.is_bereaved = true;
            let other = state.other(worker);
            match *state.side(other) {
                Side::Untold => *state.side(other) = Side::Closed,
                Side::Open => self.seats[other].order(Order::Abort { job }),
                Side::Closed => {}
            }
            over.push(job);
        }
        for job in over {
            self.settle(job);
        }
    }

    /// When nothing of a job is left, its request is answered, aborted, or tried again.
    fn settle(&mut self, job: Job) {
        if self.jobs.get(&job).is_none_or(|state| !state.is_over()) {
            return;
        }
        let Some(state) = self.jobs.remove(&job) else { return };
        let Some(request) = self.requests.get(&state.request) else { return };
        let (prompt, planned) = (request.prompt, request.abort.filter(|_| request.is_aborted));
        match state.answer {
            Some(ref answer) => {
                self.requests.remove(&state.request);
                self.compare(prompt, &state, answer);
            }
            None if planned.is_some() => {
                self.end_aborted(state.request, planned.map_or(state.moment, |plan| plan.moment));
            }
            None => {
                if state.is_bereaved {
                    self.counts.retried += 1;
                } else {
                    let between = format!("{} to {}", MEMBERS[state.prefill].name, MEMBERS[state.decode].name);
                    self.counts.note_failure(format!("job {job}, {between}: {}", state.failures.join("; ")));
                }
                self.waiting.push_back(state.request);
            }
        }
        self.dispatch();
    }

    /// Every answer is compared, bit for bit.
    fn compare(&mut self, prompt: usize, state: &JobState, answer: &Answer) {
        let Some(expected) = self.asked.get(prompt).map(|prompt| &prompt.answer) else { return };
        let (from, to) = (&MEMBERS[state.prefill], &MEMBERS[state.decode]);
        if answer == expected {
            self.counts.completed += 1;
            self.counts.tokens_generated += answer.tokens.len() as u64;
            *self.counts.by_shards.entry(format!("{} to {}", from.shards, to.shards)).or_default() += 1;
            return;
        }
        let first = answer.tokens.iter().zip(&expected.tokens).position(|(one, other)| one != other);
        let what = match first {
            Some(index) => format!("token {index} is {}, not {}", answer.tokens[index], expected.tokens[index]),
            None => "the tokens are right, their logits are not".to_owned(),
        };
        self.counts.note_wrong(format!("prompt {prompt}, {} to {}: {what}", from.name, to.name));
    }

    /// Who should have noticed by itself that the other side has ended is told so.
    pub(super) fn tell_those_who_do_not_notice(&mut self) {
        for (&job, state) in &mut self.jobs {
            if state.unnoticed_since.is_some_and(|since| since.elapsed() > NOTICE_MAX) {
                state.unnoticed_since = None;
                for worker in [state.prefill, state.decode] {
                    if *state.side(worker) == Side::Open {
                        self.seats[worker].order(Order::Abort { job });
                    }
                }
            }
        }
    }

    /// Some of what is under way, in words.
    pub(super) fn hanging(&self) -> String {
        let told = self.jobs.iter().take(NAMED_MAX).map(|(job, state)| {
            let (prefill, decode) = (MEMBERS[state.prefill].name, MEMBERS[state.decode].name);
            let since = state.begun.elapsed().as_secs();
            let JobState { moment, prefill_side, decode_side, .. } = state;
            format!("job {job} ({moment:?}, {since} s; {prefill} {prefill_side:?}, {decode} {decode_side:?})")
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

/// What one of a job's workers is told of it.
fn order_for(job: Job, state: &JobState, worker: usize, prompt: &Prompt, passages: Vec<Passage>) -> Order {
    if worker == state.prefill {
        let to = MEMBERS[state.decode].name.to_owned();
        return Order::Prefill { job, prompt: prompt.tokens.clone(), to, passages };
    }
    let from = MEMBERS[state.prefill].name.to_owned();
    Order::Decode { job, prompt_tokens: prompt.tokens.len() as u32, generate: prompt.generate, from, passages }
}
