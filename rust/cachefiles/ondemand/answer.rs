// SPDX-License-Identifier: GPL-2.0

//! The answers of the daemon.

use super::{
    lookup::{
        Answer,
        Version, //
    },
    read::Written,
    requests::{
        Payloads,
        Requests, //
    }, //
};
use crate::{
    object::Object,
    protocol::command::{
        Copen,
        Reply, //
    },
    table::Table,
    trace, //
};
use kernel::prelude::*;

impl Requests {
    /// The daemon's answer to an OPEN.
    pub(crate) fn copen(&self, args: &[u8]) -> Result {
        if args.is_empty() {
            return Err(EINVAL);
        }
        let Copen {
            msg_id,
            reply,
            version,
        } = Copen::parse(args)?;
        let version = version.map(Version::new).transpose()?;
        let copen = |table: &mut Table<Payloads>| {
            let obj = table.answerable(msg_id).map(|object| object.debug_id());
            (table.copen(msg_id, reply, version.clone()), obj)
        };
        let ((tell, answer), _) = self.with_traced(copen, |((_, answer), obj)| {
            if let (Ok(()), Some(obj), Ok(Reply::Size(size))) = (answer, *obj, reply) {
                trace::copen(obj, msg_id, size);
            }
        });
        if let Some((open, outcome)) = tell {
            let answer = outcome.map(|size| Answer { size, version });
            self.finish_open(&open, answer.map_err(Error::from));
        }
        // READs that waited for this fail with it.
        self.complete_failed();
        Ok(answer?)
    }

    /// Whether the OPEN was answered with a size: then the lookup no longer depends on the daemon,
    /// and whoever writes to the object's fd, or seeks in it, may wait for the lookup to end.
    pub(super) fn has_size(&self, object_id: u32) -> bool {
        self.table.lock().has_size(object_id)
    }

    /// The daemon has answered a READ, through a file descriptor, perhaps with data that it has
    /// just `written`.
    pub(super) fn read_complete(
        &self,
        msg_id: u32,
        object_id: u32,
        written: Option<&Written>,
    ) -> Result {
        let mut read = self.with(|table| table.read_complete(msg_id, object_id))?;
        trace::cread(read.object().debug_id(), msg_id);
        self.run_others(&mut read);
        if let Some(read) = read.end_here(written) {
            self.run(read);
        }
        Ok(())
    }

    /// The last copy of a file descriptor is gone.
    pub(super) fn fd_released(&self, object: &Object, object_id: u32) {
        let _spare = self.with_traced(
            |table| {
                table.fd_released(object_id);
                table.trim()
            },
            |_| {
                // 0 if it got no object id: then it was not traced as opened either.
                if object_id != 0 {
                    trace::fd_release(object.debug_id(), object_id);
                }
            },
        );
        self.complete_failed();
    }

    /// A new daemon has taken over.
    pub(crate) fn restore(&self) {
        let mut at = self.with(|table| table.begin_restore());
        let mut count = 0;
        while let Some(more) = self.with(|table| table.restore_some(&mut at)) {
            count += more;
        }
        trace::restore(count);
    }
}
