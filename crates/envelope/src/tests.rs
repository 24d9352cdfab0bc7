//! The envelope on its own, with one made-up payload.

use proptest::prelude::*;

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Pinged {
    n: u32,
}
impl Payload for Pinged {
    const TYPE: &'static str = "Pinged";
    const VERSION: u32 = 1;
}

fn sealed(n: u32) -> Envelope {
    let seal = Seal {
        event_id: EventId::parse("e-1").unwrap(),
        occurred_at: parse_time("2026-01-02T03:04:05.678Z").unwrap(),
        correlation_id: CorrelationId::parse("c-1").unwrap(),
        causation_id: None,
    };
    Envelope::seal(seal, &Pinged { n })
}

fn text(n: u32) -> String {
    String::from_utf8(sealed(n).to_bytes().to_vec()).unwrap()
}

#[test]
fn travels_and_comes_back() {
    assert_eq!(
        text(7),
        r#"{"eventId":"e-1","eventType":"Pinged","eventVersion":1,"occurredAt":"2026-01-02T03:04:05.678Z","correlationId":"c-1","payload":{"n":7}}"#
    );
    let back = Envelope::read(text(7).as_bytes()).unwrap();
    assert_eq!(back.fingerprint(), sealed(7).fingerprint());
    assert_ne!(back.fingerprint(), sealed(8).fingerprint());
}

#[test]
fn refuses_what_is_no_envelope() {
    let good = text(1);
    let bad = [
        "".to_owned(),
        "{}".to_owned(),
        "[1]".to_owned(),
        // The same values without names: serde's derive alone would take it.
        r#"["e-1","Pinged",1,"2026-01-02T03:04:05.678Z","c-1",null,{"n":1}]"#.to_owned(),
        good[..good.len() - 1].to_owned(),
        format!("{good} 1"),
        good.replace("e-1", ""),
        good.replace("e-1", "has space"),
        good.replace("Pinged", ""),
        good.replace("Pinged", "Pi\\u0000ng"),
        good.replace(":1,\"occ", ":0,\"occ"),
        good.replace(":1,\"occ", ":-1,\"occ"),
        good.replace(":1,\"occ", ":4294967296,\"occ"),
        good.replace("2026-01-02T03:04:05.678Z", "yesterday"),
        good.replace("2026-01-02T03:04:05.678Z", "9999-12-31T23:59:59.999-00:01"),
        good.replace("c-1", &"c".repeat(65)),
        good.replacen('{', r#"{"eventId":"e-2","#, 1),
    ];
    for text in bad {
        assert_eq!(Envelope::read(text.as_bytes()).unwrap_err().code(), "bad_envelope", "{text}");
    }
    // No JSON, wherever it stands: RFC 8259, 8.1.
    let mut no_text = good.replacen('{', r#"{"new":"?","#, 1).into_bytes();
    no_text[8] = 0xff;
    assert_eq!(Envelope::read(&no_text).unwrap_err().code(), "bad_envelope");
    let large = Envelope::read(&vec![b' '; ENVELOPE_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(large, ReadError::TooLarge(ENVELOPE_BYTES_MAX + 1));
    assert_eq!(large.code(), "envelope_too_large");
}

#[test]
fn takes_an_envelope_of_exactly_the_limit() {
    let good = text(1);
    let padded = format!("{good}{}", " ".repeat(ENVELOPE_BYTES_MAX - good.len()));
    assert!(Envelope::read(padded.as_bytes()).is_ok());
}

#[test]
fn ignores_unknown_fields() {
    assert!(Envelope::read(text(1).replacen('{', r#"{"new":1,"#, 1).as_bytes()).is_ok());
}

#[test]
fn reads_any_offset_and_precision_and_writes_one() {
    for (given, kept) in [
        ("2026-01-02T05:04:05.6789+02:00", "2026-01-02T03:04:05.678Z"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z"),
        ("0000-01-01T00:00:00.000Z", "0000-01-01T00:00:00.000Z"),
    ] {
        let text = text(1).replace("2026-01-02T03:04:05.678Z", given);
        let back = Envelope::read(text.as_bytes()).unwrap().to_bytes();
        assert!(std::str::from_utf8(&back).unwrap().contains(kept), "{given}");
    }
}

#[test]
fn what_an_error_quotes_is_printable_and_short() {
    let quoted = printable(&format!("bad \0\n{}", "x".repeat(1_000)));
    assert!(quoted.starts_with("bad \\u{0}\\n"), "{quoted}");
    assert!(!quoted.contains(char::is_control) && quoted.len() < 220);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hexadecimal_is_the_librarys_form(number in any::<u128>()) {
        prop_assert_eq!(hexadecimal(number), format!("{number:032x}"));
    }

    #[test]
    fn an_id_is_one_to_64_visible_ascii_characters(text in "\\PC{0,70}|[ -~]{60,70}|[!-~]{0,66}") {
        let rule = (1..=64).contains(&text.len()) && text.chars().all(|c| ('!'..='~').contains(&c));
        prop_assert_eq!(EventId::parse(&text).is_ok(), rule);
    }

    #[test]
    fn whatever_is_read_is_written_and_read_again(at in 0usize..140, byte in any::<u8>()) {
        let mut bytes = text(7).into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(envelope) = Envelope::read(&bytes) {
            let again = Envelope::read(&envelope.to_bytes()).unwrap();
            prop_assert_eq!(again.to_bytes(), envelope.to_bytes());
            prop_assert_eq!(again.fingerprint(), envelope.fingerprint());
        }
    }
}
