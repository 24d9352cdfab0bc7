//! A sink in memory that counts copies by Message-ID and answers as tests and simulations steer it.
//! Deterministic. Never dedupes: that it should not have to is what is tested.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::mail::Mail;
use crate::rules::Answer;
use crate::sink::MailSink;

/// What became of the sends of one Message-ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The mail, as it was sent first.
    pub mail: Mail,
    /// Sends that said something else than the first: none where all is well.
    pub altered: u32,
    /// How often it was sent.
    pub sends: u32,
    /// Copies that the customer has.
    pub copies: u32,
    /// Sends that were answered as unknown.
    pub unknown: u32,
    /// Sends that were refused.
    pub refused: u32,
}

/// Whether a send reaches the sink, and its answer the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passage {
    /// Both.
    Whole,
    /// The mail is lost: no copy, and the sender does not know.
    LostBefore,
    /// The answer is lost: there is a copy, and the sender does not know.
    LostAfter,
    /// The sink never takes it, for this reason.
    Refused(String),
}

/// Decides the passage of a mail that was sent so often before; a function of these alone.
pub type Passes = Arc<dyn Fn(&Mail, u32) -> Passage + Send + Sync>;

#[derive(Default)]
struct Inside {
    kept: BTreeMap<String, Kept>,
    passes: Option<Passes>,
}

/// The sink in memory. Clones are the same sink.
#[derive(Clone, Default)]
pub struct MemorySink {
    inside: Arc<Mutex<Inside>>,
}

impl MemorySink {
    /// Steered from the beginning.
    pub fn new(passes: Passes) -> Self {
        let inside = Inside { kept: BTreeMap::new(), passes: Some(passes) };
        MemorySink { inside: Arc::new(Mutex::new(inside)) }
    }

    /// Steers it from now on; by default everything passes.
    pub fn steer(&self, passes: Option<Passes>) {
        self.inside().passes = passes;
    }

    /// What became of each Message-ID, for verdicts.
    pub fn kept(&self) -> BTreeMap<String, Kept> {
        self.inside().kept.clone()
    }

    /// Takes a mail and answers at once.
    pub fn answer(&self, mail: &Mail) -> Answer {
        let Inside { kept, passes } = &mut *self.inside();
        let kept = kept.entry(mail.message_id.clone()).or_insert_with(|| Kept {
            mail: mail.clone(),
            altered: 0,
            sends: 0,
            copies: 0,
            unknown: 0,
            refused: 0,
        });
        let passage = passes.as_ref().map_or(Passage::Whole, |passes| passes(mail, kept.sends));
        kept.sends += 1;
        kept.altered += u32::from(kept.mail != *mail);
        kept.copies += u32::from(matches!(passage, Passage::Whole | Passage::LostAfter));
        match passage {
            Passage::Whole => Answer::Sent,
            Passage::LostBefore | Passage::LostAfter => {
                kept.unknown += 1;
                Answer::Unknown
            }
            Passage::Refused(reason) => {
                kept.refused += 1;
                Answer::Refused(reason)
            }
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl MailSink for MemorySink {
    async fn send(&self, mail: &Mail) -> Answer {
        self.answer(mail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    fn mail(text: &str) -> Mail {
        Mail {
            message_id: "m@shakedown.invalid".to_owned(),
            to: "o@example.invalid".to_owned(),
            subject: text.to_owned(),
            date: DateTime::UNIX_EPOCH,
            body: Vec::new(),
            trace: None,
        }
    }

    #[test]
    fn copies_and_unknown_sends_are_counted() {
        let sink = MemorySink::new(Arc::new(|_, earlier| match earlier {
            0 => Passage::LostBefore,
            1 => Passage::LostAfter,
            2 => Passage::Whole,
            _ => Passage::Refused("full".to_owned()),
        }));
        let answers: Vec<Answer> = (0..4).map(|_| sink.answer(&mail("a"))).collect();
        let refused = Answer::Refused("full".to_owned());
        assert_eq!(answers, [Answer::Unknown, Answer::Unknown, Answer::Sent, refused]);
        let kept = &sink.kept()["m@shakedown.invalid"];
        assert_eq!((kept.sends, kept.copies, kept.unknown, kept.refused), (4, 2, 2, 1));
        assert_eq!(kept.altered, 0);
    }

    #[test]
    fn a_copy_that_says_something_else_shows() {
        let sink = MemorySink::default();
        sink.answer(&mail("a"));
        sink.answer(&mail("b"));
        assert_eq!(sink.kept()["m@shakedown.invalid"].altered, 1);
    }
}
