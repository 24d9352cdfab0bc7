//! Every event and job as the services publish it today, to the byte but for ids and times.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::{CATALOG, Service, Stream};
use serde_json::Value;
use sim_engine::{Cluster, Plan, Settings, System, Verdict, run_plan};
use sim_shop::scenario::Scenario;
use sim_shop::{Shop, Workload};

/// A type, its version, and the outcome that it tells, where it has several.
type Sort = (String, u64, String);

/// The shop, and whoever listens to all its topics and its queue.
#[derive(Clone, Default)]
struct Overheard {
    said: Arc<Mutex<BTreeMap<Sort, String>>>,
    /// Every id, with its cause where it must have one that was said: all but what requests cause.
    caused: Arc<Mutex<BTreeMap<String, Option<String>>>>,
}

impl Overheard {
    /// Notes one of each type and version, and of each outcome where it has several: the least by its
    /// text, so that the schedule does not matter.
    fn note(&self, payload: &[u8]) {
        let text = String::from_utf8(payload.to_vec()).expect("events are text");
        let json: Value = serde_json::from_str(&text).expect("events are JSON");
        let kind = json["eventType"].as_str().expect("a type").to_owned();
        if let Some(order) = json["payload"].get("orderId") {
            assert_eq!(&json["correlationId"], order, "{text}");
        }
        let word = |name: &str| json[name].as_str().map(str::to_owned);
        let cause = match kind.as_str() {
            "ProductUpserted" | "OrderCreated" => None,
            _ => Some(word("causationId").expect("a cause")),
        };
        let mut caused = self.caused.lock().expect("nobody panics inside");
        caused.insert(word("eventId").expect("an id"), cause);
        let (status, other) = (&json["payload"]["status"], &json["payload"]["type"]);
        let outcome = status.as_str().or(other.as_str()).unwrap_or("").to_owned();
        let mut said = self.said.lock().expect("nobody panics inside");
        let version = json["eventVersion"].as_u64().expect("a version");
        let masked = masked(&text, &json);
        let least = said.entry((kind, version, outcome)).or_insert_with(|| masked.clone());
        if masked < *least {
            *least = masked;
        }
    }

    async fn listen(self, cluster: Cluster) {
        loop {
            cluster.queue().with(|queues, _| {
                for name in queues.names() {
                    let held = queues.unacked_of(&name).map(|(_, job)| job);
                    let jobs = queues.ready(&name).chain(held);
                    jobs.for_each(|job| self.note(&job.record.payload));
                }
            });
            madsim::time::sleep(Duration::from_micros(500)).await;
        }
    }
}

/// The text with ids and times that differ from world to world taken out.
fn masked(text: &str, json: &Value) -> String {
    let mut masked = text.to_owned();
    for (pointer, mask) in [
        ("/eventId", "<event id>"),
        ("/causationId", "<cause>"),
        ("/correlationId", "<correlation>"),
        ("/payload/orderId", "<order id>"),
        ("/occurredAt", "<time>"),
        ("/payload/updatedAt", "<time>"),
    ] {
        if let Some(value) = json.pointer(pointer).and_then(Value::as_str) {
            let name = pointer.rsplit('/').next().expect("a pointer has a last part");
            masked = masked
                .replace(&format!("\"{name}\":\"{value}\""), &format!("\"{name}\":\"{mask}\""));
        }
    }
    masked
}

impl System for Overheard {
    type Workload = Workload;

    fn plan(&self, seed: u64) -> Plan<Workload> {
        Shop.plan(seed)
    }

    fn settings(&self, workload: &Workload) -> Settings {
        Shop.settings(workload)
    }

    async fn run(&self, workload: Workload, cluster: Cluster) -> Verdict {
        let listening = madsim::task::spawn(self.clone().listen(cluster.clone()));
        let verdict = Shop.run(workload, cluster.clone()).await;
        listening.abort();
        cluster.log().with(|log| {
            for stream in Stream::ALL.into_iter().filter(|stream| stream.is_topic()) {
                log.records(stream.name()).for_each(|it| self.note(&it.record.payload));
            }
        });
        verdict
    }
}

#[test]
fn each_type_and_version_is_published_as_it_was() {
    let name = "events.as_published";
    let claim = "every event and job as it travels";
    let shipped = Scenario::new(name, claim)
        .stock("rare", Some(1))
        .order("tea", 2)
        .order("declined", 1)
        .order("rare", 2);
    let next = Service::ALL.into_iter().fold(shipped.clone(), Scenario::next_release);
    let overheard = Overheard::default();
    for scenario in [shipped, next] {
        let run = run_plan(&overheard, scenario.plan());
        assert!(run.verdict.is_clean(), "{:?}", run.verdict.violations);
    }
    let said = overheard.said.lock().expect("nobody panics inside").clone();
    let versions = CATALOG.iter().map(|row| (row.event, 1)).chain([("OrderCreated", 2)]);
    for sort in versions {
        let heard = said.keys().any(|(kind, version, _)| (kind.as_str(), *version) == sort);
        assert!(heard, "nobody said {sort:?}");
    }
    let caused = overheard.caused.lock().expect("nobody panics inside").clone();
    for (id, cause) in caused.iter().filter_map(|(id, cause)| Some((id, cause.as_ref()?))) {
        assert!(cause != id && caused.contains_key(cause), "{id} has no cause");
    }
    let lines: Vec<String> = said.into_values().collect();
    super::pin(name, &lines.join("\n"));
}
