//! Memory near a device (clause BUF-2), over the driver: the lab's machines have a device on either node.

use dmaplane::{Config, Plane, node_of_device};

#[test]
#[ignore = "wants the kernel driver: cargo xtask vm test"]
fn buf_2_memory_near_a_device_lies_on_its_node_over_local() {
    let mut plane = Plane::open_device("/dev/dmaplane", &Config::default()).unwrap();
    let mut near = Vec::new();
    for device in std::fs::read_dir("/sys/bus/pci/devices").unwrap() {
        let name = device.unwrap().file_name().into_string().unwrap();
        let Some(node) = node_of_device(&name).unwrap() else { continue };
        let buffer = plane.alloc_near(1 << 20, &name).unwrap();
        match plane.placement(&buffer, node).unwrap() {
            dmaplane::PagesOnNode::Counted { on_node, pages } => assert_eq!((on_node, pages), (256, 256), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        near.push(node);
    }
    near.sort_unstable();
    near.dedup();
    assert_eq!(near, [0, 1], "the lab makes a device on either node");
    assert!(plane.alloc_near(4096, "no-such-device").unwrap_err().to_string().contains("no device"));
}
