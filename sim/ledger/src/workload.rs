//! What a world is asked to do, and what goes wrong in it: drawn here, once, and data from then on. Never
//! drawn by another source than the seed.

use serde::{Deserialize, Serialize};
use sim_engine::{Choices, FaultKind, FaultSpec, Plan, Site, When};

use crate::entry::Entry;

/// Faults of a world.
const FAULTS: u64 = 8;

/// The calls that a ledger makes, for what, and how often in a world, roughly.
const LEDGER: [(Site, &str, u64); 5] = [
    (Site::Subscribe, "ledger", 2),
    (Site::Poll, "entries", 10),
    (Site::Outside, "book", 8),
    (Site::Publish, "receipts", 8),
    (Site::CommitOffsets, "entries", 8),
];

/// The same of a printer, whose channel is for one queue alone.
const PRINTER: [(Site, &str, u64); 4] = [
    (Site::Consume, "receipts", 2),
    (Site::Deliver, "", 8),
    (Site::Outside, "file", 8),
    (Site::Settle, "ack", 8),
];

/// From one account to another, as two entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Its name, from which its entries have theirs.
    pub id: String,
    /// When the teller sends it, milliseconds from the start.
    pub at_ms: u64,
    /// Who pays.
    pub from: String,
    /// Who gets it.
    pub to: String,
    /// How much, in cents.
    pub amount_minor: i64,
    /// Whether the teller sends it twice, as after a lost reply.
    pub repeated: bool,
}

impl Transfer {
    /// Its two sides.
    pub fn entries(&self) -> [Entry; 2] {
        let entry = |side: &str, account: &String, amount_minor| {
            let id = format!("{}.{side}", self.id);
            Entry { id, account: account.clone(), amount_minor }
        };
        let amount = self.amount_minor;
        [entry("from", &self.from, -amount), entry("to", &self.to, amount)]
    }
}

/// What a world is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// In the order of their times.
    pub transfers: Vec<Transfer>,
    /// Instances of the ledger.
    pub ledgers: u32,
    /// When the faults end, milliseconds from the start.
    pub heal_ms: u64,
    /// The planted bug: ack before commit, in ledger and printer.
    pub ack_first: bool,
}

/// The world of this seed.
pub(crate) fn draw(seed: u64, ack_first: bool) -> Plan<Workload> {
    let choices = Choices::new(seed);
    let workload = workload(&choices, ack_first);
    let faults = (0..FAULTS).map(|_| fault(&choices, workload.ledgers)).collect();
    Plan { seed, workload, faults, choices: Vec::new() }
}

fn workload(choices: &Choices, ack_first: bool) -> Workload {
    let pick = |what: &str, below: u64| choices.below("workload", what, below);
    let mut at_ms = 0;
    let transfer = |n: u64| {
        at_ms += pick("pause", 400);
        let (from, to) = (pick("from", 4), 1 + pick("to", 3));
        Transfer {
            id: format!("T{n}"),
            at_ms,
            from: format!("account-{from}"),
            to: format!("account-{}", (from + to) % 4),
            amount_minor: 1 + pick("amount", 10_000) as i64,
            repeated: pick("repeated", 8) == 0,
        }
    };
    // Two digits, so that no name is the beginning of another.
    let transfers = (10..22).map(transfer).collect();
    Workload { transfers, ledgers: 1 + pick("ledgers", 2) as u32, heal_ms: 8_000, ack_first }
}

fn fault(choices: &Choices, ledgers: u32) -> FaultSpec {
    let pick = |what: &str, below: u64| choices.below("faults", what, below);
    let (node, (site, what, reach)) = match pick("node", u64::from(ledgers) + 1) {
        0 => ("printer#0".to_owned(), *choices.of("faults", "printer", &PRINTER)),
        n => (format!("ledger#{}", n - 1), *choices.of("faults", "ledger", &LEDGER)),
    };
    let legal: Vec<FaultKind> = FaultKind::ALL.into_iter().filter(|it| it.legal(site)).collect();
    let kind = *choices.of("faults", "kind", &legal);
    // Now and then longer than a session, so that partitions move.
    let for_ms = [300, 300, 300, 7_000][pick("long", 4) as usize] + pick("for", 500);
    let nth = 1 + pick("nth", reach);
    let when = match what {
        "" => When::Call { site, nth },
        what => When::CallFor { site, what: what.to_owned(), nth },
    };
    FaultSpec { kind, node, when, for_ms }
}
