//! `topology` on this machine: every file that it reads is there or is not, and it says so either way.

mod common;

use common::dmaplane;

#[test]
fn this_machine_has_a_node_and_each_finding_a_consequence() {
    let topology = dmaplane(&["topology", "--json"]).succeeded().json();
    assert!(topology["nodes"][0]["memory_bytes"].as_u64().unwrap() > 0);
    assert_eq!(
        topology["nodes"].as_array().unwrap().len(),
        topology["nodes"][0]["distances"].as_array().unwrap().len()
    );
    let findings = topology["findings"].as_array().unwrap();
    assert!(findings.len() >= 8);
    assert!(findings.iter().all(|finding| !finding["consequence"].as_str().unwrap().is_empty()));
    let table = dmaplane(&["topology"]).succeeded().stdout;
    assert!(table.starts_with("NODE") && table.contains("WHICH MEANS"), "{table}");
}

#[test]
fn a_made_up_machine_is_read_below_its_root() {
    let folder = tempfile::tempdir().unwrap();
    for (node, distance) in [("node0", "10 32"), ("node1", "32 10")] {
        let node = folder.path().join("sys/devices/system/node").join(node);
        std::fs::create_dir_all(&node).unwrap();
        std::fs::write(node.join("distance"), distance).unwrap();
        std::fs::write(node.join("meminfo"), "Node 0 MemTotal: 4 kB\n").unwrap();
    }
    let root = folder.path().to_str().unwrap();
    let topology = dmaplane(&["topology", "--json", "--root", root]).succeeded().json();
    assert_eq!(topology["nodes"][1]["distances"], serde_json::json!([32, 10]));
    assert_eq!(topology["nodes"][1]["memory_bytes"], 4096);
    assert_eq!(topology["nics"], serde_json::json!([]));
}
