//! How a workload is made smaller: one part less at a time. Never a part that others name.

use contract::Service;
use sim_engine::Smaller;

use crate::workload::{Workload, node};

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
            without(format!("an instance of {name}"), &|w| leave_out_instance(w, service));
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

/// Leaves out the last instance of a service, and whatever names it. Where it was of the core, the first
/// one is instead: a core has at least one of each service.
fn leave_out_instance(workload: &mut Workload, service: Service) {
    let Some(count) = workload.instances.get_mut(service.name()) else { return };
    *count -= 1;
    let (last, first) = (node(service, *count), node(service, 0));
    workload.next.retain(|node| *node != last);
    workload.upgrades.retain(|upgrade| upgrade.node != last);
    let core = &mut workload.core;
    let of_core = core.contains(&last);
    core.retain(|node| *node != last);
    if of_core && !core.contains(&first) {
        core.push(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn an_instance_goes_with_all_that_names_it() {
        let payments = Service::Payments;
        let scenario = Scenario::new("smaller.instance", "what names an instance goes with it")
            .instances(payments, 2)
            .next_release(payments)
            .upgrade(payments, 0, 100)
            .upgrade(payments, 1, 200)
            .core_first();
        let mut workload = scenario.plan().workload.clone();
        let one_less = |workload: &Workload| {
            let all = smaller(workload).into_iter();
            let mut left = all.filter(|it| it.without == "an instance of payments");
            left.next().expect("there are two").workload
        };
        let nodes = |workload: &Workload| {
            let mut nodes = [workload.core.clone(), workload.next.clone()].concat();
            nodes.extend(workload.upgrades.iter().map(|upgrade| upgrade.node.clone()));
            nodes.retain(|node| node.starts_with("payments#"));
            nodes
        };
        assert_eq!(nodes(&one_less(&workload)), ["payments#0"; 3]);
        // The other one is the core.
        let core = workload.core.iter_mut().find(|node| **node == "payments#0");
        core.expect("the core has one of each").replace_range(.., "payments#1");
        assert_eq!(nodes(&one_less(&workload)), ["payments#0"; 3]);
        workload.core.push("payments#0".to_owned());
        assert_eq!(nodes(&one_less(&workload)), ["payments#0"; 3], "once is enough");
    }
}
