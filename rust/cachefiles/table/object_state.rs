// SPDX-License-Identifier: GPL-2.0

//! What the daemon knows of an object, as a table of states and events.
//!
//! ```text
//!            register              copen ok
//!   (none) -----------> Opening ---------------> Open <------------+
//!                          |                     |  |              |
//!              copen error |     fd released, no |  | fd released, | copen ok,
//!                          |          READ waits |  | READs wait   | same size
//!                          v                     |  v              |
//!                        Closed <----------------+  Reopening -----+
//!                        |  ^                       ^  |
//!                        |  +------ copen error ----|--+
//!                        +------- READ queued ------+
//! ```
//!
//! After a copen error the READs that wait get `EIO`; if it was for the OPEN of a lookup, the
//! caller then removes the object from the table. In `Opening` and `Reopening` the release of the
//! fd changes nothing; the OPEN then fails with `EBADFD` when the daemon answers it.
//!
//! Withdrawal removes an object from the table in any state: there is no state in which a removed
//! object could be found.

/// See the [module's description](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The lookup's OPEN is queued or with the daemon. Nothing can be read yet.
    Opening,
    /// The daemon has answered OPEN and holds a file descriptor: READs go to it.
    Open,
    /// The daemon has no usable file descriptor, and nobody needs one.
    Closed,
    /// The daemon has no usable file descriptor and an OPEN is under way, because READs wait.
    Reopening,
}

/// What can happen to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A READ was queued.
    Read,
    /// The daemon answered OPEN with a size, and its file descriptor is open.
    Opened,
    /// OPEN failed: the daemon said so, or answered after closing the file descriptor.
    OpenFailed,
    /// The last copy of the object's file descriptor was closed. Whether READs wait.
    Released { reads: bool },
}

/// What the table has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    /// The READ can be delivered at once.
    Deliver,
    /// The READ has to wait for the answer to an OPEN.
    Wait,
    /// READs have to wait, and an OPEN has to be queued.
    Reopen,
    /// READs that wait can be delivered.
    DeliverWaiting,
    /// READs that wait have to fail.
    FailWaiting,
}

impl State {
    /// The state after `event`, and what follows from it.
    #[must_use]
    pub(crate) fn on(self, event: Event) -> (State, Next) {
        match (self, event) {
            (State::Open, Event::Read) => (State::Open, Next::Deliver),
            (State::Opening | State::Reopening, Event::Read) => (self, Next::Wait),
            (State::Closed, Event::Read) => (State::Reopening, Next::Reopen),

            (State::Opening | State::Reopening, Event::Opened) => {
                (State::Open, Next::DeliverWaiting)
            }
            // There is no OPEN to answer in these states.
            (State::Open | State::Closed, Event::Opened) => (self, Next::Nothing),

            (State::Opening | State::Reopening, Event::OpenFailed) => {
                (State::Closed, Next::FailWaiting)
            }
            (State::Open | State::Closed, Event::OpenFailed) => (self, Next::Nothing),

            (State::Open, Event::Released { reads: true }) => (State::Reopening, Next::Reopen),
            (State::Open, Event::Released { reads: false }) => (State::Closed, Next::Nothing),
            // The OPEN is still to be answered; copen will find the file descriptor closed.
            (State::Opening | State::Reopening, Event::Released { .. }) => (self, Next::Nothing),
            (State::Closed, Event::Released { .. }) => (self, Next::Nothing),
        }
    }
}
