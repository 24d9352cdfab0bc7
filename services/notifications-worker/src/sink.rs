//! The port to whatever delivers mail, and the worker that calls it for mails that are due. Never
//! inside a transaction, and never with another Message-ID for the same mail.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chassis::{Context, Input, Outside, document};
use envelope::{CorrelationId, printable};
use ports::{Key, Row, Runtime, timeout};

use crate::handler::Fact;
use crate::mail::Mail;
use crate::rows::MailRow;
use crate::rules::Answer;

/// Something that takes mails to customers.
#[async_trait]
pub trait MailSink: Send + Sync + 'static {
    /// Sends one copy. A sink that dedupes by Message-ID says [`Answer::Sent`] to a repeat. Whatever
    /// may have left a copy without a definite answer is [`Answer::Unknown`].
    async fn send(&self, mail: &Mail) -> Answer;
}

/// Sends claimed mails, each within a time-out.
pub struct Sends {
    /// To whom.
    pub sink: Arc<dyn MailSink>,
    /// For the time-out.
    pub runtime: Arc<dyn Runtime>,
    /// After this a send counts as unknown.
    pub limit: Duration,
}

#[async_trait]
impl Outside<Fact> for Sends {
    async fn call(&self, key: &Key, row: &Row) -> Vec<Input<Fact>> {
        let Some(MailRow { wanted, sending, trace }) = document::<MailRow>(row) else {
            return Vec::new();
        };
        let mail = Mail { trace: trace.clone(), ..Mail::new(&wanted, sending.wanted_at) };
        let answer = timeout(self.runtime.as_ref(), self.limit, self.sink.send(&mail)).await;
        let answer = match answer.unwrap_or(Answer::Unknown) {
            Answer::Refused(reason) => Answer::Refused(printable(&reason)),
            answer @ (Answer::Sent | Answer::Unknown) => answer,
        };
        let attempt = sending.attempts.saturating_add(1);
        // No inbox id: the rule takes each attempt's answer once.
        vec![Input {
            id: None,
            fingerprint: envelope::fingerprint(format!("{key}\n{attempt}").as_bytes()),
            context: Context {
                correlation: CorrelationId::parse(wanted.order_id.as_str()).ok(),
                trace,
                ..Context::default()
            },
            fact: Fact::Answered { mail: key.clone(), attempt, answer },
        }]
    }
}
