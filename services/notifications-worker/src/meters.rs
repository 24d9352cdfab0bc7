//! What the Notifications Worker measures. Never decides.

use chassis::page::List;
use chassis::{Meter, Sample, document};
use contract::NotificationChannel;
use ports::{Op, Reply};

use crate::rows::{BY_STATE, MAILS, MailRow};
use crate::rules::{Sending, State};

/// Most pending mails that are looked at.
const PENDING_MAX: usize = 1000;

/// Answers of the mail server.
pub static NOTIFICATION: Meter = Meter::counter(
    "notification_total",
    "Mails by what their sending came to: sent, undeliverable, or one more unknown answer.",
    &["channel", "result"],
);
/// Mails that are not settled.
pub static NOTIFICATION_UNKNOWN: Meter = Meter::gauge(
    "notification_unknown",
    "Mails whose last answer was unknown and that are sent again; of the first 1000 pending.",
    &[],
);

/// All of them.
pub static ALL: [&Meter; 2] = [&NOTIFICATION, &NOTIFICATION_UNKNOWN];

/// What an answer changed.
pub(crate) fn answered(
    channel: NotificationChannel,
    before: &Sending,
    after: &Sending,
) -> Option<Sample> {
    let result = match after.state {
        State::Sent if before.state != State::Sent => "sent",
        State::Undeliverable if before.state != State::Undeliverable => "undeliverable",
        State::Pending if after.unknown > before.unknown => "unknown",
        State::Sent | State::Undeliverable | State::Pending => return None,
    };
    Some(Sample::labelled(&NOTIFICATION, [channel.name(), result], 1.0))
}

/// What the gauges need.
pub(crate) fn reads() -> Vec<Op> {
    let pending = List::between(BY_STATE, MailRow::in_state(State::Pending));
    vec![Op::List { table: &MAILS, range: pending.first(PENDING_MAX) }]
}

/// Gauges by what [`reads`] read.
pub(crate) fn gauges(read: Vec<Reply>) -> Vec<Sample> {
    let Some(Reply::Listed(pending)) = read.into_iter().next() else { return Vec::new() };
    let mails = pending.iter().filter_map(|(_, row)| document::<MailRow>(row));
    let unknown = mails.filter(|mail| mail.sending.unknown > 0).count();
    vec![Sample::new(&NOTIFICATION_UNKNOWN, unknown as f64)]
}
