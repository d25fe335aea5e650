//! Opening and setting up.

use crate::Test;
use crate::kit::{alloc, command, device, refused, succeed};
use anyhow::{Context, Result, ensure};
use dmaplane_device::{Device, PATH};
use dmaplane_ring::abi::SlotHandle;
use dmaplane_ring::abi::device::{
    DEVICE_CLOSE, DEVICE_ENTER, DEVICE_EVENTFD, DEVICE_IMPORT, DEVICE_LISTEN, DEVICE_MAP, DEVICE_PIN, DEVICE_RING,
    DEVICE_SETUP, DEVICE_SLOT, DEVICE_TAKE, DeviceClose, DeviceEnter, DeviceEventfd, DeviceImport, DeviceListen,
    DeviceMap, DevicePin, DeviceRing, DeviceSetup, DeviceSlot, DeviceTake, device_features, pin_flags, setup_flags,
};
use dmaplane_ring::build::ExportDmabuf;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use std::os::fd::{AsFd as _, AsRawFd, FromRawFd as _, OwnedFd};

pub const TESTS: &[Test] = &[
    ("dev_2_a_context_is_made_once_and_says_what_it_was_made_with", made_once),
    ("dev_2_unknown_flags_and_reserved_fields_are_refused", unknown_is_refused),
    ("dev_3_every_call_refuses_flags_and_reserved_fields_that_it_does_not_know", every_call),
    ("dev_2_before_it_is_set_up_a_descriptor_can_do_nothing", nothing_before),
    ("bug_13_a_bad_pointer_costs_nothing", bad_pointers),
    ("dev_2_a_poller_wants_cap_sys_nice", poller_is_a_privilege),
    ("dev_2_a_poller_runs_where_it_was_asked_to", poller_cpu),
    ("dev_1_who_is_not_in_the_group_may_not_open_it", not_in_the_group),
];

/// What is the work of other programs, which under every checker take ten times as long to say the same.
pub const RULE: &[Test] = &[("dev_1_the_udev_rule_gives_the_device_to_the_group", the_rule)];

fn made_once() -> Result<()> {
    let device = Device::open(DeviceSetup { rings: 3, ..DeviceSetup::default() })?;
    let setup = device.setup();
    ensure!(setup.rings == 3 && setup.buffers > 0 && setup.buffer_bytes > 0, "{setup:?}");
    ensure!(setup.features & device_features::PLACEMENT != 0, "{setup:?}");
    let again = rustix::io::dup(&device)?;
    refused(Device::set_up(again, DeviceSetup::default()), libc::EBUSY, "a second set-up")
}

fn unknown_is_refused() -> Result<()> {
    let usual = DeviceSetup::default();
    let wrong = [
        DeviceSetup { flags: 1 << 31, ..usual },
        DeviceSetup { features: 1, ..usual },
        DeviceSetup { reserved0: 1, ..usual },
        DeviceSetup { reserved: [0, 0, 0, 1], ..usual },
        DeviceSetup { poller_idle_us: 1, ..usual },
        DeviceSetup { flags: setup_flags::POLLER_CPU, ..usual },
        DeviceSetup { flags: setup_flags::POLLER | setup_flags::POLLER_CPU, poller_cpu: 1 << 20, ..usual },
        DeviceSetup { rings: u32::MAX, ..usual },
        DeviceSetup { buffer_bytes: u64::MAX, ..usual },
        DeviceSetup { memory_bytes: u64::MAX, ..usual },
    ];
    for setup in wrong {
        refused(Device::open(setup), libc::EINVAL, &format!("{setup:?}"))?;
    }
    let (device, _ring) = device()?;
    for (sq_entries, cq_entries) in [(3, 16), (64, 32), (1 << 20, 1 << 20), (0, 0)] {
        let what = format!("a ring of {sq_entries} and {cq_entries}");
        refused(device.ring(sq_entries, cq_entries), libc::EINVAL, &what)?;
    }
    Ok(())
}

/// An ioctl with any argument, as a program without a library would make it.
fn raw(fd: i32, number: u32, argument: usize) -> std::io::Result<i32> {
    // SAFETY: the driver must take any argument; what it could write to is no memory of ours.
    let result = unsafe { libc::ioctl(fd, number.into(), argument) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

/// Whether a call refuses each spoilt argument with EINVAL, and takes the same one unspoilt: what it returns then.
fn refuses<T: Copy + std::fmt::Debug>(fd: i32, number: u32, usual: T, spoil: &[fn(&mut T)]) -> Result<i32> {
    for spoil in spoil {
        let mut wrong = usual;
        spoil(&mut wrong);
        refused(raw(fd, number, &raw mut wrong as usize), libc::EINVAL, &format!("{wrong:?}"))?;
    }
    let mut usual = usual;
    raw(fd, number, &raw mut usual as usize).with_context(|| format!("{usual:?}"))
}

fn every_call() -> Result<()> {
    let (device, mut ring) = device()?;
    let (buffer, _) = alloc(&mut ring, 4096)?;
    let made = succeed(&mut ring, ExportDmabuf::new(buffer))?;
    let export = device.take(SlotHandle::from_bits(made.word0).context("no slot")?)?;
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK)?;
    let (context, of_ring) = (device.as_fd().as_raw_fd(), ring.as_fd().as_raw_fd());

    let usual = DeviceRing { sq_entries: 16, cq_entries: 32, ..DeviceRing::default() };
    let spoil: [fn(&mut DeviceRing); 7] = [
        |it| it.flags = 1,
        |it| it.index = 1,
        |it| it.client_bytes = 4096,
        |it| it.engine_offset = 4096,
        |it| it.engine_bytes = 4096,
        |it| it.reserved[0] = 1,
        |it| it.reserved[1] = 1,
    ];
    let fd = refuses(context, DEVICE_RING, usual, &spoil)?;
    // SAFETY: the call has just made it, for us alone.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });

    let spoil: [fn(&mut DeviceEnter); 3] = [|it| it.flags = 1, |it| it.reserved = 1, |it| it.signal_mask_bytes = 8];
    refuses(of_ring, DEVICE_ENTER, DeviceEnter::default(), &spoil)?;
    let usual = DeviceEventfd { fd: eventfd.as_raw_fd(), flags: 0 };
    let spoil: [fn(&mut DeviceEventfd); 2] = [|it| it.flags = 1, |it| it.fd = -2];
    refuses(of_ring, DEVICE_EVENTFD, usual, &spoil)?;
    let usual = DeviceMap { buffer: buffer.handle().bits(), ..DeviceMap::default() };
    let spoil: [fn(&mut DeviceMap); 3] = [|it| it.flags = 1, |it| it.offset = 1, |it| it.length_bytes = 1];
    refuses(context, DEVICE_MAP, usual, &spoil)?;
    let usual = DeviceImport { fd: export.as_raw_fd(), ..DeviceImport::default() };
    let spoil: [fn(&mut DeviceImport); 4] =
        [|it| it.flags = 1, |it| it.buffer = 1, |it| it.length_bytes = 1, |it| it.reserved = 1];
    refuses(context, DEVICE_IMPORT, usual, &spoil)?;
    static PINNED: [u64; 512] = [0; 512];
    let (address, length_bytes) = (PINNED.as_ptr() as u64, 4096);
    let usual = DevicePin { address, length_bytes, flags: pin_flags::READ_ONLY, ..DevicePin::default() };
    let spoil: [fn(&mut DevicePin); 3] = [|it| it.flags |= 2, |it| it.buffer = 1, |it| it.reserved = 1];
    refuses(context, DEVICE_PIN, usual, &spoil)?;
    let usual = DeviceSlot { fd: eventfd.as_raw_fd(), ..DeviceSlot::default() };
    let spoil: [fn(&mut DeviceSlot); 3] = [|it| it.flags = 1, |it| it.slot = 1, |it| it.reserved = 1];
    refuses(context, DEVICE_SLOT, usual, &spoil)?;
    let usual = DeviceTake { slot: device.put(eventfd.as_fd())?.handle().bits(), flags: 0 };
    let fd = refuses(context, DEVICE_TAKE, usual, &[|it| it.flags = 1])?;
    // SAFETY: as above.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    let name = "local:every-call";
    let (address, address_bytes) = (name.as_ptr() as u64, name.len() as u32);
    let usual = DeviceListen { address, address_bytes, ..DeviceListen::default() };
    let spoil: [fn(&mut DeviceListen); 3] = [|it| it.flags = 1, |it| it.listener = 1, |it| it.reserved = 1];
    refuses(context, DEVICE_LISTEN, usual, &spoil)?;
    let spoil: [fn(&mut DeviceClose); 2] = [|it| it.flags = 1, |it| it.reserved = 1];
    refuses(of_ring, DEVICE_CLOSE, DeviceClose::default(), &spoil)?;
    refuses(context, DEVICE_CLOSE, DeviceClose::default(), &spoil)?;
    Ok(())
}

fn nothing_before() -> Result<()> {
    let fd = Device::open_bare(PATH)?;
    refused(raw(fd.as_raw_fd(), DEVICE_RING, 0), libc::ENXIO, "a ring of no context")?;
    let mapped = dmaplane_device::Mapping::new(std::os::fd::AsFd::as_fd(&fd), 0, 4096, true);
    refused(mapped, libc::ENXIO, "mapping a buffer of no context")?;
    refused(raw(fd.as_raw_fd(), 0x1234, 0), libc::ENXIO, "a call that does not exist, without a context")
}

fn bad_pointers() -> Result<()> {
    for argument in [0, 1, usize::MAX, 0xffff_8000_0000_0000] {
        let fd = Device::open_bare(PATH)?;
        refused(raw(fd.as_raw_fd(), DEVICE_SETUP, argument), libc::EFAULT, "a set-up at no address")?;
    }
    let (device, ring) = device()?;
    let enter = |min_complete| DeviceEnter { min_complete, signal_mask: 1, signal_mask_bytes: 8, ..Default::default() };
    let ring = std::os::fd::AsFd::as_fd(&ring).as_raw_fd();
    refused(raw(ring, DEVICE_ENTER, read_only(&enter(1))?), libc::EFAULT, "a wait under a mask at no address")?;
    ensure!(raw(ring, DEVICE_ENTER, read_only(&enter(0))?)? == 0, "a call that does not wait has looked at its mask");
    let fd = std::os::fd::AsFd::as_fd(&device).as_raw_fd();
    refused(raw(fd, DEVICE_RING, 1), libc::EFAULT, "a ring at no address")?;
    refused(raw(fd, 0x1234, 0), libc::ENOTTY, "a call that does not exist")?;
    // What can be read and not written to: the answer cannot be given, and nothing is left of what was asked for.
    let before = descriptors()?;
    let wanted = DeviceRing { sq_entries: 16, cq_entries: 32, ..DeviceRing::default() };
    for _ in 0..100 {
        refused(raw(fd, DEVICE_RING, read_only(&wanted)?), libc::EFAULT, "a ring that cannot be told of")?;
    }
    ensure!(descriptors()? == before, "{} descriptors, {before} before", descriptors()?);
    // The context has 16 rings at most: none of those was kept.
    let rings: std::io::Result<Vec<_>> = (0..15).map(|_| device.ring(16, 32)).collect();
    rings?;
    answers(&device)?;
    let fresh = Device::open_bare(PATH)?;
    let setup = DeviceSetup::default();
    refused(raw(fresh.as_raw_fd(), DEVICE_SETUP, read_only(&setup)?), libc::EFAULT, "a set-up that cannot be told of")?;
    // It has not happened.
    Device::set_up(fresh, setup).map(drop).context("the set-up that can be told of")
}

/// A call that cannot give its answer has made nothing: objects that nobody was told of could not be freed.
fn answers(device: &Device) -> Result<()> {
    let mut ring = device.ring(16, 32)?;
    let (buffer, _) = crate::kit::alloc(&mut ring, 4096)?;
    let slot = crate::kit::succeed(&mut ring, dmaplane_ring::build::ExportDmabuf::new(buffer))?.word0;
    let dma_buf = device.take(dmaplane_ring::abi::SlotHandle::from_bits(slot).context("no slot")?)?;
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK)?;
    let memory = vec![0u64; 512];
    let name = "local:no-answer";
    let fd = std::os::fd::AsFd::as_fd(device).as_raw_fd();
    let held = || -> Result<Vec<u64>> {
        ["buffers", "slots", "listeners"].iter().map(|name| crate::kit::information(device, name)).collect()
    };
    let before = held()?;
    let map = DeviceMap { buffer: buffer.handle().bits(), ..DeviceMap::default() };
    let import = DeviceImport { fd: dma_buf.as_raw_fd(), ..DeviceImport::default() };
    let (address, length_bytes) = (memory.as_ptr() as u64, memory.len() as u64 * 8);
    let pin = DevicePin { address, length_bytes, ..DevicePin::default() };
    let put = DeviceSlot { fd: eventfd.as_raw_fd(), ..DeviceSlot::default() };
    let (address, address_bytes) = (name.as_ptr() as u64, name.len() as u32);
    let listen = DeviceListen { address, address_bytes, ..DeviceListen::default() };
    let calls = [
        (DEVICE_MAP, read_only(&map)?),
        (DEVICE_IMPORT, read_only(&import)?),
        (DEVICE_PIN, read_only(&pin)?),
        (DEVICE_SLOT, read_only(&put)?),
        (DEVICE_LISTEN, read_only(&listen)?),
    ];
    for (number, argument) in calls {
        refused(raw(fd, number, argument), libc::EFAULT, &format!("call {number:#x}, which cannot be answered"))?;
    }
    ensure!(held()? == before, "{:?} are held, {before:?} before", held()?);
    device.listen(name).map(drop).context("the name of a listener that nobody was told of")
}

/// The address of a copy that can only be read, for good.
fn read_only<T: Copy>(value: &T) -> Result<usize> {
    let bytes = 4096;
    assert!(size_of::<T>() <= bytes);
    let both = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping, written before it becomes read-only, and never unmapped.
    let page = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, both, MapFlags::PRIVATE) }?;
    // SAFETY: as above; a page is aligned for anything.
    unsafe {
        page.cast::<T>().write(*value);
        rustix::mm::mprotect(page, bytes, MprotectFlags::READ)?;
    }
    Ok(page as usize)
}

fn descriptors() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

fn poller_is_a_privilege() -> Result<()> {
    let program = std::env::current_exe()?;
    let program = program.to_str().context("the program's name is text")?;
    let said = command("setpriv", &["--inh-caps=-sys_nice", "--bounding-set=-sys_nice", program, "--child=poller"])?;
    ensure!(said.trim() == libc::EPERM.to_string(), "a poller without CAP_SYS_NICE: {said:?}");
    Ok(())
}

fn poller_cpu() -> Result<()> {
    for cpu in [0, 1] {
        let flags = setup_flags::POLLER | setup_flags::POLLER_CPU;
        let _device = Device::open(DeviceSetup { flags, poller_cpu: cpu, ..DeviceSetup::default() })?;
        let mut allowed = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let status = std::fs::read_to_string(entry?.path().join("status")).unwrap_or_default();
            if status.starts_with("Name:\tdmaplane-poll\n") {
                let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
                allowed.push(line.context("no line of processors")?.trim().to_owned());
            }
        }
        // That of the round before may not have gone yet.
        ensure!(allowed.contains(&cpu.to_string()), "a poller for processor {cpu} may run on {allowed:?}");
    }
    Ok(())
}

fn not_in_the_group() -> Result<()> {
    let program = std::env::current_exe()?;
    let program = program.to_str().context("the program's name is text")?;
    let said = command("setpriv", &["--reuid=65534", "--clear-groups", program, "--child=open"])?;
    ensure!(said.trim() == libc::EACCES.to_string(), "opening said {said:?}");
    Ok(())
}

/// With udev running and the rule in its place, who is in the group may open it, and nobody else.
fn the_rule() -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    command("groupadd", &["--force", "--system", "dmaplane"])?;
    let groups = std::fs::read_to_string("/etc/group")?;
    let line = groups.lines().find(|line| line.starts_with("dmaplane:")).context("the group is not there")?;
    let group = line.split(':').nth(2).context("the group has no number")?;
    std::fs::create_dir_all("/etc/udev/rules.d")?;
    // The tests run in the tree.
    std::fs::copy("driver/90-dmaplane.rules", "/etc/udev/rules.d/90-dmaplane.rules").context("copying the rule")?;
    command("/lib/systemd/systemd-udevd", &["--daemon"])?;
    let told = command("udevadm", &["trigger", "--settle", "--action=add", "/sys/class/misc/dmaplane"]);
    let found = std::fs::metadata(PATH)?;
    let program = std::env::current_exe()?;
    let program = program.to_str().context("the program's name is text")?;
    let open_as = |group: &str| {
        command("setpriv", &["--reuid=65534", &format!("--regid={group}"), "--clear-groups", program, "--child=open"])
    };
    let (member, stranger) = (open_as(group), open_as("65534"));
    command("udevadm", &["control", "--exit"])?;
    told?;
    ensure!(found.gid().to_string() == group && found.mode() & 0o777 == 0o660, "{}: {:o}", found.gid(), found.mode());
    ensure!(member?.trim() == "0", "a member of the group may not open it");
    ensure!(stranger?.trim() == libc::EACCES.to_string(), "a stranger may open it");
    Ok(())
}
