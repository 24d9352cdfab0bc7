//! What is counted changes nothing: a world runs the same to the last event, whether its nodes count or
//! are silent.

use std::sync::{Arc, Mutex};

use chassis::{Exposition, Metrics};
use sim_engine::{Cluster, Plan, Settings, System, Verdict, run_plan};
use sim_shop::{Shop, Workload};

/// The shop with every start of a node counting.
#[derive(Clone, Default)]
struct Metered {
    starts: Arc<Mutex<Vec<(String, Metrics)>>>,
}

impl Metered {
    fn text(&self) -> String {
        let starts = self.starts.lock().unwrap();
        let all = starts.iter().map(|(node, metrics)| metrics.expose(node, Vec::new()));
        Exposition::merged(all).text()
    }
}

impl System for Metered {
    type Workload = Workload;

    fn plan(&self, seed: u64) -> Plan<Workload> {
        Shop.plan(seed)
    }

    fn settings(&self, workload: &Workload) -> Settings {
        Shop.settings(workload)
    }

    async fn run(&self, workload: Workload, cluster: Cluster) -> Verdict {
        let starts = self.starts.clone();
        let metrics = move |node: &str| {
            let metrics = Metrics::recording();
            starts.lock().unwrap().push((node.to_owned(), metrics.clone()));
            metrics
        };
        Shop.run_metered(workload, cluster, Arc::new(metrics)).await
    }
}

#[test]
fn a_world_runs_the_same_whether_its_nodes_count_or_not() {
    for seed in 0..8 {
        let plan = Shop.plan(seed);
        let metered = Metered::default();
        let (silent, counted) = (run_plan(&Shop, &plan), run_plan(&metered, &plan));
        assert_ne!(silent.hash, 0, "seed {seed} ran");
        assert_eq!(silent.hash, counted.hash, "seed {seed}");
        let text = metered.text();
        for name in ["event_handled_total{", "saga_terminal_total{", "outbox_publish_total{"] {
            assert!(text.contains(name), "seed {seed}: {name} in {text}");
        }
    }
}
