use super::found::{Context, Found, Holder};
use super::text;
use crate::root::Root;
use std::fs;
use std::path::Path;

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A process with a descriptor of the device, and one of something else.
fn process(root: &Path, process: u32, descriptor: u32, told: &str) {
    let folder = root.join("proc").join(process.to_string());
    fs::create_dir_all(folder.join("fd")).unwrap();
    write(&folder.join("comm"), "server\n");
    for (number, target) in [(0, "/dev/null"), (descriptor, "/dev/dmaplane")] {
        std::os::unix::fs::symlink(target, folder.join("fd").join(number.to_string())).unwrap();
    }
    write(&folder.join("fdinfo").join(descriptor.to_string()), told);
}

const TOLD: &str = "pos:\t0\nflags:\t02\ndmaplane-context:\t7\ndmaplane-closed:\t0\ndmaplane-buffers:\t3\n\
                    dmaplane-memory-bytes:\t8192\n";

#[test]
fn who_holds_a_context_is_told_once_with_all_its_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    process(folder.path(), 100, 5, TOLD);
    process(folder.path(), 200, 9, TOLD);
    // A descriptor without a context, and a folder of proc's that is no process.
    process(folder.path(), 300, 4, "pos:\t0\n");
    write(&folder.path().join("proc/self/comm"), "x");
    let found = Found::of(&Root::new(folder.path()), false).unwrap();
    let holder = |process, descriptor| Holder { process, name: "server".to_owned(), descriptors: vec![descriptor] };
    let in_use = [("buffers".to_owned(), 3), ("memory-bytes".to_owned(), 8192)].into();
    let holders = vec![holder(100, 5), holder(200, 9)];
    let context = Context { context: 7, closed: false, in_use, holders, objects: [].into() };
    assert_eq!(found, Found { contexts: vec![context], unreadable_processes: 0 });
    let text = text(&found);
    assert!(text.contains("100 server (fd 5); 200 server (fd 9)"), "{text}");
    assert!(text.contains("8 KiB") && text.ends_with("1 contexts\n"), "{text}");
}

#[test]
fn what_nobody_holds_and_each_object_come_from_debugfs() {
    let folder = tempfile::tempdir().unwrap();
    process(folder.path(), 100, 5, TOLD);
    let debugfs = folder.path().join(super::debugfs());
    let line = "pid=100 uid=0 closed=1 memory-bytes=4096 buffers=0";
    write(&debugfs.join("contexts"), &format!("7: {line}\n9: {line}\n"));
    for (context, kind) in [(7, "buffers"), (9, "none")] {
        for all in ["rings", "operations", "buffers", "lists", "leases", "imports", "peers", "transfers"] {
            let text = if all == kind { "0: live handle=0x1 bytes=4096\n" } else { "" };
            write(&debugfs.join(format!("{context}/{all}")), text);
        }
    }
    let found = Found::of(&Root::new(folder.path()), true).unwrap();
    let of = |number| found.contexts.iter().find(|context| context.context == number).unwrap();
    assert!(!of(7).closed && of(7).holders.len() == 1, "the descriptor's own word counts");
    assert!(of(9).closed && of(9).holders.is_empty());
    assert_eq!(of(7).objects["buffers"], ["0: live handle=0x1 bytes=4096"]);
    assert!(of(9).objects.is_empty());
    assert!(text(&found).contains("context 7, buffers:\n  0: live"), "{}", text(&found));
    assert!(text(&found).contains("nobody: "), "{}", text(&found));
}

#[test]
fn objects_that_may_not_be_seen_are_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    process(folder.path(), 100, 5, TOLD);
    let error = Found::of(&Root::new(folder.path()), true).unwrap_err();
    assert!(format!("{error:#}").contains("as root, with debugfs mounted"), "{error:#}");
}
