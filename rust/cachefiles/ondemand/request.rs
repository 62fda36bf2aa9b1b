// SPDX-License-Identifier: GPL-2.0

//! Watching over requests that wait for the daemon.

use super::{
    Ondemand,
    PATIENCE, //
};
use kernel::{
    impl_has_work,
    sync::Arc,
    time::msecs_to_jiffies,
    workqueue::WorkItem, //
};

impl_has_work! {
    impl HasWork<Self> for Ondemand { self.watch }
}

/// Watches over requests: fails those that are over the time limit, and those whose cookie nobody
/// uses any more, so that neither the daemon nor who tidies up has to do with them.
///
/// fscache tells a backend that a cookie is given up only when nobody has an access to it any
/// more; a READ that is not answered has one. Of a lookup that was put off it knows nothing. So
/// somebody has to look: while there are requests, once a second. All that nobody uses end
/// together then, which is why reclaiming memory waits once for files that were closed with READs
/// in flight, and not once for each.
impl WorkItem for Ondemand {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // A kernel thread is not killed; if it were, there would be nobody left to watch.
        let patience = msecs_to_jiffies(PATIENCE);
        while let Ok(None) = this.killed.wait_for_completion_killable_timeout(patience) {
            this.expire_reads();
            this.end_opens();
            let mut from = usize::MAX;
            while let Some((found, next)) = this.with(|table| table.next_reading(from)) {
                if let Some((key, object)) = found {
                    // Under the lock: whoever has queued a READ had a use of the cookie before.
                    this.with(|table| {
                        if object.is_unwanted() {
                            table.cancel_reads(key);
                        }
                    });
                }
                from = next;
            }
            this.tell_doomed();
            // An OPEN is added before its lookup sees to it that somebody watches.
            let idle = !this.with(|table| table.keep_watching());
            if idle && (this.opens.is_empty() || !this.with(|table| table.watch())) {
                return;
            }
        }
    }
}
