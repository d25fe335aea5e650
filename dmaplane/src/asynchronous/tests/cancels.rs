//! How many CANCELs go to the ring.

use super::*;
use dmaplane_ring::build::Recv;

/// CTL-9: a RECV is beyond stopping, so that it is in flight at each further attempt.
#[test]
fn an_operation_that_is_cancelled_twice_costs_two_cancels() {
    runtime(1).block_on(within(Duration::from_secs(20), "a receive", async {
        let [(one, to_other), (other, to_one)] = pair().await;
        let buffer = one.alloc(4096).await.unwrap();
        let receive = Recv::new(to_other.handle(), buffer.handle(), 0, 4096).unwrap().sqe();
        let mut receive = Operation::new(&one, "receiving", receive, ());
        assert!(poll_once(&mut receive).is_pending());
        let number = one.shared().next_number();
        for _ in 0..3 {
            receive.cancel();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(receive);
        assert_eq!(one.shared().next_number() - number, 1 + 1, "CANCELs, and this look");
        drop((other, to_one));
    }));
}
