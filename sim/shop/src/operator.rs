//! The operator: looks for dead letters and settles them by HTTP, mends what can be mended, discards
//! what strangers sent, redrives the rest; asks twice now and then, and early, and mends wrongly first.

use std::time::Duration;

use chassis::{DeadLetter, LetterState};
use contract::Service;
use serde_json::{Value, json};

use crate::customers::{Customers, one};
use crate::facts::open_letters;
use crate::keeper::SettledTold;
use crate::poison::{PLANTED, mended};

/// What the trace has behind the answer to a redrive with the right payload.
pub const MENDED: &str = " mended";
/// Between two looks: of a busy operator, or of one who has other things to do.
const LOOKS_MS: [u64; 2] = [1_500, 6_000];

impl Customers {
    /// Looks until it is aborted.
    pub async fn operate(self) {
        let look_ms = *self.world().cluster.choices().of("operator", "look", &LOOKS_MS);
        loop {
            madsim::time::sleep(Duration::from_millis(look_ms)).await;
            for service in Service::ALL {
                for letter in open_letters(self.world(), service) {
                    self.settle(service, &letter).await;
                }
            }
        }
    }

    async fn settle(&self, service: Service, letter: &DeadLetter) {
        let choices = self.world().cluster.choices();
        // What only waits is drained by itself, and must be when the faults are over; before that
        // somebody is impatient now and then.
        let impatient =
            choices.below("operator", "impatient", 8) == 0 && !self.world().cluster.is_over();
        if letter.state == LetterState::Parked && !impatient {
            return;
        }
        let planted = letter.headers.iter().any(|(name, _)| name == PLANTED);
        let slips = letter.attempts == 1 && choices.below("operator", "slip", 2) == 0;
        let (verb, body, as_what) = match mended(letter, self.poisons()) {
            // Another payload, and no better than the first.
            Some(_) if slips => ("redrive", json!({ "payload": letter.payload.0 }), ""),
            Some(payload) => ("redrive", json!({ "payload": payload }), MENDED),
            // In vain.
            None if slips => ("redrive", json!({}), ""),
            None if planted && letter.state == LetterState::Dead => {
                ("discard", json!({ "note": "a stranger's" }), "")
            }
            None => ("redrive", json!({}), ""),
        };
        let path = format!("/dead-letters/{}/{verb}", letter.id);
        let times = if choices.below("operator", "twice", 3) == 0 { 2 } else { 1 };
        for _ in 0..times {
            let node = self.node_of(service, &letter.id);
            let answer: Result<(u16, Value), _> =
                self.request(&node, "POST", &path, "operator", Some(one(&body))).await;
            if let Ok((status, body)) = &answer {
                let state = body["state"].as_str().map(str::to_owned);
                let told = SettledTold {
                    service,
                    letter: letter.id.clone(),
                    verb,
                    status: *status,
                    state,
                };
                self.note_told(|all| all.settled.push(told));
            }
            let word =
                answer.map_or_else(|fault| fault.to_string(), |(status, _)| status.to_string());
            self.world().cluster.note(
                "operator",
                verb,
                format!("{} {}: {word}{as_what}", service.name(), letter.id),
            );
        }
    }
}
