// SPDX-License-Identifier: GPL-2.0

//! Tracepoints of both modes: what is done to the files of a cache. They are those of the kernel's
//! own `include/trace/events/cachefiles.h`.
//!
//! I/O errors are logged as well, as C does, except that an error is one of the cache there.
//!
//! Where C shows the number that it has given an object, this shows that of its cookie.

use crate::kernel_next::{
    fs::{
        dentry::{
            Dentry,
            PositiveDentry, //
        },
        inode::Inode, //
    },
    fscache::{
        trace::{
            self,
            TraceObject,
            TraceVolume, //
        },
        Cookie,
        Volume, //
    },
    netfs::{
        ReadSource,
        ReadSubrequest, //
    },
    tracepoint::{
        declare_safe_trace,
        declare_trace_enum, //
    }, //
};
use kernel::prelude::*;

declare_trace_enum! {
    /// What happens to an object.
    pub(crate) enum Ref: cachefiles_obj_ref_trace {
        New = cachefiles_obj_new,
        PutDetach = cachefiles_obj_put_detach,
        SeeCleanCommit = cachefiles_obj_see_clean_commit,
        SeeCleanDelete = cachefiles_obj_see_clean_delete,
        SeeCleanDropTmp = cachefiles_obj_see_clean_drop_tmp,
        SeeLookupCookie = cachefiles_obj_see_lookup_cookie,
        SeeLookupFailed = cachefiles_obj_see_lookup_failed,
        SeeWithdrawCookie = cachefiles_obj_see_withdraw_cookie,
        SeeWithdrawal = cachefiles_obj_see_withdrawal,
    }

    /// Why something is removed from the cache.
    pub(crate) enum Killed: fscache_why_object_killed {
        Stale = FSCACHE_OBJECT_IS_STALE,
        Weird = FSCACHE_OBJECT_IS_WEIRD,
        Invalidated = FSCACHE_OBJECT_INVALIDATED,
        Retired = FSCACHE_OBJECT_WAS_RETIRED,
        Culled = FSCACHE_OBJECT_WAS_CULLED,
        WeirdVolume = FSCACHE_VOLUME_IS_WEIRD,
    }

    /// What became of an attribute that was compared or written.
    pub(crate) enum Coherency: cachefiles_coherency_trace {
        CheckAux = cachefiles_coherency_check_aux,
        CheckDirty = cachefiles_coherency_check_dirty,
        CheckObjsize = cachefiles_coherency_check_objsize,
        CheckOk = cachefiles_coherency_check_ok,
        CheckType = cachefiles_coherency_check_type,
        CheckXattr = cachefiles_coherency_check_xattr,
        SetFail = cachefiles_coherency_set_fail,
        SetOk = cachefiles_coherency_set_ok,
        VolCheckCmp = cachefiles_coherency_vol_check_cmp,
        VolCheckOk = cachefiles_coherency_vol_check_ok,
        VolCheckResv = cachefiles_coherency_vol_check_resv,
        VolCheckXattr = cachefiles_coherency_vol_check_xattr,
        VolSetFail = cachefiles_coherency_vol_set_fail,
        VolSetOk = cachefiles_coherency_vol_set_ok,
    }

    /// Why a file is made longer or shorter.
    pub(crate) enum Trunc: cachefiles_trunc_trace {
        DioAdjust = cachefiles_trunc_dio_adjust,
        ExpandTmpfile = cachefiles_trunc_expand_tmpfile,
        Shrink = cachefiles_trunc_shrink,
    }

    /// Why something is read from where it is.
    pub(crate) enum PrepareRead: cachefiles_prepare_read_trace {
        AfterEof = cachefiles_trace_read_after_eof,
        FoundHole = cachefiles_trace_read_found_hole,
        FoundPart = cachefiles_trace_read_found_part,
        HaveData = cachefiles_trace_read_have_data,
        NoData = cachefiles_trace_read_no_data,
        NoFile = cachefiles_trace_read_no_file,
    }

    /// What has failed.
    pub(crate) enum Where: cachefiles_error_trace {
        Fallocate = cachefiles_trace_fallocate_error,
        Getxattr = cachefiles_trace_getxattr_error,
        Link = cachefiles_trace_link_error,
        Lookup = cachefiles_trace_lookup_error,
        Mkdir = cachefiles_trace_mkdir_error,
        NotifyChange = cachefiles_trace_notify_change_error,
        Open = cachefiles_trace_open_error,
        Read = cachefiles_trace_read_error,
        Remxattr = cachefiles_trace_remxattr_error,
        Rename = cachefiles_trace_rename_error,
        Seek = cachefiles_trace_seek_error,
        Setxattr = cachefiles_trace_setxattr_error,
        Statfs = cachefiles_trace_statfs_error,
        Tmpfile = cachefiles_trace_tmpfile_error,
        Trunc = cachefiles_trace_trunc_error,
        Unlink = cachefiles_trace_unlink_error,
        Write = cachefiles_trace_write_error,
    }
}

declare_safe_trace! {
    fn cachefiles_ref(object: c_uint, cookie: c_uint, usage: c_int, why: Ref);
    fn cachefiles_lookup(obj: Option<&TraceObject>, dir: &PositiveDentry, de: Result<&Dentry>);
    fn cachefiles_mkdir(dir: &PositiveDentry, subdir: &PositiveDentry);
    fn cachefiles_tmpfile(obj: &TraceObject, backer: &Inode);
    fn cachefiles_link(obj: &TraceObject, backer: &Inode);
    fn cachefiles_unlink(obj: Option<&TraceObject>, ino: c_ulong, why: Killed);
    fn cachefiles_rename(obj: Option<&TraceObject>, ino: c_ulong, why: Killed);
    fn cachefiles_vol_coherency(volume: &TraceVolume<'_>, ino: c_ulong, why: Coherency);
    fn cachefiles_prep_read(
        obj: Option<&TraceObject>,
        start: i64,
        len: usize,
        flags: c_ushort,
        source: ReadSource,
        why: PrepareRead,
        cache_inode: c_ulong,
        netfs_inode: c_ulong,
    );
    fn cachefiles_read(obj: &TraceObject, backer: &Inode, start: i64, len: usize);
    fn cachefiles_write(obj: &TraceObject, backer: &Inode, start: i64, len: usize);
    fn cachefiles_trunc(obj: &TraceObject, backer: &Inode, from: i64, to: i64, why: Trunc);
    fn cachefiles_mark_active(obj: Option<&TraceObject>, inode: &Inode);
    fn cachefiles_mark_failed(obj: Option<&TraceObject>, inode: &Inode);
    fn cachefiles_mark_inactive(obj: Option<&TraceObject>, inode: &Inode);
    fn cachefiles_vfs_error(
        obj: Option<&TraceObject>,
        backer: &Inode,
        error: c_int,
        place: Where,
    );
    fn cachefiles_io_error(
        obj: Option<&TraceObject>,
        backer: &Inode,
        error: c_int,
        place: Where,
    );
}

/// The number of an inode as C has it there.
fn number(inode: &Inode) -> c_ulong {
    // CAST: What does not fit is left out, as in C.
    inode.ino() as c_ulong
}

/// The number of the inode of `dentry`, 0 if there is none.
fn number_of(dentry: &Dentry) -> c_ulong {
    dentry.inode().map_or(0, number)
}

/// Something happens to the object of `cookie`. fscache has the one reference to it: C counts
/// others for I/O, and shows how many there were before the last one was put.
pub(crate) fn object(cookie: &Cookie, why: Ref) {
    let id = cookie.debug_id();
    cachefiles_ref(id, id, 1, why);
}

/// Something was looked up in `dir`; `entry` may be negative. `obj` is `None` for a directory.
pub(crate) fn lookup(obj: Option<&TraceObject>, dir: &Dentry, entry: Result<&Dentry>) {
    if let Some(dir) = dir.positive() {
        cachefiles_lookup(obj, dir, entry);
    }
}

/// A directory was made.
pub(crate) fn mkdir(dir: &Dentry, subdir: &Dentry) {
    // Not all file systems have an inode for what they have made.
    if let (Some(dir), Some(subdir)) = (dir.positive(), subdir.positive()) {
        cachefiles_mkdir(dir, subdir);
    }
}

/// A file without a name was made for an object.
pub(crate) fn tmpfile(obj: &TraceObject, inode: &Inode) {
    cachefiles_tmpfile(obj, inode);
}

/// The file of an object got its name.
pub(crate) fn link(obj: &TraceObject, inode: &Inode) {
    cachefiles_link(obj, inode);
}

/// A file is about to be removed; `obj` is `None` if it is not in use.
pub(crate) fn unlink(obj: Option<&TraceObject>, victim: &Dentry, why: Killed) {
    cachefiles_unlink(obj, number_of(victim), why);
}

/// A directory is about to be moved to the graveyard.
pub(crate) fn rename(obj: Option<&TraceObject>, victim: &Dentry, why: Killed) {
    cachefiles_rename(obj, number_of(victim), why);
}

/// The attribute of an object's file was compared with `aux`, or written. `value` is what it says,
/// if that is known: auxiliary data and content.
pub(crate) fn coherency(
    obj: &TraceObject,
    inode: &Inode,
    aux: &[u8],
    value: Option<(&[u8], u8)>,
    why: Coherency,
) {
    let (disk_aux, content) = value.unzip();
    let content = content.unwrap_or_default();
    trace::coherency(obj.debug_id(), number(inode), aux, disk_aux, content, why);
}

/// The attribute of a volume's directory was compared, or written.
pub(crate) fn vol_coherency(volume: &Volume, dir: &Dentry, why: Coherency) {
    cachefiles_vol_coherency(&volume.into(), number_of(dir), why);
}

/// A network file system was told where to read from.
pub(crate) fn prep_read(
    obj: &TraceObject,
    subreq: &ReadSubrequest<'_>,
    cache: Option<&Inode>,
    source: ReadSource,
    why: PrepareRead,
) {
    cachefiles_prep_read(
        Some(obj),
        // CAST: As C shows it.
        subreq.start() as i64,
        subreq.len(),
        // CAST: As many of them as there is room for.
        subreq.flags() as c_ushort,
        source,
        why,
        cache.map_or(0, number),
        // CAST: What does not fit is left out, as in C.
        subreq.ino() as c_ulong,
    );
}

/// A direct read of an object's file is about to begin.
#[inline]
pub(crate) fn read(obj: &TraceObject, inode: &Inode, start: i64, len: usize) {
    cachefiles_read(obj, inode, start, len);
}

/// An object's file is about to be written to.
pub(crate) fn write(obj: &TraceObject, inode: &Inode, start: i64, len: usize) {
    cachefiles_write(obj, inode, start, len);
}

/// The file of an object is about to change its size, or what is in its last block is to be zeros.
pub(crate) fn trunc(obj: &TraceObject, inode: &Inode, from: i64, to: i64, why: Trunc) {
    cachefiles_trunc(obj, inode, from, to, why);
}

/// Something was marked as being in use.
pub(crate) fn mark_active(obj: Option<&TraceObject>, inode: &Inode) {
    cachefiles_mark_active(obj, inode);
}

/// It was not marked, because it is in use.
pub(crate) fn mark_failed(obj: Option<&TraceObject>, inode: &Inode) {
    cachefiles_mark_failed(obj, inode);
}

/// The mark is about to be removed.
pub(crate) fn mark_inactive(obj: Option<&TraceObject>, inode: &Inode) {
    cachefiles_mark_inactive(obj, inode);
}

/// Looking something up or changing it, or an attribute of it, has failed. `at` is what that was
/// done to.
pub(crate) fn vfs_error(obj: Option<&TraceObject>, at: &Dentry, error: Error, place: Where) {
    if let Some(inode) = at.inode() {
        cachefiles_vfs_error(obj, inode, error.to_errno(), place);
    }
    log(obj, error, place);
}

/// Reading or writing the data of a file has failed, or changing its size.
pub(crate) fn io_error(obj: Option<&TraceObject>, inode: &Inode, error: Error, place: Where) {
    cachefiles_io_error(obj, inode, error.to_errno(), place);
    log(obj, error, place);
}

/// Logs an I/O error, where C does. Does not sleep.
fn log(obj: Option<&TraceObject>, error: Error, place: Where) {
    if error != EIO {
        return;
    }
    let what = match place {
        Where::Fallocate => "Trunc-to-dio-size failed",
        Where::Getxattr => "Failed to read xattr",
        Where::Lookup => "Lookup failed",
        Where::NotifyChange => "Size set failed",
        Where::Remxattr => "Can't remove xattr",
        Where::Rename => "Rename failed",
        Where::Setxattr => "Failed to set xattr",
        Where::Statfs => "statfs failed",
        Where::Tmpfile => "Failed to create tmpfile",
        Where::Trunc => "Trunc-to-size failed",
        Where::Unlink => "Unlink failed",
        Where::Link | Where::Mkdir | Where::Open | Where::Read | Where::Seek | Where::Write => {
            return
        }
    };
    cf_limited!(match obj {
        Some(obj) => cf_err!("I/O Error: {} [o={:08x}]\n", what, obj.debug_id()),
        None => cf_err!("I/O Error: {}\n", what),
    });
}
