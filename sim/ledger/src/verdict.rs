//! What must hold in the end. Never looks at how it came to be.

use sim_engine::Violation;

use crate::disk::Kept;
use crate::entry::Entry;

/// What [`judge`] and the wait for the end are about.
pub(crate) const INVARIANTS: [&str; 4] =
    ["ledger.booked_once", "ledger.sums_to_zero", "ledger.receipts", "ledger.comes_to_rest"];

/// Judges what is kept, after everything has come to rest, by what was sent.
pub(crate) fn judge(sent: &[Entry], kept: &Kept) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut broken = |invariant, about: &str, text| {
        violations.push(Violation::new(invariant, about, text));
    };
    for entry in sent.iter().filter(|entry| !kept.booked.contains_key(&entry.id)) {
        let text = format!("{} for {} is never booked", entry.amount_minor, entry.account);
        broken("ledger.booked_once", &entry.id, text);
    }
    for (account, balance) in &kept.balances {
        let booked = kept.booked.values().filter(|receipt| receipt.entry.account == *account);
        let due: i64 = booked.map(|receipt| receipt.entry.amount_minor).sum();
        if due != *balance {
            let text = format!("its balance is {balance}, its booked entries come to {due}");
            broken("ledger.booked_once", account, text);
        }
    }
    let sum: i64 = kept.balances.values().sum();
    if sum != 0 {
        broken("ledger.sums_to_zero", "", format!("the balances come to {sum}"));
    }
    for (id, receipt) in &kept.booked {
        match kept.filed.get(id).map(Vec::as_slice) {
            Some([filed]) if filed == receipt => {}
            None => broken("ledger.receipts", id, "its receipt is never filed".to_owned()),
            Some(filed) => {
                broken("ledger.receipts", id, format!("booked as {receipt:?}, filed as {filed:?}"));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, account: &str, amount_minor: i64) -> Entry {
        Entry { id: id.to_owned(), account: account.to_owned(), amount_minor }
    }

    /// A transfer, booked and filed as it should be.
    fn world() -> (Vec<Entry>, Kept) {
        let sent = vec![entry("T0.from", "a", -5), entry("T0.to", "b", 5)];
        let mut kept = Kept::default();
        for entry in &sent {
            let receipt = kept.book(entry);
            kept.file(&receipt);
        }
        (sent, kept)
    }

    fn broken(sent: &[Entry], kept: &Kept) -> Vec<String> {
        judge(sent, kept).into_iter().map(|violation| violation.invariant).collect()
    }

    #[test]
    fn a_world_in_order_is_clean_also_if_all_comes_twice() {
        let (sent, mut kept) = world();
        assert_eq!(broken(&sent, &kept), [""; 0]);
        for entry in &sent {
            let receipt = kept.book(entry);
            kept.file(&receipt);
        }
        assert_eq!(broken(&sent, &kept), [""; 0]);
    }

    #[test]
    fn a_lost_entry_breaks_the_booking_and_the_sum() {
        let (mut sent, kept) = world();
        sent.push(entry("T1.from", "a", -7));
        assert_eq!(broken(&sent, &kept), ["ledger.booked_once"]);
        let (sent, mut kept) = world();
        kept.balances.insert("a".to_owned(), -10);
        assert_eq!(broken(&sent, &kept), ["ledger.booked_once", "ledger.sums_to_zero"]);
    }

    #[test]
    fn a_receipt_that_is_missing_or_differs_is_found() {
        let (sent, mut kept) = world();
        let (id, mut filed) = kept.filed.pop_last().expect("it was filed");
        assert_eq!(broken(&sent, &kept), ["ledger.receipts"]);
        filed.push(filed[0].clone());
        filed[1].balance_minor += 1;
        kept.filed.insert(id, filed);
        assert_eq!(broken(&sent, &kept), ["ledger.receipts"]);
    }
}
