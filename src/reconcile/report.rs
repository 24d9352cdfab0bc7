//! What an audit found: for each invariant how much was checked and what was wrong. Keeps the first
//! findings and counts the rest, however many there are.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;

use crate::CANNOT_TELL;

/// Findings that are kept of each invariant.
const KEPT: usize = 10;

/// What must hold (saga-rules, marked L).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// On hand = available + reserved + committed, nothing negative.
    StockAddsUp,
    /// On hand = Σ adjustments.
    StockAdjusted,
    /// Reserved = Σ reservations; none at rest.
    StockReserved,
    /// Committed = Σ lines of confirmed orders.
    StockCommitted,
    /// The gateway's ledger equals Payments'.
    GatewayAgrees,
    /// At most one charge an order.
    ChargedOnce,
    /// Captured = amounts of confirmed orders; cancelled ones hold nothing.
    MoneyFollowsOrders,
    /// Every order ends once, the same everywhere.
    EndsOnce,
    /// One Message-ID at the sink for each notification of a final order.
    MailSent,
    /// Nothing anywhere without its order.
    NothingStrange,
    /// No job in the queue's dead letters.
    JobsAlive,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Invariant; 11] = [
        Invariant::StockAddsUp,
        Invariant::StockAdjusted,
        Invariant::StockReserved,
        Invariant::StockCommitted,
        Invariant::GatewayAgrees,
        Invariant::ChargedOnce,
        Invariant::MoneyFollowsOrders,
        Invariant::EndsOnce,
        Invariant::MailSent,
        Invariant::NothingStrange,
        Invariant::JobsAlive,
    ];

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Invariant::StockAddsUp => {
                "stock: on hand = available + reserved + committed, none negative"
            }
            Invariant::StockAdjusted => "stock: on hand = all adjustments",
            Invariant::StockReserved => "stock: reserved = all reservations",
            Invariant::StockCommitted => "stock: committed = lines of confirmed orders",
            Invariant::GatewayAgrees => "money: the gateway has what Payments says",
            Invariant::ChargedOnce => "money: at most one charge an order",
            Invariant::MoneyFollowsOrders => {
                "money: confirmed is captured, cancelled holds nothing"
            }
            Invariant::EndsOnce => "orders: one end each, the same in every service",
            Invariant::MailSent => {
                "mail: each notification is at the sink, or visibly undeliverable"
            }
            Invariant::NothingStrange => "all: nothing that belongs to no order",
            Invariant::JobsAlive => "queue: no dead job",
        }
    }
}

/// Whether it is wrong, or only not over yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It will not become right by waiting.
    Wrong(Invariant, String),
    /// It is under way.
    Unsettled(String),
}

/// How many, and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// All of them.
    pub count: u64,
    /// Some of them.
    pub first: Vec<String>,
}

impl Findings {
    fn add(&mut self, text: String) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(text);
        }
    }
}

/// One invariant's row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Orders, products or queues that were looked at.
    pub checked: u64,
    /// What was wrong.
    pub wrong: Findings,
    /// Why it could not be checked, where it could not.
    pub untold: Option<String>,
}

/// Sums over everything. A product or an order has 63 bits of each, and there are many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Orders that Orders knows.
    pub orders: u64,
    /// Those among them that were confirmed.
    pub confirmed: u64,
    /// Those that were cancelled.
    pub cancelled: u64,
    /// Pieces, Σ adjustments.
    pub on_hand: i128,
    /// Pieces that are free.
    pub available: i128,
    /// Pieces held for open orders.
    pub reserved: i128,
    /// Pieces sold, by Inventory.
    pub committed: i128,
    /// Pieces in confirmed orders, by Orders.
    pub sold: i128,
    /// Σ amounts of confirmed orders, minor units.
    pub earned: i128,
    /// What the gateway took, minor units.
    pub captured: i128,
    /// What the gateway holds, minor units.
    pub held: i128,
    /// Message-IDs at the sink.
    pub mails: u64,
}

/// What an audit found.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// By invariant.
    pub rows: BTreeMap<Invariant, Row>,
    /// What is still under way.
    pub unsettled: Findings,
    /// Sums.
    pub totals: Totals,
}

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All is where it should be.
    Balanced,
    /// Something is wrong that waiting does not mend.
    Wrong,
    /// Nothing is wrong so far, and not everything could be told.
    CannotTell,
}

impl Verdict {
    /// The exit code that says so.
    pub fn code(self) -> ExitCode {
        match self {
            Verdict::Balanced => ExitCode::SUCCESS,
            Verdict::Wrong => ExitCode::FAILURE,
            Verdict::CannotTell => ExitCode::from(CANNOT_TELL),
        }
    }
}

impl Report {
    /// Counts a thing that was looked at for this invariant.
    pub fn checked(&mut self, invariant: Invariant) {
        self.rows.entry(invariant).or_default().checked += 1;
    }

    /// Keeps a finding.
    pub fn add(&mut self, finding: Finding) {
        match finding {
            Finding::Wrong(invariant, text) => {
                self.rows.entry(invariant).or_default().wrong.add(text);
            }
            Finding::Unsettled(text) => self.unsettled.add(text),
        }
    }

    /// This invariant cannot be checked here.
    pub fn untold(&mut self, invariant: Invariant, why: &str) {
        self.rows.entry(invariant).or_default().untold = Some(why.to_owned());
    }

    /// What it comes to.
    pub fn verdict(&self) -> Verdict {
        if self.rows.values().any(|row| row.wrong.count > 0) {
            Verdict::Wrong
        } else if self.unsettled.count > 0 || self.rows.values().any(|row| row.untold.is_some()) {
            Verdict::CannotTell
        } else {
            Verdict::Balanced
        }
    }

    /// All of it as JSON. It is written out at once: a JSON value in memory has 64 bits for a number.
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        struct Whole<'a> {
            verdict: Verdict,
            #[serde(flatten)]
            report: &'a Report,
        }
        let whole = Whole { verdict: self.verdict(), report: self };
        serde_json::to_string_pretty(&whole).expect("a report has names for keys")
    }

    /// What is wrong, each with its invariant, as far as it was kept.
    pub fn wrong(&self) -> impl Iterator<Item = (Invariant, &str)> {
        let rows = self.rows.iter();
        rows.flat_map(|(invariant, row)| {
            row.wrong.first.iter().map(|text| (*invariant, text.as_str()))
        })
    }

    /// As a table with the first findings and the verdict.
    pub fn table(&self) -> String {
        let width =
            Invariant::ALL.map(|invariant| invariant.words().len()).into_iter().max().unwrap_or(0);
        let mut text = format!("{:width$}  {:>8}  {:>6}\n", "invariant", "checked", "wrong");
        for invariant in Invariant::ALL {
            let row = self.rows.get(&invariant).cloned().unwrap_or_default();
            let wrong = match row.untold {
                Some(_) => "?".to_owned(),
                None => row.wrong.count.to_string(),
            };
            text += &format!("{:width$}  {:>8}  {wrong:>6}\n", invariant.words(), row.checked);
        }
        for invariant in Invariant::ALL {
            let Some(row) = self.rows.get(&invariant) else { continue };
            text += &listed(invariant.words(), &row.wrong);
            if let Some(why) = &row.untold {
                text += &format!("\n{}\n  cannot be told: {why}\n", invariant.words());
            }
        }
        text + &listed("not at rest", &self.unsettled)
    }
}

fn listed(title: &str, findings: &Findings) -> String {
    if findings.count == 0 {
        return String::new();
    }
    let mut text = format!("\n{title}\n");
    for finding in &findings.first {
        text += &format!("  {finding}\n");
    }
    let more = findings.count - findings.first.len() as u64;
    if more > 0 {
        text += &format!("  and {more} more\n");
    }
    text
}
