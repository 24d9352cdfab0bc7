//! The data folder: whether it can be written, whether somebody uses it, and whether this program can open what is in
//! it. Leaves nothing behind.

use std::path::Path;

use contract::Service;
use local::folder;
use tempfile::NamedTempFile;

use super::databases::{next, tables};
use super::finding::Finding;

const AREA: &str = "data folder";

/// Of local mode: databases and brokers are in it.
pub fn local(dir: &Path) -> Vec<Finding> {
    let mut findings = outside(dir);
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
    let journal = folder::journal(dir).map(|version| version.is_some());
    let databases = Service::ALL.map(|service| {
        let found = folder::database(dir, service.name(), &tables(service));
        (service.name(), found.map(|version| version.is_some()))
    });
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

/// Of real servers: the simulated gateway's journal and the mails are in it.
pub fn outside(dir: &Path) -> Vec<Finding> {
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
    use crate::doctor::Verdict;

    #[test]
    fn a_folder_that_is_not_there_can_be_made_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        assert_eq!(outside(&deep)[0].verdict, Verdict::Ok);
        assert!(!folder.path().join("a").exists(), "looking makes nothing");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(outside(&file.join("a"))[0].verdict, Verdict::Fail);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
