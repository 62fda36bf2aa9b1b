// SPDX-License-Identifier: GPL-2.0

//! The table of object states, written out a second time.

#[cfg_attr(
    CONFIG_KUNIT = "y",
    kernel::prelude::kunit_tests(cachefiles_object_state)
)]
mod tests {
    use crate::table::object_state::{
        Event::{
            self,
            OpenFailed,
            Opened,
            Read,
            Released, //
        },
        Next::{
            self,
            Deliver,
            DeliverWaiting,
            FailWaiting,
            Nothing,
            Reopen,
            Wait, //
        },
        State::{
            self,
            Closed,
            Open,
            Opening,
            Reopening, //
        }, //
    };

    const STATES: [State; 4] = [Opening, Open, Closed, Reopening];
    const EVENTS: [Event; 5] = [
        Read,
        Opened,
        OpenFailed,
        Released { reads: false },
        Released { reads: true },
    ];

    #[rustfmt::skip]
    const TABLE: [(State, Event, State, Next); 20] = [
        // The lookup waits for its answer; so do READs that come too early.
        (Opening,   Read,                      Opening,   Wait),
        (Opening,   Opened,                    Open,      DeliverWaiting),
        (Opening,   OpenFailed,                Closed,    FailWaiting),
        (Opening,   Released { reads: false }, Opening,   Nothing),
        (Opening,   Released { reads: true },  Opening,   Nothing),
        // Only here does the daemon get READs.
        (Open,      Read,                      Open,      Deliver),
        (Open,      Opened,                    Open,      Nothing),
        (Open,      OpenFailed,                Open,      Nothing),
        (Open,      Released { reads: false }, Closed,    Nothing),
        (Open,      Released { reads: true },  Reopening, Reopen),
        // Nothing happens before somebody needs data.
        (Closed,    Read,                      Reopening, Reopen),
        (Closed,    Opened,                    Closed,    Nothing),
        (Closed,    OpenFailed,                Closed,    Nothing),
        (Closed,    Released { reads: false }, Closed,    Nothing),
        (Closed,    Released { reads: true },  Closed,    Nothing),
        // One OPEN at a time; its failure fails those who wait for it.
        (Reopening, Read,                      Reopening, Wait),
        (Reopening, Opened,                    Open,      DeliverWaiting),
        (Reopening, OpenFailed,                Closed,    FailWaiting),
        (Reopening, Released { reads: false }, Reopening, Nothing),
        (Reopening, Released { reads: true },  Reopening, Nothing),
    ];

    #[test]
    fn every_state_and_event_leads_where_the_table_says() {
        for (state, event, to, next) in TABLE {
            assert_eq!(state.on(event), (to, next));
        }
    }

    #[test]
    fn the_table_has_every_pair_once() {
        for state in STATES {
            for event in EVENTS {
                let rows = TABLE.iter().filter(|row| (row.0, row.1) == (state, event));
                assert_eq!(rows.count(), 1);
            }
        }
    }

    #[test]
    fn reads_are_delivered_in_the_open_state_only() {
        for state in STATES {
            let (to, next) = state.on(Read);
            assert_eq!((next == Deliver), (state == Open));
            assert_eq!((next == Deliver), (to == Open));
        }
    }

    #[test]
    fn an_object_is_open_only_after_an_answer() {
        for state in STATES {
            for event in EVENTS {
                if state != Open && state.on(event).0 == Open {
                    assert_eq!(event, Opened);
                }
            }
        }
    }

    #[test]
    fn an_object_without_file_descriptor_is_not_open() {
        for state in STATES {
            for reads in [false, true] {
                assert!(state.on(Released { reads }).0 != Open);
            }
        }
    }
}
