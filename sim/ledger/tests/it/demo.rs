//! `cargo sim demo` finds the planted bug and tells it; without the bug a thousand worlds are clean.

use sim_ledger::Demo;

fn tell(seed: Option<u64>) -> (bool, String) {
    let mut told = Vec::new();
    let clean = Demo { seed, only: None }.tell(&mut told).expect("memory can be written");
    (clean, String::from_utf8(told).expect("it is text"))
}

#[test]
fn the_demo_bites_and_the_mended_ledger_is_clean() {
    let (clean, told) = tell(None);
    assert!(clean, "{told}");
    let failed = told.lines().find(|line| line.starts_with("FAILED  ledger.")).expect("a story");
    let seed = failed.split("seed ").nth(1).and_then(|it| it.split(' ').next()).expect("its seed");
    let seed: u64 = seed.parse().expect("a number");
    assert!(seed < 50, "the bug is easy to see: {failed}");
    let again = format!("reproduce   cargo sim demo --seed {seed}");
    assert!(told.contains(&again), "{told}");
    assert!(told.contains("24000 entries booked, 0 failed"), "{told}");

    // The command that it names shows the same failure.
    let (clean, replayed) = tell(Some(seed));
    assert!(!clean);
    let invariant = failed.split_whitespace().nth(1).expect("an invariant");
    assert!(replayed.contains(&format!("FAILED  {invariant}")), "{replayed}");
}
