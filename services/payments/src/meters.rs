//! What Payments measures. Never decides.

use chassis::{Meter, Sample};

use crate::rules::{Payment, State};

/// Money that was given back, or that could not be moved as it should.
pub static COMPENSATIONS: Meter = Meter::counter(
    "payment_compensations_total",
    "Payments undone or not carried through: voided, void_refused, capture_refused, tombstone.",
    &["kind"],
);

/// All of them.
pub static ALL: [&Meter; 1] = [&COMPENSATIONS];

/// What a fact changed.
pub(crate) fn changed(before: Option<&Payment>, after: &Payment) -> Option<Sample> {
    if before.is_some_and(|before| before.state == after.state) {
        return None;
    }
    let kind = match after.state {
        State::Voided => "voided",
        State::VoidFailed => "void_refused",
        State::CaptureFailed => "capture_refused",
        State::Tombstone => "tombstone",
        State::Intent
        | State::Authorising
        | State::Authorised
        | State::Declined
        | State::Capturing
        | State::Captured
        | State::Voiding
        | State::Charging
        | State::NotRequired => return None,
    };
    Some(Sample::labelled(&COMPENSATIONS, [kind], 1.0))
}
