//! Logging of the binary: lines for people, or one JSON object a line for machines. Never logs what
//! could hold a secret: the frames that a client library would show at level trace are left out.

use std::ffi::OsStr;
use std::io::IsTerminal;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use crate::config::LogFormat;

/// Libraries whose lines at level trace show what goes over the wire, passwords included.
const WIRE: [&str; 6] = ["lapin", "amq_protocol", "tokio_postgres", "rdkafka", "hyper", "h2"];

/// Logs to stderr from now on.
///
/// # Panics
/// Where the filter is none; the rule of its setting takes no such.
pub fn start(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(filter).expect("a filter that its setting's rule took");
    let stderr = std::io::stderr;
    let colours = stderr().is_terminal() && wanted(std::env::var_os("NO_COLOR").as_deref());
    tracing_subscriber::registry().with(layers(filter, format, colours, stderr)).init();
}

/// Whether colours are: not where NO_COLOR is set and not empty (no-color.org).
fn wanted(no_color: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty)
}

/// The lines that pass both filters, in this format. The fields of a line stand beside its message; those
/// of the event or request that it belongs to under `span`.
fn layers<W>(
    filter: EnvFilter,
    format: LogFormat,
    colours: bool,
    to: W,
) -> impl Layer<Registry> + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Where stderr is closed, to say so there would panic.
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Pretty => fmt::layer()
            .compact()
            .with_ansi(colours)
            .with_writer(to)
            .log_internal_errors(false)
            .boxed(),
        LogFormat::Json => {
            let json = fmt::layer().json().flatten_event(true).with_span_list(false);
            json.with_writer(to).log_internal_errors(false).boxed()
        }
    };
    let harmless = filter_fn(|line| {
        let wire = WIRE.iter().any(|library| line.target().starts_with(library));
        !(wire && *line.level() == Level::TRACE)
    });
    let harmless = harmless.with_max_level_hint(LevelFilter::TRACE);
    lines.with_filter(harmless).with_filter(filter)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing::subscriber::with_default;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: LogFormat, lines: impl FnOnce()) -> String {
        let kept = Kept::default();
        let to = kept.clone();
        let layers = layers(EnvFilter::new(filter), format, false, move || to.clone());
        with_default(tracing_subscriber::registry().with(layers), lines);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn a_line() {
        let span = tracing::error_span!("event", correlationId = "o-1", eventId = "e-1");
        span.in_scope(|| tracing::warn!(code = "bad_payload", "dead letter"));
    }

    #[test]
    fn json_is_one_object_a_line_with_stable_names() {
        let text = logged("warn", LogFormat::Json, a_line);
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        for (name, value) in
            [("level", "WARN"), ("message", "dead letter"), ("code", "bad_payload")]
        {
            assert_eq!(line[name], value, "{text}");
        }
        assert!(line["timestamp"].is_string() && line["target"].is_string(), "{text}");
        assert_eq!(line["span"]["correlationId"], "o-1", "{text}");
        assert_eq!(line["span"]["eventId"], "e-1", "{text}");
    }

    #[test]
    fn lines_for_people_have_the_ids_too() {
        let text = logged("warn", LogFormat::Pretty, a_line);
        assert!(text.contains("dead letter") && text.contains("correlationId=\"o-1\""), "{text}");
    }

    #[test]
    fn colours_are_not_for_those_who_want_none() {
        for (no_color, colours) in [(None, true), (Some(""), true), (Some("1"), false)] {
            assert_eq!(wanted(no_color.map(OsStr::new)), colours, "{no_color:?}");
        }
    }

    #[test]
    fn what_goes_over_the_wire_is_not_logged() {
        let text = logged("trace", LogFormat::Json, || {
            tracing::trace!(target: "lapin::channels", frame = "hunter2", "will handle frame");
            tracing::debug!(target: "lapin::channels", "create channel");
            tracing::trace!(target: "shakedown_chassis::relay", "round");
        });
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("create channel") && text.contains("round"), "{text}");
    }
}
