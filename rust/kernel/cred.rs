// SPDX-License-Identifier: GPL-2.0

//! Credentials management.
//!
//! C header: [`include/linux/cred.h`](srctree/include/linux/cred.h).
//!
//! Reference: <https://www.kernel.org/doc/html/latest/security/credentials.html>

use crate::{
    bindings,
    kernel_next::{
        fs::inode::Inode,
        security::SecurityId, //
    }, //
};
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    cred::Credential,
    error::to_result,
    prelude::*,
    sync::aref::ARef, //
};

/// Runs `f` with the credentials `cred` in place of the current task's own.
///
/// This is what `scoped_with_creds()` is in C. It is a function rather than a guard: a guard could
/// be forgotten, which would leave the task with credentials that it holds no reference to. It may
/// be called in any task, and nested; it does not sleep.
///
/// # Examples
///
/// ```
/// use kernel::cred::{
///     with_cred,
///     NewCredential, //
/// };
///
/// let cred = NewCredential::kernel()?.into_credential();
/// let answer = with_cred(&cred, || 42);
/// assert_eq!(answer, 42);
/// # Ok::<(), Error>(())
/// ```
pub(crate) fn with_cred<R>(cred: &Credential, f: impl FnOnce() -> R) -> R {
    // SAFETY: `cred` outlives this function, and the old credentials are put back before it
    // returns: a Rust panic does not unwind in the kernel.
    let old = unsafe { bindings::override_creds(cred.as_ptr()) };
    let ret = f();
    // SAFETY: `old` is what the call above returned, on this task.
    unsafe { bindings::revert_creds(old) };
    ret
}

/// Runs `f` with the credentials that the current task has of its own (`task_struct::real_cred`),
/// whatever it acts with: for what is asked of the task itself, as how much it may use, where a
/// file system in between acts with those of its mounter.
///
/// # Examples
///
/// ```
/// use kernel::cred::{
///     capable_noaudit,
///     with_own_cred,
///     Capability, //
/// };
///
/// let is_administrator = with_own_cred(|| capable_noaudit(Capability::SYS_ADMIN));
/// # let _ = is_administrator;
/// # Ok::<(), Error>(())
/// ```
pub(crate) fn with_own_cred<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: The running task has credentials of its own, which nobody else replaces, and `f`
    // runs with others in force.
    let own = unsafe { Credential::from_ptr((*bindings::get_current()).real_cred) };
    with_cred(own, f)
}

/// New credentials that nothing uses yet, so that they may be changed.
///
/// # Invariants
///
/// Holds the only reference to valid credentials that have not been committed.
#[must_use = "new credentials are freed immediately when they are unused"]
pub(crate) struct NewCredential(NonNull<bindings::cred>);

impl NewCredential {
    /// Prepares credentials for what the kernel does on behalf of the current task: a copy of that
    /// task's own, without its keyrings. They give no permission that the task does not have; a
    /// task of the kernel's has all.
    ///
    /// This may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory, or a security module refuses.
    pub(crate) fn kernel() -> Result<Self> {
        // SAFETY: `get_current` returns the running task.
        let ptr = unsafe { bindings::prepare_kernel_cred(bindings::get_current()) };
        // INVARIANT: The function returns new credentials, or null.
        NonNull::new(ptr).map(Self).ok_or(ENOMEM)
    }

    /// Prepares a copy of `cred`.
    ///
    /// This may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory, or a security module refuses.
    pub(crate) fn copy_of(cred: &Credential) -> Result<Self> {
        // SAFETY: The function copies the credentials in force.
        let ptr = with_cred(cred, || unsafe { bindings::prepare_creds() });
        // INVARIANT: The function returns new credentials, or null.
        NonNull::new(ptr).map(Self).ok_or(ENOMEM)
    }

    /// Makes files that are created with these credentials get the security context that files
    /// in `dir` have, and the user ids of the owner of `dir`.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the owner of `dir` has no user id; what a security module says otherwise.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     cred::{
    ///         Credential,
    ///         NewCredential, //
    ///     },
    ///     fs::path::Path,
    ///     sync::aref::ARef, //
    /// };
    ///
    /// /// Credentials to fill `dir` with.
    /// fn owner_of(dir: &Path) -> Result<ARef<Credential>> {
    ///     let mut new = NewCredential::kernel()?;
    ///     new.create_files_as(dir.dentry().inode().ok_or(ENOTDIR)?)?;
    ///     Ok(new.into_credential())
    /// }
    ///
    /// owner_of(&Path::lookup_dir(c"/")?)?;
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn create_files_as(&mut self, dir: &Inode) -> Result {
        // SAFETY: By the invariant the credentials are valid and nothing else uses them; the
        // inode is valid as it is borrowed.
        to_result(unsafe { bindings::set_create_files_as(self.0.as_ptr(), dir.as_ptr()) })
    }

    /// Makes what is done with these credentials be judged as `secid`.
    ///
    /// # Errors
    ///
    /// What a security module says.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     cred::{
    ///         Credential,
    ///         NewCredential, //
    ///     },
    ///     security::SecurityId,
    ///     sync::aref::ARef, //
    /// };
    ///
    /// /// Credentials that a security module takes for those of `context`.
    /// fn labelled(context: &CStr) -> Result<ARef<Credential>> {
    ///     let mut new = NewCredential::kernel()?;
    ///     new.security_override(SecurityId::from_context(context)?)?;
    ///     Ok(new.into_credential())
    /// }
    ///
    /// // No security module has a context without a name.
    /// assert!(labelled(c"").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn security_override(&mut self, secid: SecurityId) -> Result {
        // SAFETY: By the invariant the credentials are valid and nothing else uses them.
        to_result(unsafe { bindings::set_security_override(self.0.as_ptr(), secid.as_raw()) })
    }

    /// Ends the time in which they can be changed. Unlike after `commit_creds()`, no task has them.
    #[must_use]
    pub(crate) fn into_credential(self) -> ARef<Credential> {
        let this = ManuallyDrop::new(self);
        // SAFETY: The reference that `this` holds becomes the `ARef`'s. `Credential` is a
        // transparent wrapper.
        unsafe { ARef::from_raw(this.0.cast()) }
    }
}

impl Drop for NewCredential {
    fn drop(&mut self) {
        // SAFETY: By the invariant this is the only reference, and nothing uses them.
        unsafe { bindings::abort_creds(self.0.as_ptr()) };
    }
}

/// A capability.
///
/// C header: [`include/uapi/linux/capability.h`](srctree/include/uapi/linux/capability.h)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capability(c_int);

impl Capability {
    /// `CAP_SYS_ADMIN`: administration that has no capability of its own.
    // CAST: Capabilities are small numbers.
    pub(crate) const SYS_ADMIN: Self = Self(bindings::CAP_SYS_ADMIN as c_int);
    /// `CAP_SYS_RESOURCE`: to use more than there is meant to be for one user.
    pub(crate) const SYS_RESOURCE: Self = Self(bindings::CAP_SYS_RESOURCE as c_int);
}

/// Returns whether the current task has `capability` in the initial user namespace.
///
/// If it has, then this marks the task as one that has used super-user privileges.
///
/// # Examples
///
/// ```
/// use kernel::cred::{
///     capable,
///     Capability, //
/// };
///
/// fn check() -> Result {
///     match capable(Capability::SYS_ADMIN) {
///         true => Ok(()),
///         false => Err(EPERM),
///     }
/// }
/// # let _ = check();
/// ```
#[inline]
#[must_use]
pub(crate) fn capable(capability: Capability) -> bool {
    // SAFETY: No preconditions but that the capability is one, which all values of the type are.
    unsafe { bindings::capable(capability.0) }
}

/// As [`capable`], for a question that is not a request: it is not audited that the task lacks the
/// capability.
///
/// # Examples
///
/// ```
/// use kernel::cred::{
///     capable_noaudit,
///     Capability, //
/// };
///
/// let limit = match capable_noaudit(Capability::SYS_RESOURCE) {
///     true => usize::MAX,
///     false => 100,
/// };
/// # let _ = limit;
/// # Ok::<(), Error>(())
/// ```
#[inline]
#[must_use]
pub(crate) fn capable_noaudit(capability: Capability) -> bool {
    // SAFETY: The initial user namespace is there always, and all values of the type are
    // capabilities. `capable_noaudit()` in C is the same, but Linux 7.2 does not have it.
    unsafe { bindings::ns_capable_noaudit(&raw mut bindings::init_user_ns, capability.0) }
}

#[kunit_tests(rust_cred)]
mod tests {
    use super::*;
    use crate::kernel_next::{
        fs::path::Path,
        kunit::scratch, //
    };

    /// The credentials in force.
    fn current() -> *const bindings::cred {
        // SAFETY: The running task looks at its own credentials.
        unsafe { (*bindings::get_current()).cred }
    }

    fn fsuid() -> u32 {
        // SAFETY: The credentials in force are valid, and do not change.
        unsafe { (*current()).fsuid.val }
    }

    fn usage(cred: *const bindings::cred) -> isize {
        // SAFETY: The callers hold a reference.
        unsafe { bindings::kunit_cred_usage(cred) }
    }

    /// Credentials of a user.
    fn user(uid: u32) -> Result<ARef<Credential>> {
        let new = NewCredential::kernel()?;
        // SAFETY: By the invariant nothing else uses them.
        unsafe { (*new.0.as_ptr()).fsuid.val = uid };
        Ok(new.into_credential())
    }

    #[test]
    fn with_cred_restores() -> Result {
        let before = current();
        let cred = user(1000)?;
        let counts = (usage(before), usage(cred.as_ptr()));
        let inside = with_cred(&cred, || (core::ptr::eq(current(), cred.as_ptr()), fsuid()));
        assert_eq!(inside, (true, 1000));
        assert!(core::ptr::eq(current(), before));
        assert_eq!(fsuid(), 0);
        assert_eq!((usage(before), usage(cred.as_ptr())), counts);
        Ok(())
    }

    #[test]
    fn with_cred_nests() -> Result {
        let (one, two) = (user(1001)?, user(1002)?);
        let seen = with_cred(&one, || {
            let before = fsuid();
            let inside = with_cred(&two, || (fsuid(), with_cred(&one, fsuid), fsuid()));
            (before, inside, fsuid())
        });
        assert_eq!(seen, (1001, (1002, 1001, 1002), 1001));
        assert_eq!(fsuid(), 0);
        Ok(())
    }

    #[test]
    fn errors_restore_too() -> Result {
        let cred = user(1000)?;
        let ret: Result = with_cred(&cred, || Err(EPERM));
        assert_eq!(ret, Err(EPERM));
        assert_eq!(fsuid(), 0);
        Ok(())
    }

    #[test]
    fn copy_is_of_the_given_ones() -> Result {
        let cred = user(1000)?;
        let before = current();
        let copy = NewCredential::copy_of(&cred)?;
        assert!(core::ptr::eq(current(), before));
        // SAFETY: By the invariant nothing else uses them.
        let fsuid_before = unsafe { core::mem::replace(&mut (*copy.0.as_ptr()).fsuid.val, 1001) };
        assert_eq!(fsuid_before, 1000);
        let copy = copy.into_credential();
        assert_eq!(usage(copy.as_ptr()), 1);
        assert_eq!(with_cred(&copy, fsuid), 1001);
        assert_eq!(with_cred(&cred, fsuid), 1000);
        Ok(())
    }

    #[test]
    fn uncommitted_ones_can_be_dropped() -> Result {
        let cred = user(1000)?;
        let count = usage(cred.as_ptr());
        drop(NewCredential::copy_of(&cred)?);
        drop(NewCredential::kernel()?);
        assert_eq!(usage(cred.as_ptr()), count);
        Ok(())
    }

    #[test]
    fn create_files_as_takes_the_directorys_owner() -> Result {
        scratch::attach_fs()?;
        let root = Path::lookup_dir(c"/")?;
        let mut new = NewCredential::kernel()?;
        // SAFETY: By the invariant nothing else uses them.
        unsafe { (*new.0.as_ptr()).fsuid.val = 1000 };
        new.create_files_as(root.dentry().inode().ok_or(ENOENT)?)?;
        // The root directory is root's.
        assert_eq!(with_cred(&new.into_credential(), fsuid), 0);
        Ok(())
    }

    #[test]
    fn capabilities_are_those_in_force() -> Result {
        let new = NewCredential::kernel()?;
        // SAFETY: By the invariant nothing else uses them.
        unsafe { (*new.0.as_ptr()).cap_effective = pin_init::zeroed() };
        let powerless = new.into_credential();
        assert!(capable(Capability::SYS_ADMIN));
        assert!(!with_cred(&powerless, || capable(Capability::SYS_ADMIN)));
        for capability in [Capability::SYS_ADMIN, Capability::SYS_RESOURCE] {
            assert!(capable_noaudit(capability));
            assert!(!with_cred(&powerless, || capable_noaudit(capability)));
        }
        assert!(capable(Capability::SYS_ADMIN));
        let own = || with_own_cred(|| capable(Capability::SYS_ADMIN));
        assert!(with_cred(&powerless, own));
        Ok(())
    }
}
