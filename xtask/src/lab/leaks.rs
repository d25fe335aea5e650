//! The control of the search for leaks: what the driver's tests have lost on purpose has to be found.

use super::messages::LOST_ON_PURPOSE;

/// How the kernel begins to tell of a leak. Lines that are indented go on with it.
const LEAK: &str = "unreferenced object";
/// Where it was lost: how the line of the way to the allocation begins and ends.
const LOST_IN: (&str, &str) = ("lose+0x", "[importer]");

/// Whether a leak is the one that was made on purpose. One of ours may have the importer's functions on its way, too,
/// and be told by names of what lies there now.
fn is_control(leak: &str) -> bool {
    let is_there = |line: &str| line.split_whitespace().any(|word| word.starts_with(LOST_IN.0));
    let mut way = leak.lines().skip(1);
    leak.starts_with(LEAK)
        && way.any(|line| is_there(line) && line.ends_with(LOST_IN.1))
        && !leak.contains("[dmaplane]")
}

/// The kernel's messages without the leak that was made on purpose, where one was; a report where it is missing.
pub fn without_control(printed: &[String], messages: &str) -> String {
    if !printed.iter().any(|line| line == LOST_ON_PURPOSE) {
        return messages.to_owned();
    }
    let mut told: Vec<String> = Vec::new();
    let mut is_leak = false;
    for line in messages.lines() {
        if is_leak && line.starts_with(char::is_whitespace) {
            let leak = told.last_mut().expect("a leak has begun");
            leak.push('\n');
            leak.push_str(line);
        } else {
            is_leak = line.starts_with(LEAK);
            told.push(line.to_owned());
        }
    }
    match told.iter().position(|told| is_control(told)) {
        Some(control) => println!("lost on purpose, and found: {}", told.remove(control)),
        None => told.push("BUG: what was lost on purpose was not found".to_owned()),
    }
    told.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::messages::defects;
    use super::*;

    const CONTROL: &str = "unreferenced object 0xffff888003c3d000 (size 64):\n  comm \"tests\", pid 1\n  \
                           backtrace (crc 0):\n    lose+0x1/0x2 [importer]\n";
    const OURS: &str = "unreferenced object 0xffff888003c3d100 (size 64):\n  backtrace (crc 0):\n    \
                        dmp_ring_make+0x1/0x2 [dmaplane]\n";

    fn reports(lost: bool, messages: &str) -> Vec<String> {
        let printed = if lost { vec![LOST_ON_PURPOSE.to_owned()] } else { Vec::new() };
        let told = without_control(&printed, &format!("{messages}[ 1.0] all well\n"));
        defects(&told).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn what_was_lost_on_purpose_is_set_aside_and_nothing_else() {
        assert!(reports(true, CONTROL).is_empty());
        assert_eq!(reports(true, &format!("{OURS}{CONTROL}")).len(), 1);
        assert_eq!(reports(true, &format!("{CONTROL}{CONTROL}")).len(), 1, "only one was lost on purpose");
        assert_eq!(reports(false, CONTROL).len(), 1, "nothing was lost on purpose");
        assert!(reports(false, "").is_empty());
    }

    #[test]
    fn a_leak_of_ours_by_way_of_the_importer_is_not_taken_for_it() {
        let attached = "unreferenced object 0xffff888003c3d200 (size 64):\n  backtrace (crc 0):\n    \
                        dmp_attach+0x1/0x2 [dmaplane]\n    attach+0x1/0x2 [importer]\n";
        // The module is gone when the names are looked up, and another may lie in its place.
        let unnamed = "unreferenced object 0xffff888003c3d200 (size 64):\n    \
                       close+0x1/0x2 [importer]\n    attach+0x1/0x2 [importer]\n";
        for leak in [attached, unnamed] {
            assert_eq!(reports(true, leak).len(), 2, "the control is missing");
            assert_eq!(reports(true, &format!("{leak}{CONTROL}")), [leak.lines().next().unwrap()]);
        }
    }

    #[test]
    fn a_search_that_finds_nothing_is_a_report() {
        assert_eq!(reports(true, ""), ["BUG: what was lost on purpose was not found"]);
        assert_eq!(reports(true, OURS).len(), 2);
    }
}
