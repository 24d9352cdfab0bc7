//! The data folder: whether it can be written, whether somebody uses it, and whether this program can open what is in
//! it. Leaves nothing behind.

use std::path::Path;

use contract::{Service, Stream, Streams};
use local::folder;
use ports::{Fault, Outcome, Shard, TopicSpec};
use tempfile::NamedTempFile;

use super::databases::{next, tables};
use super::finding::{Finding, Verdict};
use crate::config::Config;
use crate::gateway_journal::JournaledGateway;
use crate::shop::other_shards;

const AREA: &str = "data folder";

/// Of local mode: databases and brokers are in it.
pub fn local(config: &Config) -> Vec<Finding> {
    let dir = config.data_dir.value.as_path();
    let mut findings = outside(config);
    if !dir.exists() {
        return findings;
    }
    findings.push(match folder::in_use(dir) {
        Ok(false) => Finding::ok(AREA, "nobody uses it"),
        Ok(true) => Finding::warn(
            AREA,
            "a process uses it",
            "nothing, if that is your `shakedown serve`; else stop it, or choose another --data-dir",
        ),
        Err(error) => Finding::fail(AREA, format!("its lock: {error}"), "mend its rights"),
    });
    let mut opened = Vec::new();
    let databases =
        Service::ALL.map(|service| (service.name(), database(dir, service, config.shards.value)));
    let journal = journal(dir, config.partitions.value);
    for (name, found) in [("brokers", journal)].into_iter().chain(databases) {
        match found {
            Ok(true) => opened.push(name),
            Ok(false) => {}
            Err(fault) => findings.push(Finding::fail(AREA, fault.to_string(), next(&fault))),
        }
    }
    if !opened.is_empty() {
        findings.push(Finding::ok(AREA, format!("can open {}", opened.join(", "))));
    }
    findings
}

/// Whether the brokers' file is there. `Refused` where a start refuses it.
fn journal(dir: &Path, partitions: i32) -> Outcome<bool> {
    let Some(topics) = folder::journal(dir)? else { return Ok(false) };
    let streams = Streams::default();
    for TopicSpec { name, partitions: count } in topics {
        let ours = Stream::ALL.into_iter().filter(|stream| stream.is_topic());
        if count != partitions && ours.map(|stream| streams.name(stream)).any(|it| it == name) {
            let wanted = TopicSpec { name, partitions };
            return Err(Fault::refused(folder::other_partitions(&wanted, count)));
        }
    }
    Ok(true)
}

/// Whether a service's database is there. `Refused` where a start refuses it.
fn database(dir: &Path, service: Service, shards: Shard) -> Outcome<bool> {
    let Some(_) = folder::database(dir, service.name(), &tables(service))? else {
        return Ok(false);
    };
    let leases = folder::written(dir, service.name(), &chassis::LEASES)?;
    let known = leases.and_then(|leases| Shard::try_from(leases).ok()).filter(|known| *known > 0);
    match other_shards(known, shards) {
        None => Ok(true),
        Some(said) => Err(Fault::refused(format!("{}: {said}", service.name()))),
    }
}

/// Of real servers: the simulated gateway's journal and the mails are in it.
pub fn outside(config: &Config) -> Vec<Finding> {
    let dir = config.data_dir.value.as_path();
    let mut findings = written(dir);
    let mails = dir.join("mails");
    if mails.exists() {
        findings.extend(written(&mails).into_iter().filter(|it| it.verdict != Verdict::Ok));
    }
    let journal = dir.join("gateway.jsonl");
    // Nobody opens it where the gateway is elsewhere.
    if config.gateway.value.is_none() && journal.exists() {
        let wrong = JournaledGateway::check(&journal).err();
        let next =
            "mend the file or take it away: without it every payment is unknown to the gateway";
        findings.extend(wrong.map(|error| Finding::fail(AREA, format!("{error:#}"), next)));
    }
    findings
}

/// Whether a folder can be written, or made.
fn written(dir: &Path) -> Vec<Finding> {
    let shown = dir.display();
    let there = dir.ancestors().find(|dir| dir.exists());
    // A bare name's last ancestor is empty: the folder that we are in.
    let there = there.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let said = match (there == dir, NamedTempFile::new_in(there)) {
        (_, Err(error)) => {
            let next = "give it to this user, or choose another --data-dir";
            return vec![Finding::fail(AREA, format!("{shown}: {error}"), next)];
        }
        (true, Ok(_)) => format!("{shown} can be written"),
        (false, Ok(_)) => format!("{shown} is not there yet and can be made"),
    };
    vec![Finding::ok(AREA, said)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_can_be_made_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        assert_eq!(written(&deep)[0].verdict, Verdict::Ok);
        assert!(!folder.path().join("a").exists(), "looking makes nothing");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(written(&file.join("a"))[0].verdict, Verdict::Fail);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
