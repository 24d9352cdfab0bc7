//! The command line on the toy: what it says of clean worlds, of failures and of stale plans.

use std::ops::Range;

use super::args::{RunArgs, Shard};
use super::find::json;
use super::replay::{replay, report, stale_words};
use super::sweep::Sweep;
use super::{find, list};
use crate::fault::FaultKind;
use crate::runner::{run_plan, stale};
use crate::system::{Plan, System};
use crate::toy::{PANICS, Sends, Toy};

pub(super) fn args(seeds: Range<u64>) -> RunArgs {
    RunArgs {
        seeds: Some(seeds),
        jobs: Some(2),
        shard: Shard { index: 1, count: 1 },
        time: None,
        once: false,
        keep_going: false,
        profile: None,
        plan: None,
        json: None,
        hashes: None,
    }
}

fn run(args: RunArgs) -> Result<bool, String> {
    Sweep::new(&Toy, args).and_then(Sweep::run).map_err(|wrong| wrong.to_string())
}

#[test]
fn clean_worlds_are_clean_and_the_summary_is_written() {
    let file = std::env::temp_dir().join(format!("toy-summary-{}.json", std::process::id()));
    assert_eq!(run(RunArgs { json: Some(file.clone()), ..args(0..6) }), Ok(true));
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    std::fs::remove_file(file).unwrap();
    assert_eq!((&json["worlds"], &json["marks"]["kept"]), (&6.into(), &36.into()));
    assert_eq!(json["faults"]["slow @ produce"]["masked"], 6);
    assert_eq!(json["worst_bound_used"]["share"], 0.25);
}

#[test]
fn a_path_that_cannot_be_written_is_known_before_the_first_world() {
    let path = || Some(std::path::PathBuf::from("/dev/null/summary"));
    for args in [RunArgs { json: path(), ..args(0..6) }, RunArgs { hashes: path(), ..args(0..6) }] {
        let wrong = Sweep::new(&Toy, args).err().expect("nothing can be in there").to_string();
        assert!(wrong.contains(" cannot be written to /dev/null/summary: "), "{wrong}");
    }
}

#[test]
fn a_failure_is_made_small_and_kept_with_its_page() {
    assert_eq!(run(args(5..9)), Ok(false));
    let kept = |name: &str| std::fs::read_to_string(Toy.failures().join(name)).unwrap();
    let small: Plan<Sends> = serde_json::from_str(&kept("6.plan.json")).unwrap();
    assert_eq!((small.workload.numbers, small.faults), (vec![3], vec![]));
    let original: Plan<Sends> = serde_json::from_str(&kept("6.original.plan.json")).unwrap();
    assert_eq!(original, Toy.plan(6));
    assert!(kept("6.txt").starts_with("FAILED  numbers.kept        seed 6"));
    let again = Toy.failures().join("6.plan.json").display().to_string();
    let reproduce = format!("reproduce   cargo sim replay {again} --only number-3");
    assert!(kept("6.txt").contains(&reproduce));
    assert!(kept("6.html").contains("</html>"));
    assert_eq!(replay(&Toy, &again, None, None).ok(), Some(false), "and it fails again");
    std::fs::remove_dir_all(Toy.failures()).unwrap();
}

#[test]
fn time_ends_a_run_without_an_end() {
    let time = Some(std::time::Duration::from_millis(300));
    assert_eq!(
        run(RunArgs { time, shard: Shard { index: 1, count: 7 }, ..args(0..u64::MAX) }),
        Ok(true)
    );
    let error = run(args(0..u64::MAX)).unwrap_err();
    assert!(error.contains("need --for"), "{error}");
}

#[test]
fn a_stored_plan_is_stale_if_a_fault_of_it_meets_nothing() {
    let file = std::env::temp_dir().join(format!("toy-plan-{}.json", std::process::id()));
    let name = file.display().to_string();
    let mut plan = Toy.plan(1);
    std::fs::write(&file, json(&plan)).unwrap();
    assert_eq!(replay(&Toy, &name, None, None).ok(), Some(false));
    let stored = || RunArgs { seeds: None, plan: Some(name.clone()), ..args(0..1) };
    let summary = std::env::temp_dir().join(format!("toy-stale-{}.json", std::process::id()));
    assert_eq!(run(RunArgs { json: Some(summary.clone()), ..stored() }), Ok(false));
    let read: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&summary).unwrap()).unwrap();
    std::fs::remove_file(summary).unwrap();
    assert_eq!(read["clean"], false);
    assert_eq!(read["stale"][0], "slow writer @ produce 1000 for 30 ms");
    let full = || Some("/dev/full".into());
    assert_eq!(run(RunArgs { json: full(), ..stored() }), Ok(false), "that hides nothing");
    let wrong = run(RunArgs { json: full(), ..args(0..1) }).unwrap_err();
    assert!(wrong.starts_with("the summary cannot be written to /dev/full: "), "{wrong}");
    let stale = stale(&plan, &run_plan(&Toy, &plan));
    let words = "STALE  x: 1 of its faults and choices met nothing\n  slow writer @ produce 1000 for 30 ms\n";
    assert!(stale_words("x", &stale).starts_with(words));
    plan.faults.pop();
    std::fs::write(&file, json(&plan)).unwrap();
    assert_eq!(replay(&Toy, &name, None, None).ok(), Some(true));
    assert_eq!(run(stored()), Ok(true));
    std::fs::remove_file(file).unwrap();
    // A seed's faults are aimed by chance: they may miss.
    assert_eq!(replay(&Toy, "1", None, None).ok(), Some(true));
}

#[test]
fn a_world_that_does_not_come_to_its_end_is_not_stale_and_has_no_page() {
    let name = |what: &str| format!("toy-{what}-{}", std::process::id());
    let file = std::env::temp_dir().join(name("panic.json"));
    let page = std::env::temp_dir().join(name("panic.html"));
    let mut plan = Toy.plan(1);
    plan.workload.lost = Some(PANICS);
    std::fs::write(&file, json(&plan)).unwrap();
    let run = run_plan(&Toy, &plan);
    assert!(run.verdict.breaks("world.panic"));
    assert_eq!(stale(&plan, &run), [""; 0], "nobody knows what met");
    assert_eq!(report(&Toy, &file.display().to_string(), None, &page).ok(), Some(false));
    assert!(!page.exists());
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_plan_that_is_not_legal_is_refused_with_what_is_wrong() {
    let name = |what: &str| format!("toy-{what}-{}", std::process::id());
    let file = std::env::temp_dir().join(name("illegal.json"));
    let page = std::env::temp_dir().join(name("illegal.html"));
    let mut plan = Toy.plan(1);
    plan.faults[0].kind = FaultKind::Deadlock;
    std::fs::write(&file, json(&plan)).unwrap();
    let what = file.display().to_string();
    for wrong in [
        replay(&Toy, &what, None, None).err().map(|wrong| wrong.to_string()),
        report(&Toy, &what, None, &page).err().map(|wrong| wrong.to_string()),
        run(RunArgs { seeds: None, plan: Some(what.clone()), ..args(0..1) }).err(),
    ] {
        let wrong = wrong.expect("it is refused");
        assert!(wrong.contains("deadlock writer @ produce 1 for 30 ms: this fault is not legal"));
        assert!(wrong.contains("`cargo sim list` names where"), "{wrong}");
    }
    assert!(!page.exists());
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_seed_is_no_plan_and_what_to_write_instead_is_taken() {
    let error = run(RunArgs { seeds: None, plan: Some("7".into()), ..args(0..1) }).unwrap_err();
    assert_eq!(error, "--plan is for files; try --seeds 7..8");
}

#[test]
fn a_world_is_found_by_seed_and_by_name_and_nothing_else_is_guessed() {
    let seed = find::world(&Toy, "6", None).ok().unwrap();
    let scenario = find::world(&Toy, "numbers.lost", None).ok().unwrap();
    assert_eq!((seed.stored, scenario.stored), (false, true));
    assert_eq!(seed.plan, scenario.plan);
    let wrong = find::world(&Toy, "numbers", None).err().unwrap().to_string();
    assert!(wrong.contains("`cargo sim list` names what there is"), "{wrong}");
    let wrong = find::world(&Toy, "6", Some("wild")).err().unwrap().to_string();
    assert_eq!(wrong, "no profile \"wild\"; there is default");
}

#[test]
fn the_list_names_scenarios_and_where_faults_are_legal() {
    let list = list::list(&Toy);
    assert!(
        list.contains(
            "  numbers.lost\n      a lost number is noticed\n      snapshots/numbers.snap"
        )
    );
    assert!(list.contains("  cut              every call but http, outside\n"), "{list}");
}
