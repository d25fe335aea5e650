//! Requests, and the jobs that are made of them.

use crate::serve::Mode;
use crate::serve::message::{Answer, Ending, Passage};
use std::time::{Duration, Instant};

/// What somebody asked.
#[derive(Debug)]
pub struct Request {
    /// Which of the prompts.
    pub prompt: usize,
    /// Whether and when it will be aborted.
    pub abort: Option<AbortPlan>,
    /// The order to abort it was given.
    pub is_aborted: bool,
}

/// The moments at which requests are aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Moment {
    Queued,
    Prefilling,
    Moving,
    /// All is computed, and the last of it is under way: who does not hear of an abort now takes all there is.
    Computed,
    Decoding,
}

impl Moment {
    pub const ALL: [Moment; 5] =
        [Moment::Queued, Moment::Prefilling, Moment::Moving, Moment::Computed, Moment::Decoding];

    pub fn name(self) -> &'static str {
        match self {
            Moment::Queued => "queued",
            Moment::Prefilling => "prefilling",
            Moment::Moving => "moving",
            Moment::Computed => "computed",
            Moment::Decoding => "decoding",
        }
    }

    /// How long after its beginning the abort comes at most.
    fn delay_max(self) -> Duration {
        Duration::from_millis(match self {
            Moment::Queued => 50,
            Moment::Prefilling => 2,
            Moment::Moving => 5,
            Moment::Computed => 4,
            Moment::Decoding => 5,
        })
    }
}

/// When to abort, and whom to tell.
#[derive(Clone, Copy, Debug)]
pub struct AbortPlan {
    pub moment: Moment,
    pub delay: Duration,
    /// Not the owner of the memory is told but the other side.
    pub tells_guest: bool,
}

impl AbortPlan {
    pub fn draw(random: &mut fastrand::Rng) -> AbortPlan {
        let moment = Moment::ALL[random.usize(..Moment::ALL.len())];
        let delay = moment.delay_max().mul_f64(random.f64());
        AbortPlan { moment, delay, tells_guest: random.u8(..4) == 0 }
    }
}

/// How far a job is on one of its two workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It has not been told of the job yet.
    Untold,
    Open,
    /// Nothing of the job is left there.
    Closed,
}

/// One attempt at a request, by one worker of each kind.
#[derive(Debug)]
pub struct JobState {
    pub request: u64,
    /// Which workers.
    pub prefill: usize,
    pub decode: usize,
    pub prefill_side: Side,
    pub decode_side: Side,
    pub moment: Moment,
    pub answer: Option<Answer>,
    pub is_computed: bool,
    /// Who reads is told when all is computed, and not at the beginning: so that it takes everything at once, while the
    /// owner waits for its blocks.
    pub is_read_late: bool,
    /// What it will be told.
    pub passages: Vec<Passage>,
    /// One of its workers died.
    pub is_bereaved: bool,
    /// What its workers said that was not asked for.
    pub failures: Vec<String>,
    /// One side ended without being done; since then the other is expected to notice by itself.
    pub unnoticed_since: Option<Instant>,
    pub begun: Instant,
}

impl JobState {
    pub fn new(request: u64, prefill: usize, decode: usize) -> JobState {
        JobState {
            request,
            prefill,
            decode,
            prefill_side: Side::Untold,
            decode_side: Side::Untold,
            moment: Moment::Queued,
            answer: None,
            is_computed: false,
            is_read_late: false,
            passages: Vec::new(),
            is_bereaved: false,
            failures: Vec::new(),
            unnoticed_since: None,
            begun: Instant::now(),
        }
    }

    pub fn side(&mut self, worker: usize) -> &mut Side {
        if worker == self.prefill { &mut self.prefill_side } else { &mut self.decode_side }
    }

    /// The worker whose memory is leased to the other one.
    pub fn owner(&self, mode: Mode) -> usize {
        match mode {
            Mode::Push => self.decode,
            Mode::Pull => self.prefill,
        }
    }

    pub fn other(&self, worker: usize) -> usize {
        if worker == self.prefill { self.decode } else { self.prefill }
    }

    pub fn is_over(&self) -> bool {
        (self.prefill_side, self.decode_side) == (Side::Closed, Side::Closed)
    }

    /// Whether all is computed and somebody takes it.
    pub fn is_under_way(&self, mode: Mode) -> bool {
        self.is_computed && (mode == Mode::Push || self.moment >= Moment::Moving)
    }

    /// Notes the end on one worker; returns who has to be told of it, if somebody has. The owner's end is not told:
    /// the other side hears of it by its next write or read, which the lease refuses. That is what leases are for.
    ///
    /// `is_other_killed`: the other worker was killed and may be dead, although nobody has been heard to say so.
    pub fn close(&mut self, worker: usize, ending: Ending, mode: Mode, is_other_killed: bool) -> Option<usize> {
        *self.side(worker) = Side::Closed;
        self.is_bereaved |= is_other_killed && ending == Ending::FarSide;
        if ending == Ending::Done {
            return None;
        }
        let (other, owner) = (self.other(worker), self.owner(mode));
        match *self.side(other) {
            Side::Closed => None,
            Side::Untold => {
                *self.side(other) = Side::Closed;
                None
            }
            Side::Open if worker == owner => {
                self.unnoticed_since = Some(Instant::now());
                None
            }
            Side::Open => Some(other),
        }
    }

    /// Whom to order to abort at this moment.
    pub fn whom_to_abort(&mut self, plan: AbortPlan, mode: Mode) -> Option<usize> {
        let owner = self.owner(mode);
        let mut choices = [owner, self.other(owner)];
        if self.moment == Moment::Decoding {
            choices = [self.decode, self.prefill];
        } else if plan.tells_guest {
            choices.reverse();
        }
        choices.into_iter().find(|&worker| *self.side(worker) == Side::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> JobState {
        JobState { prefill_side: Side::Open, decode_side: Side::Open, ..JobState::new(1, 0, 2) }
    }

    #[test]
    fn the_owners_end_is_for_the_lease_to_tell_and_the_others_for_the_router() {
        for (mode, owner, guest) in [(Mode::Push, 2, 0), (Mode::Pull, 0, 2)] {
            let mut job = open();
            assert_eq!(job.close(owner, Ending::Aborted, mode, false), None);
            assert!(job.unnoticed_since.is_some() && !job.is_over());
            assert_eq!(job.close(guest, Ending::FarSide, mode, false), None);
            assert!(job.is_over());
            assert_eq!(open().close(guest, Ending::Aborted, mode, false), Some(owner));
            assert_eq!(open().close(guest, Ending::Done, mode, false), None);
        }
    }

    #[test]
    fn who_was_never_told_has_nothing_to_end() {
        let mut job = JobState { decode_side: Side::Open, ..JobState::new(1, 0, 2) };
        assert_eq!(job.close(2, Ending::Aborted, Mode::Push, false), None);
        assert!(job.is_over());
    }

    /// A worker that noticed a killed one's death before the router heard of it, and before the killed one was told of
    /// the job, was said to have failed without a reason.
    #[test]
    fn a_death_that_the_other_worker_notices_first_is_no_failure() {
        for (mode, owner, killed) in [(Mode::Push, 2, 0), (Mode::Pull, 0, 2)] {
            let untold = || {
                let mut job = JobState::new(1, 0, 2);
                *job.side(owner) = Side::Open;
                job
            };
            let mut job = untold();
            assert_eq!(job.close(owner, Ending::FarSide, mode, true), None);
            assert!(job.is_over() && job.is_bereaved && *job.side(killed) == Side::Closed);
            // Who was not killed is not gone, and what failed here has failed whoever was killed.
            for (ending, is_killed) in [(Ending::FarSide, false), (Ending::Failed, true)] {
                let mut job = untold();
                assert_eq!(job.close(owner, ending, mode, is_killed), None);
                assert!(job.is_over() && !job.is_bereaved);
            }
        }
    }

    #[test]
    fn all_is_under_way_when_it_is_computed_and_somebody_takes_it() {
        let mut job = JobState { is_computed: true, moment: Moment::Prefilling, ..open() };
        assert!(job.is_under_way(Mode::Push) && !job.is_under_way(Mode::Pull));
        job.moment = Moment::Moving;
        assert!(job.is_under_way(Mode::Pull));
        job.is_computed = false;
        assert!(!job.is_under_way(Mode::Push) && !job.is_under_way(Mode::Pull));
    }

    #[test]
    fn aborts_go_to_the_owner_or_the_guest_and_while_decoding_to_decode() {
        let plan = AbortPlan { moment: Moment::Moving, delay: Duration::ZERO, tells_guest: false };
        let guest = AbortPlan { tells_guest: true, ..plan };
        for (mode, owner, other) in [(Mode::Push, 2, 0), (Mode::Pull, 0, 2)] {
            assert_eq!(open().whom_to_abort(plan, mode), Some(owner));
            assert_eq!(open().whom_to_abort(guest, mode), Some(other));
            let mut decoding = JobState { moment: Moment::Decoding, ..open() };
            assert_eq!(decoding.whom_to_abort(guest, mode), Some(2));
            let mut half = open();
            *half.side(owner) = Side::Closed;
            assert_eq!(half.whom_to_abort(plan, mode), Some(other));
            *half.side(other) = Side::Closed;
            assert_eq!(half.whom_to_abort(plan, mode), None);
        }
    }

    #[test]
    fn all_moments_are_drawn_and_none_later_than_its_most() {
        let mut random = fastrand::Rng::with_seed(1);
        let plans: Vec<_> = (0..1000).map(|_| AbortPlan::draw(&mut random)).collect();
        for moment in Moment::ALL {
            let of_it: Vec<_> = plans.iter().filter(|plan| plan.moment == moment).collect();
            assert!(of_it.len() > 150 && of_it.iter().all(|plan| plan.delay <= moment.delay_max()));
            assert!(of_it.iter().any(|plan| plan.tells_guest) && of_it.iter().any(|plan| !plan.tells_guest));
        }
    }
}
