// SPDX-License-Identifier: GPL-2.0

//! When to cull and when to stop: the six limits of a cache.

use crate::protocol::{
    command::Limit,
    errno::{
        Errno,
        Result, //
    }, //
};

/// The limits on one resource, in percent of the whole: `stop < cull < run < 100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Percent {
    /// Culling stops when this much is free.
    pub(crate) run: u32,
    /// Culling starts when less than this is free.
    pub(crate) cull: u32,
    /// Nothing is allocated when less than this is free.
    pub(crate) stop: u32,
}

impl Percent {
    const DEFAULT: Self = Percent {
        run: 7,
        cull: 5,
        stop: 1,
    };

    fn in_order(&self) -> bool {
        self.stop < self.cull && self.cull < self.run && self.run < 100
    }

    /// The same limits in units of a resource of which there are `total`.
    pub(crate) fn of(&self, total: u64) -> Thresholds {
        // C divides first; the few units this loses are the same few here.
        let one = total / 100;
        Thresholds {
            run: one * u64::from(self.run),
            cull: one * u64::from(self.cull),
            stop: one * u64::from(self.stop),
        }
    }
}

/// The configured limits of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) blocks: Percent,
    pub(crate) files: Percent,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            blocks: Percent::DEFAULT,
            files: Percent::DEFAULT,
        }
    }
}

impl Limits {
    /// Sets one limit.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it would be out of order with its neighbours as they are now.
    pub(crate) fn set(&mut self, limit: Limit, percent: u32) -> Result {
        let mut new = *self;
        match limit {
            Limit::Brun => new.blocks.run = percent,
            Limit::Bcull => new.blocks.cull = percent,
            Limit::Bstop => new.blocks.stop = percent,
            Limit::Frun => new.files.run = percent,
            Limit::Fcull => new.files.cull = percent,
            Limit::Fstop => new.files.stop = percent,
        }
        new.check().map_err(|_| Errno::EINVAL)?;
        *self = new;
        Ok(())
    }

    /// Checks the limits as a whole, as `bind` does.
    ///
    /// # Errors
    ///
    /// `ERANGE` if they are not in order.
    pub(crate) fn check(&self) -> Result {
        if self.files.in_order() && self.blocks.in_order() {
            Ok(())
        } else {
            Err(Errno::ERANGE)
        }
    }
}

/// The limits on one resource in units of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Thresholds {
    pub(crate) run: u64,
    pub(crate) cull: u64,
    pub(crate) stop: u64,
}

/// How much space is left, against the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpaceLevel {
    /// Above the run limits: culling ends.
    Plenty,
    /// Between the cull and the run limit: culling neither starts nor ends.
    Unchanged,
    /// Below a cull limit: culling starts.
    Low,
    /// Below a stop limit: culling starts, and nothing may be allocated.
    Exhausted,
}

/// Compares free blocks and free files with their limits.
pub(crate) fn judge(blocks: (u64, &Thresholds), files: (u64, &Thresholds)) -> SpaceLevel {
    let any =
        |limit: fn(&Thresholds) -> u64| blocks.0 < limit(blocks.1) || files.0 < limit(files.1);
    if any(|t| t.stop) {
        SpaceLevel::Exhausted
    } else if any(|t| t.cull) {
        SpaceLevel::Low
    } else if any(|t| t.run) {
        SpaceLevel::Unchanged
    } else {
        SpaceLevel::Plenty
    }
}
