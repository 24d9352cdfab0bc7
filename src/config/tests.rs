use std::time::Duration;

use super::*;

fn with(file: &str, environment: &[(&str, &str)], set: &[&str]) -> Result<Config, String> {
    let mut layers = Layers::default();
    let file = layers.add_file(Path::new("shop.toml"), file, KEYS);
    file.map_err(|wrong| wrong.join("\n"))?;
    let environment = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    layers.add_environment(environment, KEYS);
    for pair in set {
        layers.add_set(pair, KEYS)?;
    }
    Config::of(&layers)
}

#[test]
fn each_source_outranks_the_next() {
    let file = "[orders]\ndeadline = \"1m\"\ncurrency = \"USD\"\n";
    let environment = [("SHAKEDOWN_ORDERS_DEADLINE", "2m"), ("SHAKEDOWN_PARTITIONS", "")];
    let config = with(file, &environment, &["orders.deadline = 3m"]).unwrap();
    assert_eq!(config.deadline.value, Duration::from_secs(180));
    assert_eq!(config.deadline.origin.to_string(), "--set orders.deadline");
    let config = with(file, &environment, &[]).unwrap();
    assert_eq!(config.deadline.value, Duration::from_secs(120));
    assert_eq!(config.deadline.origin.to_string(), "SHAKEDOWN_ORDERS_DEADLINE");
    let config = with(file, &[], &[]).unwrap();
    assert_eq!(config.deadline.value, Duration::from_secs(60));
    assert_eq!(config.deadline.origin.to_string(), "shop.toml:2");
    assert_eq!(config.currency.origin.to_string(), "shop.toml:3");
    assert_eq!((config.partitions.value, config.partitions.origin), (6, Origin::Default));
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_to_do() {
    for (file, words) in [
        ("listen = \n", &["shop.toml:1: "][..]),
        (
            "[orders]\n\ndeadlin = \"1m\"",
            &["shop.toml:3: ", "no setting orders.deadlin", "nearest is orders.deadline"],
        ),
        ("[order]\ndeadline = \"1m\"", &["shop.toml:2: ", "nearest is orders.deadline"]),
        ("kafak = \"\"", &["shop.toml:1: ", "nearest is kafka"]),
        ("partitions = \"6\"", &["shop.toml:1: ", "partitions takes a number without quotes"]),
        ("partitions = 0", &["shop.toml:1: ", "partitions = 0", "from 1 to 1000"]),
        ("partitions = 6.5", &["partitions = 6.5", "a whole number"]),
        ("partitions = 99999999999999999999", &["99999999999999999999", "from 1 to 1000"]),
        ("profile = \"other\"", &["profile = other", "default or catalog"]),
        ("profile = true", &["profile takes text in quotes"]),
        ("profile = [\"default\"]", &["takes one value, not a list"]),
        ("[listen]\nx = 1", &["shop.toml:1: listen is a setting, not a section"]),
        ("listen = \"1\"\nlisten = \"2\"", &["shop.toml:2: "]),
        ("listen = \"here\"\nnothing = 1\n[log]\nfilter = 3", &["no setting nothing"]),
        (
            "[orders]\ncurrency = \"euro\"\n[mail]\ntimeout = \"long\"",
            &["shop.toml:2: ", "three capital", "shop.toml:4: ", "a duration from 10ms to 10m"],
        ),
        ("[orders]\nidempotency_key_required = \"yes\"", &["true or false without quotes"]),
        ("[log]\nfilter = \"shakedown=loud\"", &["a tracing filter"]),
        (
            "[mail]\nretry_first = \"10m\"",
            &["mail.retry_first (shop.toml:2) is longer than mail.retry_max (default)"],
        ),
        ("[chassis]\nidle = \"4s\"", &["more than a third of chassis.lease"]),
    ] {
        let error = with(file, &[], &[]).unwrap_err();
        for words in words {
            assert!(error.contains(words), "{file:?} gave {error:?}, without {words:?}");
        }
    }
    let error = with("", &[("SHAKEDOWN_CHASSIS_SHARDS", "many")], &[]).unwrap_err();
    assert!(error.starts_with("SHAKEDOWN_CHASSIS_SHARDS: chassis.shards = many"), "{error}");
    let error = with("", &[], &["orders.deadline"]).unwrap_err();
    assert!(error.contains("KEY=VALUE"), "{error}");
    let error = with("", &[], &["orders.dead=1s"]).unwrap_err();
    assert!(error.contains("nearest is orders.deadline"), "{error}");
}

#[test]
fn a_wrong_secret_does_not_show_its_password() {
    let error = with("rabbit = \"amqp://u:geheim@h\\n\"", &[], &[]).unwrap_err();
    assert!(error.contains("rabbit") && !error.contains("geheim"), "{error}");
}

#[test]
fn a_variable_that_is_nearly_ours_is_pointed_out() {
    let mut layers = Layers::default();
    let names = ["SHAKEDOWN_KAFAK", "SHAKEDOWN_SERVICE_HOST", "PATH", "SHAKEDOWN_URL"];
    let environment = names.map(|name| (name.to_owned(), "x".to_owned())).into_iter();
    let warnings = layers.add_environment(environment, KEYS);
    assert_eq!(warnings, ["SHAKEDOWN_KAFAK is not read; did you mean SHAKEDOWN_KAFKA?"]);
}

#[test]
fn what_is_printed_gives_the_same_configuration_again() {
    let set = ["orders.deadline=90s", "data_dir=a \"b\" \\ c", "chassis.shards=8"];
    let config = with("rabbit = \"amqp://u:geheim@h\"", &[], &set).unwrap();
    let printed = config.to_toml();
    assert!(!printed.contains("geheim") && printed.contains("amqp://u:***@h"), "{printed}");
    assert!(printed.contains("# --set orders.deadline\n"), "{printed}");
    assert!(printed.contains("# shop.toml:1\n") && printed.contains("# default\n"), "{printed}");
    let again = with(&printed, &[], &[]).unwrap();
    let values = |config: &Config| {
        config.shown().into_iter().map(|shown| (shown.key, shown.value)).collect::<Vec<_>>()
    };
    assert_eq!(values(&again), values(&config));
}

/// The table of docs/configuration.md is made of the settings themselves.
#[test]
fn the_document_has_every_setting_as_it_is() {
    let document = include_str!("../../docs/configuration.md");
    let mut missing = Vec::new();
    let rows = Config::defaults().shown();
    for Shown { key, about, allowed, default, .. } in &rows {
        let default = if default.is_empty() { "" } else { &format!("`{default}`") };
        let row = format!("| `{key}` | {default} | {allowed} | {about} |");
        if !document.lines().any(|line| line == row) {
            missing.push(row);
        }
    }
    let missing = missing.join("\n");
    assert!(missing.is_empty(), "docs/configuration.md should have:\n{missing}");
    let listed = document.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(listed, rows.len(), "docs/configuration.md lists what is not there");
    let counted = format!("of {} settings", rows.len());
    assert!(include_str!("../../docs/operations.md").contains(&counted), "docs/operations.md");
}

#[test]
fn the_defaults_are_those_of_the_services() {
    let config = Config::defaults();
    let chassis = chassis::Settings::new("orders", "one");
    let ours = config.chassis("orders", "one");
    assert_eq!(format!("{ours:?}"), format!("{chassis:?}"));
    let orders = orders::Config::default();
    assert_eq!((config.deadline.value, config.currency.value), (orders.deadline, orders.currency));
    assert_eq!(config.partitions.value, orders.partitions);
    assert_eq!(config.key_required.value, orders.key_required);
}
