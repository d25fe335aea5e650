//! Devices that memory moves to and from: network cards, GPUs and other accelerators, RDMA devices.

use crate::root::Root;
use serde::Serialize;

const PCI: &str = "sys/bus/pci/devices";
const NET: &str = "sys/class/net";
const RDMA: &str = "sys/class/infiniband";
/// PCI base classes.
const NETWORK: u64 = 0x02;
const DISPLAY: u64 = 0x03;
const ACCELERATOR: u64 = 0x12;

#[derive(Debug, PartialEq, Serialize)]
pub struct Device {
    /// On PCI: domain:bus:device.function. Elsewhere the kernel's name of the device.
    pub address: String,
    pub bus: String,
    /// Vendor and device on PCI.
    pub id: Option<String>,
    pub driver: Option<String>,
    /// None where the machine does not say, or has but one.
    pub node: Option<u32>,
    /// Network interfaces.
    pub interfaces: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct RdmaDevice {
    pub name: String,
    pub driver: Option<String>,
    pub node: Option<u32>,
    /// Of its first port.
    pub link_layer: Option<String>,
    pub state: Option<String>,
}

/// Network cards on PCI, and interfaces of devices elsewhere.
pub fn nics(root: &Root) -> Vec<Device> {
    let mut nics = pci(root, &[NETWORK]);
    for interface in root.names(NET) {
        let device = format!("{NET}/{interface}/device");
        let Ok(place) = root.path(&device).canonicalize() else { continue };
        let known = nics.iter().any(|nic| nic.interfaces.contains(&interface));
        if known || place.components().any(|part| part.as_os_str().to_string_lossy().starts_with("pci")) {
            continue;
        }
        nics.push(Device {
            address: place.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            bus: root.link_name(format!("{device}/subsystem")).unwrap_or_else(|| "unknown".to_owned()),
            id: None,
            driver: root.link_name(format!("{device}/driver")),
            node: root.numa_node(&device),
            interfaces: vec![interface],
        });
    }
    nics
}

/// GPUs and processing accelerators.
pub fn accelerators(root: &Root) -> Vec<Device> {
    pci(root, &[DISPLAY, ACCELERATOR])
}

fn pci(root: &Root, base_classes: &[u64]) -> Vec<Device> {
    let of_class = |address: &String| {
        let class = hexadecimal(&root.text(format!("{PCI}/{address}/class"))?)?;
        base_classes.contains(&(class >> 16)).then(|| pci_device(root, address))
    };
    root.names(PCI).iter().filter_map(of_class).collect()
}

fn pci_device(root: &Root, address: &str) -> Device {
    let folder = format!("{PCI}/{address}");
    let id = |file: &str| Some(root.text(format!("{folder}/{file}"))?.trim_start_matches("0x").to_owned());
    let mut interfaces = root.names(format!("{folder}/net"));
    for name in root.names(&folder).iter().filter(|name| name.starts_with("virtio")) {
        interfaces.extend(root.names(format!("{folder}/{name}/net")));
    }
    Device {
        address: address.to_owned(),
        bus: "pci".to_owned(),
        id: id("vendor").zip(id("device")).map(|(vendor, device)| format!("{vendor}:{device}")),
        driver: root.link_name(format!("{folder}/driver")),
        node: root.numa_node(&folder),
        interfaces,
    }
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// RDMA devices, software ones (Soft-RoCE) among them.
pub fn rdma(root: &Root) -> Vec<RdmaDevice> {
    let device = |name: String| {
        let folder = format!("{RDMA}/{name}");
        let port = |file: &str| root.text(format!("{folder}/ports/1/{file}"));
        RdmaDevice {
            driver: root.link_name(format!("{folder}/device/driver")),
            node: root.numa_node(format!("{folder}/device")),
            link_layer: port("link_layer"),
            // `4: ACTIVE`
            state: port("state").map(|state| state.rsplit(' ').next().unwrap_or_default().to_owned()),
            name,
        }
    };
    root.names(RDMA).into_iter().map(device).collect()
}
