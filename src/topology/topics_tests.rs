use super::*;
use crate::topology::row::verdict;

fn orders() -> Topic {
    wanted(&Config::defaults()).into_iter().find(|topic| &*topic.name == "orders.events").unwrap()
}

/// As it is wanted in a cluster of three, but for these settings.
fn found(topic: &Topic, other: &[(&str, &str)]) -> FoundTopic {
    let mut settings: BTreeMap<String, String> =
        topic.settings(3).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    settings.extend(other.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    FoundTopic { partitions: topic.partitions, replication: 3, settings: Some(settings) }
}

/// The rows that do not agree, as `setting found`, and the changes that may be made.
fn wrong(topic: &Topic, found: FoundTopic) -> (Vec<String>, Vec<Change>) {
    let Look { rows, changes } = compare(topic, Ok(Some(found)), 3);
    let wrong = rows.into_iter().filter(|row| row.state != State::Agrees);
    (wrong.map(|row| format!("{} {}", row.setting, row.found)).collect(), changes)
}

#[test]
fn the_catalog_is_compacted_and_the_others_keep_30_days() {
    let topics = wanted(&Config::defaults());
    let words: Vec<String> =
        topics.iter().map(|topic| format!("{}: {}", topic.name, summary(topic, 3))).collect();
    let keeps = "6 partitions, 3 copies, keeps 30 days";
    assert_eq!(
        words,
        [
            "catalog.events: 6 partitions, 3 copies, compacted".to_owned(),
            format!("orders.events: {keeps}"),
            format!("inventory.events: {keeps}"),
            format!("payments.events: {keeps}"),
        ]
    );
}

#[test]
fn what_is_as_wanted_agrees_and_asks_for_nothing() {
    let topic = orders();
    assert_eq!(wrong(&topic, found(&topic, &[])), (vec![], vec![]));
    // A broker is away: the copies are all there all the same.
    let look = compare(&topic, Ok(Some(found(&topic, &[]))), 2);
    assert_eq!((verdict(&look.rows), look.changes), (State::Agrees, vec![]));
}

/// Each setting in both directions: what may lose something is never changed.
#[test]
fn only_what_loses_nothing_is_changed() {
    let catalog = wanted(&Config::defaults()).remove(0);
    let orders = orders();
    for (topic, setting, is, safe) in [
        (&orders, "retention.ms", "3600000", true),
        (&orders, "retention.ms", "31536000000", false),
        (&orders, "retention.ms", "-1", false),
        (&orders, "min.insync.replicas", "1", true),
        (&orders, "min.insync.replicas", "3", false),
        (&orders, "cleanup.policy", "compact", false),
        (&catalog, "cleanup.policy", "delete", true),
        (&catalog, "cleanup.policy", "compact,delete", true),
        (&orders, "unclean.leader.election.enable", "true", true),
    ] {
        let (rows, changes) = wrong(topic, found(topic, &[(setting, is)]));
        assert_eq!(rows, [format!("{setting} {}", shown(setting, is))]);
        let changed: Vec<&String> = changes
            .iter()
            .flat_map(|change| match change {
                Change::SetTopic { values, .. } => values.keys().collect(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(changed.len(), usize::from(safe), "{setting} {is}: {changed:?}");
    }
}

#[test]
fn partitions_and_copies_are_shown_and_never_changed() {
    let topic = orders();
    for other in [
        FoundTopic { partitions: 3, ..found(&topic, &[]) },
        FoundTopic { partitions: 12, ..found(&topic, &[]) },
        FoundTopic { replication: 1, ..found(&topic, &[("min.insync.replicas", "1")]) },
    ] {
        let Look { rows, changes } = compare(&topic, Ok(Some(other)), 3);
        let wrong: Vec<&Row> = rows.iter().filter(|row| row.state != State::Agrees).collect();
        assert_eq!((wrong.len(), changes), (1, vec![]));
        assert!(wrong[0].next.as_ref().is_some_and(|next| next.contains("never changed here")));
    }
}

#[test]
fn what_may_not_be_read_is_unknown_and_not_changed() {
    let topic = orders();
    let hidden = FoundTopic { settings: None, ..found(&topic, &[]) };
    for found in [Ok(Some(hidden)), Err(Fault::refused("not authorised")), Err(Fault::retry("x"))] {
        let look = compare(&topic, found, 3);
        assert_eq!((verdict(&look.rows), look.changes), (State::Unknown, vec![]));
        assert!(look.rows.iter().any(|row| row.next.is_some()));
    }
}

#[test]
fn what_is_missing_is_created_as_far_as_there_are_brokers() {
    let topic = orders();
    let Look { rows, changes } = compare(&topic, Ok(None), 1);
    assert_eq!(verdict(&rows), State::Differs);
    assert_eq!(rows[0].wanted, "6 partitions, 1 copy, keeps 30 days");
    assert_eq!(changes, [Change::CreateTopic(topic, 1)]);
}

#[test]
fn ages_are_said_as_people_say_them() {
    for (ms, words) in [
        ("2592000000", "30 days"),
        ("86400000", "1 day"),
        ("5400000", "1h 30m"),
        ("-1", "without end"),
    ] {
        assert_eq!(shown("retention.ms", ms), words);
    }
    assert_eq!(shown("cleanup.policy", ""), "not set");
}
