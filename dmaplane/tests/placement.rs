//! Placement where the system tells where pages lie, and under Docker's default profile, which forbids to ask.

use dmaplane::{Config, Error, PagePlacement, PagesOnNode, Placement, Plane, placement_support};
use dmaplane_sandbox::Sandbox;

/// A thread's filter goes with the thread, and is passed on to those of a context opened in it.
fn under_the_profile(test: impl FnOnce() + Send + 'static) {
    let filtered = std::thread::spawn(|| {
        Sandbox::new().unwrap().filter_this_thread().unwrap();
        test();
    });
    filtered.join().unwrap();
}

/// BUF-2: what cannot be verified is not given out as if it were.
#[test]
fn buf_2_strict_placement_is_granted_where_nobody_can_look() {
    under_the_profile(|| {
        let mut plane = Plane::open(Config::default()).unwrap();
        let error = plane.alloc_placed(1 << 20, PagePlacement::Strict(0)).unwrap_err();
        let Error::PlacementForbidden { reason, .. } = &error else { panic!("{error:?}") };
        for call in ["mbind: EPERM", "move_pages: EPERM", "get_mempolicy: EPERM"] {
            assert!(reason.contains(call), "{reason}");
        }
        assert!(error.to_string().contains("PagePlacement::Preferred"), "{error}");
    });
}

/// BUF-2, BUF-6: a wish for a node harms nothing there, and what came of it is said to be unknown.
#[test]
fn buf_6_placement_is_claimed_that_nobody_looked_up() {
    under_the_profile(|| {
        let mut plane = Plane::open(Config::default()).unwrap();
        let mut buffer = plane.alloc_placed(1 << 20, PagePlacement::Preferred(0)).unwrap();
        buffer.as_mut_slice().fill(7);
        let found = plane.placement(&buffer, 0).unwrap();
        let PagesOnNode::Unverifiable { reason } = &found else { panic!("{found:?}") };
        assert!(reason.contains("move_pages: EPERM"), "{reason}");
        assert_eq!(placement_support(), Placement::Unverifiable { reason: reason.clone() });
    });
}

/// The control: the same where the system does tell. All pages lie on one node or another, and none on one that does
/// not exist.
#[test]
fn buf_6_every_page_is_counted_once_where_the_system_tells() {
    let mut plane = Plane::open(Config::default()).unwrap();
    let buffer = plane.alloc_placed(1 << 20, PagePlacement::Preferred(0)).unwrap();
    let mut counted = 0;
    for node in 0..64 {
        match plane.placement(&buffer, node).unwrap() {
            PagesOnNode::Counted { on_node, pages } => {
                assert_eq!(pages, 256);
                counted += on_node;
            }
            // A container's own test run: then it has to be so for every node, and for a reason.
            PagesOnNode::Unverifiable { .. } => {
                assert!(matches!(placement_support(), Placement::Unverifiable { .. }));
                counted += 4;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counted, 256);
}
