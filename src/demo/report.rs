//! The demo's outcome as a table. Never judges: the books do.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Folder;
use super::place::Placed;
use crate::reconcile::{Report, Totals, Verdict};
use crate::words::money;

/// What became of the orders, how fast, and the books.
pub fn table(placed: &[Placed], took: Duration, books: &Report) {
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for order in placed {
        *ends.entry(order.end()).or_default() += 1;
    }
    say!("\n  orders       {:>7}", placed.len());
    say!("    confirmed  {:>7}", ends.remove("confirmed").unwrap_or(0));
    for (reason, count) in ends {
        say!("    cancelled  {count:>7}  {reason}");
    }
    say!("  mails        {:>7}", books.totals.mails);
    let rate = placed.len() as f64 / took.as_secs_f64();
    say!("  sagas/s      {rate:>7.0}  in {:.1} s", took.as_secs_f64());
    let mut times: Vec<Duration> = placed.iter().map(|order| order.took).collect();
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    say!(
        "  latency      {:>4} ms  p50, {} ms p99: from the POST to the final state in Query",
        at(50).as_millis(),
        at(99).as_millis()
    );
    let Totals { on_hand, available, reserved, committed, sold, .. } = books.totals;
    say!(
        "  stock        {on_hand:>7}  on hand = {available} available + {reserved} reserved + \
         {committed} committed; sold {sold}"
    );
    let Totals { earned, captured, held, .. } = books.totals;
    say!(
        "  money        {:>7}  captured by the gateway, {} still held; confirmed orders {}",
        money(captured),
        money(held),
        money(earned)
    );
    say!("  {}", verdict(books));
}

/// What the books come to, and why where they do not balance.
fn verdict(books: &Report) -> String {
    match books.verdict() {
        Verdict::Balanced => {
            "the books balance: every piece and every cent is where it should be".to_owned()
        }
        Verdict::Wrong => format!("THE BOOKS DO NOT BALANCE:\n\n{}", books.table()),
        Verdict::CannotTell => {
            format!("it cannot be told yet whether the books balance:\n\n{}", books.table())
        }
    }
}

/// What to do next.
pub fn farewell(folder: &Folder, total_s: f64) {
    say!("\n{total_s:.1} s in all. Next:");
    say!("  cargo run -- serve               the same services, to play with by curl");
    say!("  cargo test                       what holds, and why");
    say!("  cargo sim run --seeds 0..100     a hundred worlds that go wrong on purpose");
    if folder.temporary {
        say!("  cargo run -- demo --keep         to look at the databases and mails afterwards");
    } else {
        say!("databases and mails are in {}", folder.path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::{Finding, Invariant};

    #[test]
    fn what_is_under_way_is_not_called_wrong() {
        let mut books = Report::default();
        assert!(verdict(&books).starts_with("the books balance: "));
        books.add(Finding::Unsettled("1 unsent at orders".to_owned()));
        assert!(verdict(&books).starts_with("it cannot be told yet whether the books balance:"));
        books.add(Finding::Wrong(Invariant::ChargedOnce, "charged 2 times".to_owned()));
        assert!(verdict(&books).starts_with("THE BOOKS DO NOT BALANCE:"));
    }
}
