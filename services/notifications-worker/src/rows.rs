//! The table of the Notifications Worker. Never decides.

use chassis::{Document, Due, Trace};
use contract::OrderId;
use ports::Table;
use serde::{Deserialize, Serialize};

use crate::rules::{Sending, State, Wanted};

/// One row a mail, under `order|type|channel|revision`: the intent, and how its sending stands.
/// `due` is when to send it; `mail` and `by_state` are what lists go by.
pub static MAILS: Table = Table { name: "mails", index: &["due", "mail", "by_state"] };
/// Position of `due`.
pub const DUE: usize = 0;
/// Position of `mail`.
pub const MAIL: usize = 1;
/// Position of `by_state`.
pub const BY_STATE: usize = 2;

/// All of them, in the order in which they are locked.
pub static ALL: [&Table; 1] = [&MAILS];

/// A mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailRow {
    /// Which.
    #[serde(flatten)]
    pub wanted: Wanted,
    /// How it stands.
    #[serde(flatten)]
    pub sending: Sending,
    /// The trace of the job: each copy says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
}

impl MailRow {
    /// Lowest value of `mail` for an order, and the first behind the highest. No id has a space.
    pub fn of_order(order: &OrderId) -> (String, String) {
        (format!("{order} "), format!("{order}!"))
    }

    /// The same of `by_state` for a state.
    pub fn in_state(state: State) -> (String, String) {
        (format!("{} ", state.name()), format!("{}!", state.name()))
    }
}

impl Document for MailRow {
    const TABLE: &'static Table = &MAILS;
    fn index(&self) -> Vec<Option<String>> {
        let Wanted { order_id, kind, channel, revision } = &self.wanted;
        let (kind, channel) = (kind.name(), channel.name());
        let mail = format!("{order_id} {revision:010} {kind} {channel}");
        let by_state = format!("{} {mail}", self.sending.state.name());
        vec![self.sending.due.map(Due::at), Some(mail), Some(by_state)]
    }
}
