//! What a service counts: meters as constants, a recorder for each service, and the Prometheus text of
//! several services together. Never global: services of one process, and worlds, share nothing. Never
//! keeps time, and never decides: what is recorded changes nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
};

/// The media type of [`Exposition::text`].
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// Upper bounds of seconds, for what takes milliseconds up to a minute.
pub const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// What a meter measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only rises, from 0 at the start of the process.
    Counter,
    /// It is looked up when somebody asks.
    Gauge,
    /// Observations, counted below these upper bounds.
    Histogram(&'static [f64]),
}

/// One thing that is measured. Each service has its own of it, told apart by the label `service`.
#[derive(Debug, PartialEq)]
pub struct Meter {
    /// Prometheus' name: snake case, unit last, counters with `_total`.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// Names of its labels. Their values come from a small fixed set, never from the wire.
    pub labels: &'static [&'static str],
}

impl Meter {
    /// A counter.
    pub const fn counter(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Meter {
        Meter { name, help, kind: Kind::Counter, labels }
    }

    /// A gauge.
    pub const fn gauge(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Meter {
        Meter { name, help, kind: Kind::Gauge, labels }
    }

    /// A histogram of seconds.
    pub const fn seconds(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Meter {
        Meter { name, help, kind: Kind::Histogram(SECONDS), labels }
    }
}

/// One value of a meter: what to add to a counter, an observation, or a gauge as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Of what.
    pub meter: &'static Meter,
    /// A value for each of the meter's labels.
    pub labels: Vec<Cow<'static, str>>,
    /// How much.
    pub value: f64,
}

impl Sample {
    /// A sample without labels.
    pub fn new(meter: &'static Meter, value: f64) -> Sample {
        Sample { meter, labels: Vec::new(), value }
    }

    /// With its labels.
    pub fn labelled<L: Into<Cow<'static, str>>>(
        meter: &'static Meter,
        labels: impl IntoIterator<Item = L>,
        value: f64,
    ) -> Sample {
        Sample { meter, labels: labels.into_iter().map(Into::into).collect(), value }
    }
}

/// Counts for one service, or counts nothing. Clones count together.
#[derive(Clone, Default)]
pub struct Metrics {
    recording: Option<Arc<Recording>>,
}

struct Recording {
    registry: Registry,
    instruments: Mutex<BTreeMap<&'static str, Instrument>>,
}

#[derive(Clone)]
enum Instrument {
    Counter(IntCounterVec),
    Histogram(HistogramVec),
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.recording.is_some() { "recording" } else { "silent" })
    }
}

impl Metrics {
    /// Counts nothing.
    pub fn silent() -> Self {
        Metrics::default()
    }

    /// Counts from 0.
    pub fn recording() -> Self {
        let recording = Recording { registry: Registry::new(), instruments: Mutex::default() };
        Metrics { recording: Some(Arc::new(recording)) }
    }

    /// Shows these from the start: a counter or histogram without labels as 0.
    pub fn announce(&self, meters: &[&'static Meter]) {
        let Some(recording) = &self.recording else { return };
        for meter in meters {
            match recording.instrument(meter) {
                Some(Instrument::Counter(counter)) if meter.labels.is_empty() => {
                    counter.with_label_values::<&str>(&[]);
                }
                Some(Instrument::Histogram(histogram)) if meter.labels.is_empty() => {
                    histogram.with_label_values::<&str>(&[]);
                }
                Some(Instrument::Counter(_) | Instrument::Histogram(_)) | None => {}
            }
        }
    }

    /// Adds 1 to a counter.
    pub fn count(&self, meter: &'static Meter, labels: &[&str]) {
        self.add(meter, labels, 1.0);
    }

    /// Adds to a counter, or observes in a histogram.
    ///
    /// # Panics
    /// For a gauge, and where the labels are not the meter's: mistakes of whoever calls.
    pub fn add(&self, meter: &'static Meter, labels: &[&str], value: f64) {
        let Some(recording) = &self.recording else { return };
        match recording.instrument(meter) {
            Some(Instrument::Counter(counter)) => {
                counter.with_label_values(labels).inc_by(value as u64);
            }
            Some(Instrument::Histogram(histogram)) => {
                histogram.with_label_values(labels).observe(value);
            }
            None => panic!("{} is a gauge: it is looked up, not recorded", meter.name),
        }
    }

    /// Records samples.
    pub fn record(&self, samples: Vec<Sample>) {
        for Sample { meter, labels, value } in samples {
            let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
            self.add(meter, &labels, value);
        }
    }

    /// What was recorded so far, with gauges as they are now.
    pub fn expose(&self, service: &str, gauges: Vec<Sample>) -> Exposition {
        let mut families = self.recording.as_ref().map_or(Vec::new(), |r| r.registry.gather());
        families.extend(gauge_families(gauges));
        for family in &mut families {
            for metric in family.mut_metric() {
                let mut labels = metric.get_label().to_vec();
                let mut own = prometheus::proto::LabelPair::default();
                own.set_name("service".to_owned());
                own.set_value(service.to_owned());
                labels.insert(0, own);
                metric.set_label(labels);
            }
        }
        Exposition { families }
    }
}

impl Recording {
    fn instruments(&self) -> MutexGuard<'_, BTreeMap<&'static str, Instrument>> {
        self.instruments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The instrument of a meter; of a gauge there is none.
    fn instrument(&self, meter: &'static Meter) -> Option<Instrument> {
        let mut instruments = self.instruments();
        if let Some(known) = instruments.get(meter.name) {
            return Some(known.clone());
        }
        let instrument = self.make(meter);
        let instrument =
            instrument.unwrap_or_else(|e| panic!("{} is no meter: {e}", meter.name))?;
        instruments.insert(meter.name, instrument.clone());
        Some(instrument)
    }

    fn make(&self, meter: &'static Meter) -> prometheus::Result<Option<Instrument>> {
        match meter.kind {
            Kind::Counter => {
                let made = IntCounterVec::new(Opts::new(meter.name, meter.help), meter.labels)?;
                self.registry.register(Box::new(made.clone()))?;
                Ok(Some(Instrument::Counter(made)))
            }
            Kind::Histogram(bounds) => {
                let options = HistogramOpts::new(meter.name, meter.help).buckets(bounds.to_vec());
                let made = HistogramVec::new(options, meter.labels)?;
                self.registry.register(Box::new(made.clone()))?;
                Ok(Some(Instrument::Histogram(made)))
            }
            Kind::Gauge => Ok(None),
        }
    }
}

fn gauge_families(gauges: Vec<Sample>) -> Vec<MetricFamily> {
    let mut made: BTreeMap<&'static str, GaugeVec> = BTreeMap::new();
    for Sample { meter, labels, value } in gauges {
        let gauge = made.entry(meter.name).or_insert_with(|| {
            let gauge = GaugeVec::new(Opts::new(meter.name, meter.help), meter.labels);
            gauge.unwrap_or_else(|e| panic!("{} is no meter: {e}", meter.name))
        });
        let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
        gauge.with_label_values(&labels).set(value);
    }
    made.into_values().flat_map(|gauge| gauge.collect()).collect()
}

/// What services show at one moment.
#[derive(Debug, Default, Clone)]
pub struct Exposition {
    families: Vec<MetricFamily>,
}

impl Exposition {
    /// Several services as one: each name once, with the series of all of them.
    pub fn merged(all: impl IntoIterator<Item = Exposition>) -> Exposition {
        let mut merged: BTreeMap<String, MetricFamily> = BTreeMap::new();
        for family in all.into_iter().flat_map(|exposition| exposition.families) {
            match merged.get_mut(family.name()) {
                Some(known) => {
                    let mut metrics = known.get_metric().to_vec();
                    metrics.extend_from_slice(family.get_metric());
                    known.set_metric(metrics);
                }
                None => drop(merged.insert(family.name().to_owned(), family)),
            }
        }
        Exposition { families: merged.into_values().collect() }
    }

    /// Prometheus' text format, 0.0.4, by name; see [`TEXT_FORMAT`].
    pub fn text(self) -> String {
        let Exposition { families } = Exposition::merged([self]);
        let known: Vec<MetricFamily> =
            families.into_iter().filter(|family| !family.get_metric().is_empty()).collect();
        let text = TextEncoder::new().encode_to_string(&known);
        text.expect("families with names and metrics have a text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SENT: Meter = Meter::counter("sent_total", "What was sent.", &["result"]);
    static LATE: Meter = Meter::counter("late_total", "What came late.", &[]);
    static TOOK: Meter = Meter {
        name: "took_seconds",
        help: "How long it took.",
        kind: Kind::Histogram(&[1.0, 2.0]),
        labels: &[],
    };
    static WAITS: Meter = Meter::gauge("waits", "What waits.", &["shard"]);

    #[test]
    fn services_are_shown_together_each_name_once() {
        let (one, other) = (Metrics::recording(), Metrics::recording());
        one.announce(&[&SENT, &LATE, &WAITS]);
        one.count(&SENT, &["ok"]);
        one.count(&SENT, &["ok"]);
        other.count(&SENT, &["ok"]);
        other.add(&TOOK, &[], 1.5);
        let gauge = Sample::labelled(&WAITS, ["0"], 7.0);
        let all = [one.expose("a", vec![gauge]), other.expose("b", Vec::new())];
        let expected = "\
# HELP late_total What came late.
# TYPE late_total counter
late_total{service=\"a\"} 0
# HELP sent_total What was sent.
# TYPE sent_total counter
sent_total{service=\"a\",result=\"ok\"} 2
sent_total{service=\"b\",result=\"ok\"} 1
# HELP took_seconds How long it took.
# TYPE took_seconds histogram
took_seconds_bucket{service=\"b\",le=\"1\"} 0
took_seconds_bucket{service=\"b\",le=\"2\"} 1
took_seconds_bucket{service=\"b\",le=\"+Inf\"} 1
took_seconds_sum{service=\"b\"} 1.5
took_seconds_count{service=\"b\"} 1
# HELP waits What waits.
# TYPE waits gauge
waits{service=\"a\",shard=\"0\"} 7
";
        assert_eq!(Exposition::merged(all).text(), expected);
    }

    #[test]
    fn silence_counts_nothing_and_still_shows_gauges() {
        let silent = Metrics::silent();
        silent.announce(&[&LATE]);
        silent.count(&LATE, &[]);
        let gauge = Sample::labelled(&WAITS, ["0"], 1.0);
        let text = silent.expose("a", vec![gauge]).text();
        assert!(text.contains("waits{service=\"a\",shard=\"0\"} 1"), "{text}");
        assert!(!text.contains("late_total"), "{text}");
    }

    #[test]
    #[should_panic(expected = "is a gauge")]
    fn a_gauge_cannot_be_recorded() {
        Metrics::recording().count(&WAITS, &["0"]);
    }
}
