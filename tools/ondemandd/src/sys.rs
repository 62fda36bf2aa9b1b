// SPDX-License-Identifier: GPL-2.0-or-later

//! The few system calls that std and rustix do not wrap safely. All `unsafe` of this program is here.

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `CACHEFILES_IOC_READ_COMPLETE`, that is `_IOW(0x98, 1, int)`.
const CACHEFILES_IOC_READ_COMPLETE: libc::Ioctl = 0x4004_9801;

/// Tells the kernel that the READ request `msg_id` of the object behind `fd` has been served.
///
/// The kernel looks at the cache file again, so this is also how a READ that failed is ended: nothing
/// was written, and the reader gets EIO. The argument is the message id itself, not a pointer to it.
pub fn read_complete(fd: BorrowedFd<'_>, msg_id: u32) -> io::Result<()> {
    // SAFETY: `fd` is open while it is borrowed, and this command passes an integer, no memory.
    let ret = unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            CACHEFILES_IOC_READ_COMPLETE,
            libc::c_ulong::from(msg_id),
        )
    };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// `PR_SET_IO_FLUSHER` of `linux/prctl.h`.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Has this thread, and those it starts later, not wait for I/O when it needs memory: whoever does that
/// I/O may be waiting for this daemon.
pub fn become_io_flusher() -> io::Result<()> {
    // SAFETY: All arguments are integers.
    if unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives this thread a working directory of its own, which changes with no other thread's.
pub fn own_directory() -> io::Result<()> {
    // SAFETY: The argument is an integer. What stops being shared are the working directory, the root and
    // the umask, which no memory depends on.
    if unsafe { libc::unshare(libc::CLONE_FS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes over a descriptor that someone else opened for this process: the kernel (OPEN message),
/// the supervisor or the service manager. It is checked to be open and made close-on-exec.
pub fn adopt_fd(raw: RawFd) -> io::Result<OwnedFd> {
    if raw <= 2 {
        // An object or a device never comes as one of the standard streams.
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: F_SETFD takes an integer; a number that is no open descriptor gives EBADF.
    if unsafe { libc::fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The descriptor is open, and by the protocols named above it belongs to the caller alone.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Signals that are waited for with [`Signals::next`] instead of interrupting anything.
pub struct Signals(File);

impl Signals {
    /// Blocks `signals` in this thread, and so in every thread it starts later, and opens a descriptor
    /// (non-blocking) from which they are read.
    pub fn new(signals: &[libc::c_int]) -> io::Result<Self> {
        // SAFETY: sigset_t is plain data, initialised by sigemptyset() before use; the pointers are to
        // a local and valid during the calls.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for &signal in signals {
                libc::sigaddset(&mut set, signal);
            }
            let err = libc::pthread_sigmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
            if err != 0 {
                return Err(io::Error::from_raw_os_error(err));
            }
            libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd() just returned this descriptor; nobody else has it.
        Ok(Self(unsafe { File::from_raw_fd(fd) }))
    }

    /// The next signal that has arrived, if any.
    pub fn next(&self) -> Option<libc::c_int> {
        // struct signalfd_siginfo has 128 bytes and begins with u32 ssi_signo.
        let mut info = [0u8; 128];
        match (&self.0).read(&mut info) {
            Ok(128) => Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]])),
            _ => None,
        }
    }
}

impl std::os::fd::AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, IntoRawFd};

    #[test]
    fn adopt_takes_open_descriptors_only() {
        let raw = File::open("/dev/null").unwrap().into_raw_fd();
        let fd = adopt_fd(raw).unwrap();
        let flags = rustix::io::fcntl_getfd(&fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        assert_eq!(adopt_fd(1).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(
            adopt_fd(1 << 20).unwrap_err().raw_os_error(),
            Some(libc::EBADF)
        );
    }

    #[test]
    fn a_thread_can_have_a_directory_of_its_own() {
        let before = std::env::current_dir().unwrap();
        std::thread::spawn(|| {
            own_directory().unwrap();
            rustix::process::chdir("/proc").unwrap();
            assert_eq!(std::env::current_dir().unwrap().to_str(), Some("/proc"));
        })
        .join()
        .unwrap();
        assert_eq!(std::env::current_dir().unwrap(), before);
    }

    #[test]
    fn completion_ioctl_fails_on_other_files() {
        let file = tempfile::tempfile().unwrap();
        let err = read_complete(file.as_fd(), 1).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::ENOTTY));
    }
}
