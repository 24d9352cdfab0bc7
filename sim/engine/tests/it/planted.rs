//! Sources of nondeterminism, planted one at a time in a node's code. What the lints of [`crate::lints`]
//! cannot see is caught by running a seed twice, which names the first event that differs; what they can
//! see does no harm in a world, or ends it.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "they are planted here on purpose"
)]

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use shakedown_sim_engine::{Cluster, Leave, NodePorts, Plan, Run, Settings};
use shakedown_sim_engine::{System, Verdict, run_twice};

/// One node that writes into the trace what the planted code gives.
#[derive(Clone, Copy)]
struct Planted(fn(&NodePorts) -> String);

impl System for Planted {
    type Workload = ();

    fn plan(&self, seed: u64) -> Plan<()> {
        Plan { seed, workload: (), faults: Vec::new(), choices: Vec::new() }
    }

    fn settings(&self, (): &()) -> Settings {
        Settings::default()
    }

    async fn run(&self, (): (), cluster: Cluster) -> Verdict {
        let plant = self.0;
        let start = move |ports: NodePorts| {
            Box::pin(async move {
                ports.note("ready", String::new());
                ports.note("planted", plant(&ports));
                let leave: Leave = Box::new(|| Box::pin(async {}));
                Ok(leave)
            }) as _
        };
        cluster.add("node", "none", Arc::new(start));
        cluster.server_runtime().sleep(Duration::from_millis(5)).await;
        Verdict::default()
    }
}

fn twice(plant: fn(&NodePorts) -> String) -> Run {
    let system = Planted(plant);
    run_twice(&system, &system.plan(1))
}

/// The two runs differ, and what is told is the planted event and no earlier one.
fn assert_caught(plant: fn(&NodePorts) -> String) {
    let violations = twice(plant).verdict.violations;
    let [violation] = violations.as_slice() else { panic!("not caught: {violations:?}") };
    assert_eq!(violation.invariant, "world.deterministic");
    let lines: Vec<&str> = violation.text.lines().skip(1).collect();
    assert_eq!(lines.len(), 2, "one event of each run: {}", violation.text);
    assert!(lines.iter().all(|line| line.contains(" planted ")), "{}", violation.text);
    assert_ne!(lines[0], lines[1]);
}

fn assert_harmless(plant: fn(&NodePorts) -> String) {
    let run = twice(plant);
    assert!(run.verdict.is_clean(), "{:?}", run.verdict.violations);
    assert!(run.trace.iter().any(|event| event.what == "planted"), "it ran");
}

#[test]
fn a_static_counter_is_caught() {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    assert_caught(|_| COUNT.fetch_add(1, Ordering::Relaxed).to_string());
}

/// As uuid's own `ContextV7` is: the last time and a counter, for the whole process.
#[test]
fn a_context_of_v7_ids_is_caught() {
    static CONTEXT: Mutex<(i64, u64)> = Mutex::new((0, 0));
    assert_caught(|ports| {
        let mut context = CONTEXT.lock().expect("nobody panicked with it");
        let now_ms = ports.runtime.now().timestamp_millis();
        let counter = if context.0 >= now_ms { context.1 + 1 } else { 0 };
        *context = (context.0.max(now_ms), counter);
        format!("{now_ms}-{counter}")
    });
}

#[test]
fn a_pointer_in_the_trace_is_caught() {
    // Leaked, so that the second run cannot get the same place.
    assert_caught(|_| format!("{:p}", Box::leak(Box::new(1_u8))));
}

#[test]
fn unkeyed_randomness_is_caught() {
    assert_caught(|_| {
        let mut bytes = [0; 8];
        let mut random = std::fs::File::open("/dev/urandom").expect("the system has it");
        random.read_exact(&mut bytes).expect("it has no end");
        format!("{bytes:?}")
    });
}

#[test]
fn the_thread_of_a_world_is_caught() {
    assert_caught(|_| format!("{:?}", std::thread::current().id()));
}

#[test]
fn a_thread_ends_the_world() {
    let run = twice(|_| {
        let thread = std::thread::spawn(|| "ran".to_owned());
        thread.join().expect("no panic in it")
    });
    let broken: Vec<&str> = run.verdict.violations.iter().map(|v| v.invariant.as_str()).collect();
    assert_eq!(broken, ["world.panic"], "{:?}", run.verdict.violations);
}

/// madsim stands between a world and the system's clock and entropy: the lints forbid both all the same,
/// since on a server the code would behave in another way than in its worlds.
#[test]
fn the_real_clock_and_the_order_of_a_map_come_from_the_seed() {
    assert_harmless(|_| format!("{:?} {:?}", Instant::now(), SystemTime::now()));
    assert_harmless(|_| {
        let map: HashMap<u32, ()> = (0..16).map(|n| (n, ())).collect();
        format!("{:?}", map.keys().collect::<Vec<_>>())
    });
}
