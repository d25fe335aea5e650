//! A made-up machine of two nodes, and one without anything.

use super::devices::RdmaDevice;
use super::findings::State;
use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn put(root: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// Two nodes, an InfiniBand card on node 1 with its RDMA device, a GPU on node 0, a virtual NIC off PCI.
fn two_nodes(root: &Path) {
    let huge = "hugepages/hugepages-2048kB";
    for (node, total, distance) in [("0", "1048576", "10 21\n"), ("1", "2097152", "21 10\n")] {
        let folder = format!("sys/devices/system/node/node{node}");
        let meminfo = format!("Node {node} MemTotal:       {total} kB\nNode {node} MemFree:        1024 kB\n");
        put(
            root,
            &[
                (&format!("{folder}/meminfo"), &meminfo),
                (&format!("{folder}/distance"), distance),
                (&format!("{folder}/cpulist"), "0-3\n"),
                (&format!("{folder}/{huge}/nr_hugepages"), "64\n"),
                (&format!("{folder}/{huge}/free_hugepages"), "60\n"),
            ],
        );
    }
    let pci = "sys/devices/pci0000:00";
    put(
        root,
        &[
            ("sys/devices/system/node/possible", "0-1\n"),
            (&format!("sys/kernel/mm/{huge}/nr_hugepages"), "128\n"),
            (&format!("sys/kernel/mm/{huge}/free_hugepages"), "120\n"),
            ("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
            ("sys/kernel/mm/transparent_hugepage/shmem_enabled", "always within_size advise [never] deny force\n"),
            (&format!("{pci}/0000:00:01.0/class"), "0x020700\n"),
            (&format!("{pci}/0000:00:01.0/vendor"), "0x15b3\n"),
            (&format!("{pci}/0000:00:01.0/device"), "0x1021\n"),
            (&format!("{pci}/0000:00:01.0/numa_node"), "1\n"),
            (&format!("{pci}/0000:00:01.0/net/ib0/mtu"), "4092\n"),
            (&format!("{pci}/0000:00:01.0/infiniband/mlx5_0/ports/1/state"), "4: ACTIVE\n"),
            (&format!("{pci}/0000:00:01.0/infiniband/mlx5_0/ports/1/link_layer"), "InfiniBand\n"),
            (&format!("{pci}/0000:00:02.0/class"), "0x030200\n"),
            (&format!("{pci}/0000:00:02.0/numa_node"), "0\n"),
            (&format!("{pci}/0000:00:03.0/class"), "0x010802\n"),
            (&format!("{pci}/0000:00:04.0/class"), "0x120000\n"),
            (&format!("{pci}/0000:00:04.0/numa_node"), "-1\n"),
            ("sys/devices/virtio-mmio/virtio3/net/eth0/mtu", "1500\n"),
            ("sys/bus/drivers/mlx5_core/bind", ""),
            ("sys/bus/virtio/drivers/virtio_net/bind", ""),
            ("sys/class/net/lo/mtu", "65536\n"),
            ("sys/fs/cgroup/machine/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/machine/job/memory.max", "max\n"),
            ("sys/fs/cgroup/machine/job/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/other/memory.max", "4096\n"),
            ("proc/self/cgroup", "0::/machine/job\n"),
            ("proc/self/status", "NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\nCapEff:\t00000000a80425fb\n"),
            ("proc/self/limits", "Max locked memory         8388608    unlimited    bytes\n"),
            ("proc/sys/kernel/shmmax", "4096\n"),
            ("dev/udmabuf", ""),
        ],
    );
    let link = |to: String, from: &str| {
        let from = root.join(from);
        fs::create_dir_all(from.parent().unwrap()).unwrap();
        symlink(root.join(to), from).unwrap();
    };
    for device in ["01", "02", "03", "04"] {
        link(format!("{pci}/0000:00:{device}.0"), &format!("sys/bus/pci/devices/0000:00:{device}.0"));
    }
    link("sys/bus/drivers/mlx5_core".into(), &format!("{pci}/0000:00:01.0/driver"));
    link(format!("{pci}/0000:00:01.0"), &format!("{pci}/0000:00:01.0/infiniband/mlx5_0/device"));
    link(format!("{pci}/0000:00:01.0/infiniband/mlx5_0"), "sys/class/infiniband/mlx5_0");
    link(format!("{pci}/0000:00:01.0"), &format!("{pci}/0000:00:01.0/net/ib0/device"));
    link(format!("{pci}/0000:00:01.0/net/ib0"), "sys/class/net/ib0");
    link("sys/devices/virtio-mmio/virtio3".into(), "sys/devices/virtio-mmio/virtio3/net/eth0/device");
    link("sys/bus/virtio/drivers/virtio_net".into(), "sys/devices/virtio-mmio/virtio3/driver");
    link("sys/bus/virtio".into(), "sys/devices/virtio-mmio/virtio3/subsystem");
    link("sys/devices/virtio-mmio/virtio3/net/eth0".into(), "sys/class/net/eth0");
}

fn state(topology: &Topology, what: &str) -> State {
    topology.findings.iter().find(|finding| finding.what == what).unwrap().state
}

#[test]
fn two_nodes_are_read_with_all_their_devices() {
    let folder = tempfile::tempdir().unwrap();
    two_nodes(folder.path());
    let topology = Topology::of(&Root::new(folder.path()));

    let nodes: Vec<_> = topology.nodes.iter().map(|node| (node.node, node.memory_bytes >> 30)).collect();
    assert_eq!(nodes, [(0, 1), (1, 2)]);
    assert_eq!(topology.nodes[1].distances, [21, 10]);
    assert_eq!(topology.nodes[1].huge_pages[0].free, 60);
    let sizes: Vec<_> = topology.huge_pages.iter().map(|pages| (pages.page_bytes >> 20, pages.total)).collect();
    assert_eq!(sizes, [(2, 128), (1024, 0)]);
    assert_eq!(topology.transparent_huge_pages.shared.as_deref(), Some("never"));

    let nics: Vec<_> = topology.nics.iter().map(|nic| (nic.address.as_str(), nic.node, &nic.interfaces[..])).collect();
    assert_eq!(nics, [("0000:00:01.0", Some(1), &["ib0".to_owned()][..]), ("virtio3", None, &["eth0".to_owned()])]);
    assert_eq!(topology.nics[0].id.as_deref(), Some("15b3:1021"));
    assert_eq!(topology.nics[0].driver.as_deref(), Some("mlx5_core"));
    assert_eq!(topology.nics[1].driver.as_deref(), Some("virtio_net"));
    assert_eq!(topology.nics[1].bus, "virtio");
    let accelerators: Vec<_> = topology.accelerators.iter().map(|device| (&device.address[5..], device.node)).collect();
    assert_eq!(accelerators, [("00:02.0", Some(0)), ("00:04.0", None)]);
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        topology.rdma,
        [RdmaDevice {
            name: "mlx5_0".into(),
            driver: text("mlx5_core"),
            node: Some(1),
            link_layer: text("InfiniBand"),
            state: text("ACTIVE"),
        }]
    );
    assert_eq!(topology.limits.cgroup_memory_bytes, Some(1 << 30), "the least of its own and those above");
    assert_eq!(topology.limits.cgroup_cpus, Some(1.5));
    let confinement = &topology.confinement;
    assert_eq!((confinement.seccomp, confinement.seccomp_filters), (Some("filter"), Some(3)));
    assert!(confinement.no_new_privileges);
    assert_eq!(state(&topology, "all system calls"), State::Missing);
    assert_eq!(topology.limits.locked_memory_bytes, Some(8 << 20));
    assert!(topology.udmabuf.present && !topology.dmaplane.present);
    for what in ["several NUMA nodes", "2 MiB pages", "/dev/udmabuf", "RDMA device", "GPU or accelerator"] {
        assert_eq!(state(&topology, what), State::Found, "{what}");
    }
    assert_eq!(state(&topology, "/dev/dmaplane"), State::Missing);

    let table = table::text(&topology);
    for part in ["21 10", "60 of 64 x 2 MiB", "pci 0000:00:01.0 (15b3:1021)", "mlx5_core", "InfiniBand ACTIVE"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    let json = serde_json::to_value(&topology).unwrap();
    assert_eq!(json["nodes"][1]["distances"][0], 21);
    assert_eq!(json["findings"][3]["state"], "missing");
}

#[test]
fn a_machine_that_tells_nothing_has_one_node_and_lacks_everything() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), &[("proc/meminfo", "MemTotal: 2048 kB\nMemFree: 1024 kB\n")]);
    let topology = Topology::of(&Root::new(folder.path()));
    assert_eq!(topology.nodes.len(), 1);
    assert_eq!((topology.nodes[0].memory_bytes, topology.nodes[0].free_bytes), (2 << 20, 1 << 20));
    assert!(topology.nics.is_empty() && topology.accelerators.is_empty() && topology.rdma.is_empty());
    assert_eq!((topology.limits.cgroup_memory_bytes, topology.limits.shm_file_bytes), (None, None));
    assert_eq!(topology.confinement.seccomp, None);
    for what in ["several NUMA nodes", "2 MiB pages", "/dev/udmabuf", "/dev/dmaplane", "RDMA device"] {
        assert_eq!(state(&topology, what), State::Missing, "{what}");
    }
    assert!(table::text(&topology).contains("host memory only"));
}

/// A device file that nothing opens was said to serve.
#[test]
fn a_driver_that_nothing_opens_is_said_to_serve() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), &[("dev/dmaplane", "")]);
    let topology = Topology::of(&Root::new(folder.path()));
    let finding = topology.findings.iter().find(|finding| finding.what == "/dev/dmaplane").unwrap();
    assert_eq!(finding.state, State::Found);
    assert!(finding.consequence.starts_with("the embedded host serves all the same"), "{}", finding.consequence);
}
