//! Figures of a load, and their report: the fields that other drivers of the same saga print, so that
//! systems can be held side by side.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::reconcile::{self, Invariant, Verdict};
use crate::usage::{self, Usage};

/// Where times lie, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half are no longer.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// Ninety-nine of a hundred.
    pub p99: f64,
    /// None is longer.
    pub max: f64,
}

impl Quantiles {
    /// Of these times; `None` where there are none.
    pub fn of(mut times: Vec<Duration>) -> Option<Quantiles> {
        times.sort_unstable();
        let last = times.len().checked_sub(1)?;
        let ms = |time: Duration| time.as_micros() as f64 / 1000.0;
        let at = |percent: usize| ms(times[(times.len() * percent / 100).min(last)]);
        Some(Quantiles { p50: at(50), p90: at(90), p99: at(99), max: ms(times[last]) })
    }
}

/// What a load came to. `None` where it was not measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Which system.
    pub system: String,
    /// Orders of the closed loop.
    pub n: u32,
    /// Its customers.
    pub clients: u32,
    /// Whether every order ended and was told of in time.
    pub complete: bool,
    /// Seconds from the first POST until the last order was final and its mail sent.
    pub wall_s: Option<f64>,
    /// Seconds of posting.
    pub post_s: Option<f64>,
    /// Orders a second, to the end of each.
    pub sagas_per_s: Option<f64>,
    /// How long a POST took.
    pub post_ms: Option<Quantiles>,
    /// CPU of the services' process.
    pub cpu_s_per_1000_sagas: Option<f64>,
    /// CPU of this process.
    pub driver_cpu_s_per_1000_sagas: Option<f64>,
    /// What others used meanwhile: a run with much of it is disturbed.
    pub foreign_cpu_cores: Option<f64>,
    /// CPU of each process of BROKER_PIDS.
    pub broker_cpu_s_per_1000_sagas: BTreeMap<String, f64>,
    /// Orders of the open loop whose end was seen.
    pub latency_seen: Option<u32>,
    /// From when an order was due until it was final in Query.
    pub latency_ms: Option<Quantiles>,
    /// Orders a second of the open loop.
    pub latency_rate: Option<u32>,
    /// CPU of the services at that rate.
    pub cpu_cores_at_latency_rate: Option<f64>,
    /// Most memory that the services' process ever held.
    pub peak_rss_mb: Option<f64>,
    /// What was wrong with each invariant at the end.
    pub verify: Option<BTreeMap<Invariant, u64>>,
    /// Whether nothing was; `None` also where something was still under way.
    pub correct: Option<bool>,
    /// What did not end, at most a few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ended: Vec<String>,
}

/// CPU seconds of everybody at one time.
pub struct Reading {
    services: Option<Usage>,
    own: Option<Usage>,
    machine: Option<f64>,
    brokers: BTreeMap<String, f64>,
}

impl Reading {
    /// Reads them; `services` is what the other side said of itself.
    pub fn take(services: Option<Usage>) -> Reading {
        let named = std::env::var("BROKER_PIDS").unwrap_or_default();
        Reading {
            services,
            own: usage::of_this_process(),
            machine: usage::of_the_machine(),
            brokers: usage::of_pids(&named),
        }
    }

    /// CPU seconds of the services since an earlier reading.
    pub fn services_since(&self, before: &Reading) -> Option<f64> {
        Some(self.services?.cpu_s - before.services?.cpu_s)
    }

    /// Puts what was used since an earlier reading into the report.
    pub fn since(&self, before: &Reading, orders: usize, took: Duration, report: &mut Report) {
        let per_1000 = |seconds: f64| seconds / orders.max(1) as f64 * 1000.0;
        let own = self.own.zip(before.own).map(|(now, then)| now.cpu_s - then.cpu_s);
        let services = self.services_since(before);
        let mut brokers = 0.0;
        for (name, seconds) in &self.brokers {
            let used = seconds - before.brokers.get(name).copied().unwrap_or(0.0);
            brokers += used;
            report.broker_cpu_s_per_1000_sagas.insert(name.clone(), per_1000(used));
        }
        report.cpu_s_per_1000_sagas = services.map(per_1000);
        report.driver_cpu_s_per_1000_sagas = own.map(per_1000);
        if let (Some(now), Some(then), Some(own), Some(services)) =
            (self.machine, before.machine, own, services)
        {
            let foreign = now - then - own - services - brokers;
            report.foreign_cpu_cores = Some(foreign / took.as_secs_f64());
        }
    }

    /// Most memory of the services.
    pub fn peak_rss_mb(&self) -> Option<f64> {
        Some(self.services?.peak_rss_mb)
    }
}

impl Report {
    /// Takes over what an audit of the books came to.
    pub fn audited(&mut self, books: &reconcile::Report) {
        self.correct = match books.verdict() {
            Verdict::Wrong => Some(false),
            Verdict::CannotTell if books.unsettled.count > 0 => None,
            // A gateway or mails that nobody can look into: the rest is right.
            Verdict::CannotTell | Verdict::Balanced => Some(true),
        };
        self.verify =
            Some(books.rows.iter().map(|(invariant, row)| (*invariant, row.wrong.count)).collect());
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("\n  {}\n", self.system);
        let mut row = |name: &str, says: String| {
            let _ = writeln!(text, "  {name:12} {says}");
        };
        let quantiles = |q: &Quantiles| {
            format!("p50 {:.1} ms, p90 {:.1}, p99 {:.1}, max {:.1}", q.p50, q.p90, q.p99, q.max)
        };
        if let (Some(rate), Some(wall)) = (self.sagas_per_s, self.wall_s) {
            let (n, clients) = (self.n, self.clients);
            row(
                "closed loop",
                format!("{n} orders by {clients} clients: {rate:.0} sagas/s in {wall:.1} s"),
            );
        }
        if let Some(post) = &self.post_ms {
            row("POST", quantiles(post));
        }
        if let (Some(rate), Some(latency)) = (self.latency_rate, &self.latency_ms) {
            let seen = self.latency_seen.unwrap_or(0);
            row("open loop", format!("{seen} orders at {rate}/s"));
            row("latency", format!("{}: from due to final in Query", quantiles(latency)));
        }
        if let (Some(services), Some(driver)) =
            (self.cpu_s_per_1000_sagas, self.driver_cpu_s_per_1000_sagas)
        {
            let foreign = self.foreign_cpu_cores.unwrap_or(0.0);
            row(
                "CPU",
                format!(
                    "{services:.2} s per 1000 sagas, driver {driver:.2}; others used {foreign:.2} cores"
                ),
            );
        }
        if let Some(mb) = self.peak_rss_mb {
            row("memory", format!("{mb:.0} MB at most"));
        }
        row(
            "orders",
            if self.complete { "every one ended, and was told of" } else { "NOT ALL ENDED" }
                .to_owned(),
        );
        for order in &self.not_ended {
            row("", order.clone());
        }
        let books = match (self.correct, &self.verify) {
            (Some(true), _) => "balance",
            (Some(false), _) => "DO NOT BALANCE",
            (None, Some(_)) => "cannot be told: something is still under way",
            (None, None) => "not checked",
        };
        row("books", books.to_owned());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::Finding;

    #[test]
    fn quantiles_are_of_the_sorted_times() {
        let times = (1..=100).rev().map(Duration::from_millis).collect();
        let quantiles = Quantiles::of(times).unwrap();
        assert_eq!(quantiles, Quantiles { p50: 51.0, p90: 91.0, p99: 100.0, max: 100.0 });
        let one = Quantiles::of(vec![Duration::from_micros(1500)]).unwrap();
        assert_eq!((one.p50, one.max), (1.5, 1.5));
        assert_eq!(Quantiles::of(Vec::new()), None);
    }

    #[test]
    fn books_that_are_not_at_rest_are_neither_right_nor_wrong() {
        let mut books = reconcile::Report::default();
        let mut said = |finding: Option<Finding>| {
            finding.into_iter().for_each(|finding| books.add(finding));
            let mut report = Report::default();
            report.audited(&books);
            let row = report.table().lines().find(|line| line.contains("books")).map(str::to_owned);
            (report.correct, row.unwrap())
        };
        assert_eq!(said(None), (Some(true), "  books        balance".to_owned()));
        let under_way = Finding::Unsettled("1 unsent at orders".to_owned());
        let row = "  books        cannot be told: something is still under way";
        assert_eq!(said(Some(under_way)), (None, row.to_owned()));
        let wrong = Finding::Wrong(Invariant::ChargedOnce, "charged 2 times".to_owned());
        assert_eq!(said(Some(wrong)), (Some(false), "  books        DO NOT BALANCE".to_owned()));
    }

    #[test]
    fn the_report_has_the_fields_that_others_have() {
        let report = serde_json::to_value(Report::default()).unwrap();
        for field in [
            "system",
            "n",
            "clients",
            "complete",
            "wall_s",
            "post_s",
            "sagas_per_s",
            "post_ms",
            "cpu_s_per_1000_sagas",
            "driver_cpu_s_per_1000_sagas",
            "foreign_cpu_cores",
            "broker_cpu_s_per_1000_sagas",
            "latency_seen",
            "latency_ms",
            "latency_rate",
            "cpu_cores_at_latency_rate",
            "peak_rss_mb",
            "verify",
            "correct",
        ] {
            assert!(report.get(field).is_some(), "{field}");
        }
    }
}
