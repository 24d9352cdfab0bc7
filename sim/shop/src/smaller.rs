//! How a workload is made smaller: one part less at a time. Never a part that others name.

use contract::Service;
use sim_engine::Smaller;

use crate::workload::Workload;

/// Each way to leave something out, the largest parts first.
pub fn smaller(workload: &Workload) -> Vec<Smaller<Workload>> {
    let mut all = Vec::new();
    let mut without = |what: String, change: &dyn Fn(&mut Workload)| {
        let mut smaller = workload.clone();
        change(&mut smaller);
        if smaller != *workload {
            all.push(Smaller { without: what, workload: smaller });
        }
    };
    let half = workload.orders.len() / 2;
    if half > 1 {
        without("the first half of the orders".into(), &|w| drop(w.orders.drain(..half)));
        without("the second half of the orders".into(), &|w| w.orders.truncate(half));
    }
    without("all poison".into(), &|w| w.poisons.clear());
    without("all new prices".into(), &|w| w.prices.clear());
    without("all price lists".into(), &|w| w.price_lists.clear());
    without("all imports".into(), &|w| w.imports.clear());
    without("all that is written off".into(), &|w| w.write_offs.clear());
    without("all walk-ins".into(), &|w| w.walk_ins = 0);
    without("all strays".into(), &|w| w.strays = 0);
    without("refused mails".into(), &|w| w.refuses_mail = false);
    without("long refusals".into(), &|w| w.wordy_gateway = false);
    without("narrow queues".into(), &|w| w.narrow = false);
    without("the visitor".into(), &|w| w.visited = false);
    without("all upgrades".into(), &|w| w.upgrades.clear());
    without("retention".into(), &|w| w.retention = None);
    without("the auditor".into(), &|w| w.audited = false);
    for (i, order) in workload.orders.iter().enumerate() {
        without(format!("order {}", order.name), &|w| drop(w.orders.remove(i)));
    }
    for (i, poison) in workload.poisons.iter().enumerate() {
        without(format!("poison on {}", poison.stream), &|w| drop(w.poisons.remove(i)));
    }
    for (i, price) in workload.prices.iter().enumerate() {
        without(format!("a price of {}", price.product), &|w| drop(w.prices.remove(i)));
    }
    for (i, import) in workload.imports.iter().enumerate() {
        without(format!("import {}", import.name), &|w| drop(w.imports.remove(i)));
    }
    for (i, write_off) in workload.write_offs.iter().enumerate() {
        without(format!("write-off {}", write_off.name), &|w| drop(w.write_offs.remove(i)));
    }
    for (i, upgrade) in workload.upgrades.iter().enumerate() {
        without(format!("the upgrade of {}", upgrade.node), &|w| drop(w.upgrades.remove(i)));
    }
    for service in Service::ALL {
        let name = service.name();
        if workload.instances.get(name).is_some_and(|count| *count > 1) {
            without(format!("an instance of {name}"), &|w| {
                w.instances.entry(name.to_owned()).and_modify(|count| *count -= 1);
            });
        }
    }
    for (i, order) in workload.orders.iter().enumerate() {
        let name = &order.name;
        if order.lines.len() > 1 {
            without(format!("all lines of {name} but one"), &|w| w.orders[i].lines.truncate(1));
        }
        without(format!("the cancelling of {name}"), &|w| w.orders[i].cancel_after_ms = None);
        without(format!("the follower of {name}"), &|w| w.orders[i].followed = false);
        without(format!("the resend of {name}"), &|w| w.orders[i].resend_after_ms = None);
        without(format!("the stuck hold of {name}"), &|w| w.orders[i].hold_is_stuck = false);
        without(format!("the repeat of {name}"), &|w| w.orders[i].again_after_ms = None);
        without(format!("the reused key of {name}"), &|w| w.orders[i].reuses_key = false);
    }
    all
}
