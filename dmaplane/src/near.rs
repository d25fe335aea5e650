//! Which node a device is nearest to, by its name, as the kernel tells in sysfs.

use crate::error::Error;
use std::path::Path;

/// Folders of devices under /sys, by what they are called: PCI addresses, network interfaces, RDMA devices, GPUs'
/// render nodes, accelerators, block devices.
const PLACES: [(&str, &str); 6] = [
    ("bus/pci/devices", ""),
    ("class/net", "device"),
    ("class/infiniband", "device"),
    ("class/drm", "device"),
    ("class/accel", "device"),
    ("class/block", "device"),
];

/// The NUMA node that a device is nearest to: of a PCI address (`0000:81:00.0`), a network interface (`eth0`), an RDMA
/// device (`mlx5_0`), a GPU's or an accelerator's node (`renderD128`, `accel0`) or a block device. `None`: it is no
/// nearer to one node than to another, or the system does not tell.
///
/// # Errors
/// [`Error::NoDevice`]: there is none of this name.
pub fn node_of_device(name: &str) -> Result<Option<u32>, Error> {
    node_below(Path::new("/sys"), name)
}

fn node_below(root: &Path, name: &str) -> Result<Option<u32>, Error> {
    let is_name = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    let mut found = false;
    for (folder, below) in PLACES.iter().filter(|_| is_name) {
        let device = root.join(folder).join(name);
        found |= device.exists();
        // -1: of no node.
        let text = std::fs::read_to_string(device.join(below).join("numa_node")).unwrap_or_default();
        if let Ok(node) = text.trim().parse() {
            return Ok(Some(node));
        }
    }
    if found { Ok(None) } else { Err(Error::NoDevice { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(root: &Path, folder: &str, node: &str) {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("numa_node"), node).unwrap();
    }

    #[test]
    fn each_kind_of_name_is_found_and_a_device_without_a_node_is_near_to_none() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        device(root, "bus/pci/devices/0000:81:00.0", "1\n");
        device(root, "class/net/eth0/device", "0\n");
        device(root, "class/infiniband/mlx5_0/device", "3\n");
        device(root, "class/drm/renderD128/device", "-1\n");
        std::fs::create_dir_all(root.join("class/net/lo")).unwrap();
        let node = |name| node_below(root, name).unwrap();
        let names = ["0000:81:00.0", "eth0", "mlx5_0", "renderD128", "lo"];
        assert_eq!(names.map(node), [Some(1), Some(0), Some(3), None, None]);
        for name in ["eth1", "", "..", "../net/eth0", "net/eth0"] {
            let error = node_below(root, name).unwrap_err();
            assert!(error.to_string().contains("no device"), "{name}: {error}");
        }
    }
}
