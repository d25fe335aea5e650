//! The router's orders, as they come.

use crate::serve::message::{self, Job, Order};
use anyhow::Result;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

/// Orders that have come and were not taken yet. A thread of their own reads them: the computing one never waits for a
/// pipe.
pub struct Orders {
    pipe: Receiver<Result<Order>>,
    come: VecDeque<Order>,
}

impl Orders {
    /// Reads standard input from now on.
    pub fn read() -> Orders {
        let (give, pipe) = channel();
        std::thread::spawn(move || {
            let mut router = std::io::stdin().lock();
            while let Some(order) = message::read(&mut router).transpose() {
                let is_error = order.is_err();
                if give.send(order).is_err() || is_error {
                    break;
                }
            }
        });
        Orders { pipe, come: VecDeque::new() }
    }

    /// Looks what has come. The end of the pipe is an order to stop: the router is gone.
    pub fn look(&mut self) -> Result<()> {
        loop {
            match self.pipe.try_recv() {
                Ok(order) => self.come.push_back(order?),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    self.come.push_back(Order::Stop);
                    return Ok(());
                }
            }
        }
    }

    /// Waits for an order, but not longer.
    pub fn wait(&mut self, patience: Duration) -> Result<()> {
        match self.pipe.recv_timeout(patience) {
            Ok(order) => self.come.push_back(order?),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.come.push_back(Order::Stop),
        }
        Ok(())
    }

    /// The next one.
    pub fn next(&mut self) -> Option<Order> {
        self.come.pop_front()
    }

    /// Whether one of those that have come ends this job.
    pub fn would_abort(&self, job: Job) -> bool {
        self.come.iter().any(|order| *order == Order::Abort { job } || *order == Order::Stop)
    }
}
