//! A batch as the transaction sees it: what each input is known by, and its rule by a number. Facts stay
//! with the handler, so that the transaction is the same code for every service.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{DateTime, Utc};
use ports::{Key, Table};

use crate::slot::{Head, Slot, State, panicked};
use crate::{Decided, Handler, Input, Reason, Touched};

/// An input in a batch, or why it is none.
pub(crate) struct Entry<'a> {
    pub(crate) head: &'a Head,
    pub(crate) what: What<'a>,
}

/// What is to be done about it.
#[derive(Clone, Copy)]
pub(crate) enum What<'a> {
    /// Its rule decides.
    Rule { number: usize, id: Option<&'a Key>, fingerprint: &'a str },
    /// It is dead.
    Dead { id: &'a Key, fingerprint: &'a str, reason: &'a Reason },
    /// Nothing.
    Skip,
}

impl<'a> Entry<'a> {
    /// Its row in the inbox, and what it says; `None` where it keeps none.
    pub(crate) fn inbox(&self) -> Option<(&'a Key, &'a str)> {
        match self.what {
            What::Rule { id, fingerprint, .. } => id.map(|id| (id, fingerprint)),
            What::Dead { id, fingerprint, .. } => Some((id, fingerprint)),
            What::Skip => None,
        }
    }
}

/// The handler's rules for the inputs of a batch. A panic of one is its error.
pub(crate) trait Rules: Sync {
    /// See [`Handler::tables`].
    fn tables(&self) -> &'static [&'static Table];

    /// See [`Handler::keys`].
    fn keys(&self, table: &'static Table, rows: &Touched) -> Result<Option<BTreeSet<Key>>, Reason>;

    /// See [`Handler::decide`]: of the input with this number.
    fn decide(
        &self,
        number: usize,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> Result<Decided, Reason>;
}

/// The inputs of a batch, which leave their slots for the time of a transaction: rules see them as a slice.
pub(crate) struct Inputs<F> {
    batch: Vec<Input<F>>,
    /// Of each slot its input's number.
    numbers: Vec<Option<usize>>,
}

impl<F> Inputs<F> {
    pub(crate) fn take(slots: &mut [Slot<F>]) -> Self {
        let mut inputs = Inputs { batch: Vec::new(), numbers: Vec::with_capacity(slots.len()) };
        for slot in slots {
            inputs.numbers.push(match std::mem::replace(&mut slot.state, State::Skip) {
                State::Input(input) => {
                    inputs.batch.push(input);
                    Some(inputs.batch.len() - 1)
                }
                other => {
                    slot.state = other;
                    None
                }
            });
        }
        inputs
    }

    /// One for each slot.
    pub(crate) fn entries<'a>(&'a self, slots: &'a [Slot<F>]) -> Vec<Entry<'a>> {
        let what = |slot: &'a Slot<F>, number: Option<usize>| match (number, &slot.state) {
            (Some(number), _) => {
                let Input { id, fingerprint, .. } = &self.batch[number];
                What::Rule { number, id: id.as_ref(), fingerprint }
            }
            (None, State::Dead { id, fingerprint, reason }) => {
                What::Dead { id, fingerprint, reason }
            }
            (None, State::Skip | State::Input(_)) => What::Skip,
        };
        let slots = slots.iter().zip(&self.numbers);
        slots.map(|(slot, number)| Entry { head: &slot.head, what: what(slot, *number) }).collect()
    }

    /// Their rules.
    pub(crate) fn rules<'a, H: Handler<Fact = F>>(&'a self, handler: &'a H) -> impl Rules + 'a {
        RulesOf { handler, batch: &self.batch }
    }

    pub(crate) fn put_back(self, slots: &mut [Slot<F>]) {
        let mut batch = self.batch.into_iter();
        for (slot, number) in slots.iter_mut().zip(self.numbers) {
            if number.is_some() {
                slot.state = State::Input(batch.next().expect("one input a number"));
            }
        }
    }
}

struct RulesOf<'a, H: Handler> {
    handler: &'a H,
    batch: &'a [Input<H::Fact>],
}

impl<H: Handler> Rules for RulesOf<'_, H> {
    fn tables(&self) -> &'static [&'static Table] {
        self.handler.tables()
    }

    fn keys(&self, table: &'static Table, rows: &Touched) -> Result<Option<BTreeSet<Key>>, Reason> {
        let keys = AssertUnwindSafe(|| self.handler.keys(table, self.batch, rows));
        catch_unwind(keys).map_err(|panic| panicked(&*panic))
    }

    fn decide(
        &self,
        number: usize,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> Result<Decided, Reason> {
        let input = &self.batch[number];
        let decided = catch_unwind(AssertUnwindSafe(|| self.handler.decide(input, rows, now)));
        decided.unwrap_or_else(|panic| Err(panicked(&*panic)))
    }
}
