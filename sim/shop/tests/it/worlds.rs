//! Worlds by seed, each run twice. `MADSIM_TEST_SEED=N cargo test seeded_worlds` runs one.

use sim_engine::{System, run_twice};
use sim_shop::{Shop, story};

/// Worlds in `cargo test`; `cargo sim run` runs as many as one likes.
const WORLDS: u64 = 60;

#[test]
fn seeded_worlds_are_clean_and_deterministic() {
    let seeds = match std::env::var("MADSIM_TEST_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("MADSIM_TEST_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..WORLDS,
    };
    let (mut effective, mut worlds) = (0, 0);
    for seed in seeds {
        let run = run_twice(&Shop, &Shop.plan(seed));
        assert!(run.verdict.is_clean(), "\n{}", story::failure(&run, "cargo test", None));
        effective += run.effective();
        worlds += 1;
    }
    println!("{worlds} worlds clean, {effective} effective faults");
    assert!(worlds == 1 || effective > 4 * worlds, "the faults met too little: {effective}");
}
