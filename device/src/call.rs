//! The driver's calls.

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};
use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;

struct Call<'a, T> {
    number: u32,
    arguments: &'a mut T,
}

// SAFETY: `number` says that a `T` is read and written, which `arguments` is for as long as the call lasts.
unsafe impl<T> Ioctl for Call<'_, T> {
    type Output = i32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.number
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut *self.arguments).cast()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(output)
    }
}

/// Makes a call whose number is that of a `T`: what it returns.
pub(crate) fn call<T>(fd: BorrowedFd<'_>, number: u32, arguments: &mut T) -> io::Result<i32> {
    // The size is in the number: a call with another structure's would read or write beyond it.
    assert_eq!((number >> 16 & 0x3fff) as usize, size_of::<T>(), "call {number:#x} has another argument");
    // SAFETY: the driver's calls touch nothing but the structure, whose size has just been looked at.
    Ok(unsafe { ioctl(fd, Call { number, arguments }) }?)
}
