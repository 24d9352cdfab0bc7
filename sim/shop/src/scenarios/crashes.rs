//! Each service killed at each step of its own, before the effect and between effect and reply; and
//! nodes that stand still. Never what servers do.

use contract::Service;
use sim_engine::FaultKind::{Cut, CutReplies, CutRequests, Freeze, SlowLink};
use sim_engine::Site::{
    Begin, Commit, CommitOffsets, Deliver, Outside, Produce, Publish, Read, Settle,
};

use crate::scenario::{Mishap, Scenario};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        catalog_publishes_each_price_though_it_dies_at_every_step(),
        orders_decides_once_though_it_dies_at_every_step(),
        orders_ends_an_order_once_though_it_dies_as_it_decides(),
        inventory_reserves_once_though_it_dies_at_every_step(),
        payments_charges_once_though_it_dies_at_every_step(),
        query_shows_what_was_said_though_it_dies_at_every_step(),
        a_notification_is_one_job_though_its_api_dies_at_every_step(),
        a_job_is_one_mail_though_the_worker_dies_at_every_step(),
        a_zombie_with_an_old_lease_sends_late_duplicates_only(),
        a_consumer_frozen_beyond_its_session_is_fenced(),
        an_open_transaction_of_a_frozen_node_is_nobodys_loss(),
        a_frozen_worker_loses_its_jobs_to_another(),
        one_of_two_is_cut_from_its_database(),
        a_link_cut_one_way_leaves_no_doubt_for_ever(),
        slow_links_delay_and_change_nothing(),
        a_core_recovers_while_the_others_stay_broken(),
    ]
}

fn catalog_publishes_each_price_though_it_dies_at_every_step() -> Scenario {
    let claim = "Catalog dies at each step: each price is published, in order, under one id";
    Scenario::new("crashes.catalog_at_every_step", claim)
        .reprice("tea", 100, 400)
        .reprice("tea", 900, 450)
        .order("tea", 1)
        .heal_ms(30_000)
        .crashes(Service::Catalog, Commit, "put", [3, 5])
        .crashes(Service::Catalog, Produce, "catalog.events", [2, 3])
        .crashes(Service::Catalog, Commit, "sent", [2, 3])
}

fn orders_decides_once_though_it_dies_at_every_step() -> Scenario {
    let claim = "Orders dies at each step: each order is placed, decided and published once";
    Scenario::new("crashes.orders_at_every_step", claim)
        .order("tea", 1)
        .order("declined", 1)
        .heal_ms(60_000)
        .crashes(Service::Orders, Commit, "put", [6, 8])
        .crashes(Service::Orders, Produce, "orders.events", [1, 2])
        .crashes(Service::Orders, Commit, "sent", [1, 2])
        .crashes(Service::Orders, CommitOffsets, "", [4, 5])
}

fn orders_ends_an_order_once_though_it_dies_as_it_decides() -> Scenario {
    let claim = "Orders dies around the commit that ends an order: it is ended and published once";
    Scenario::new("crashes.orders_as_it_decides", claim)
        .order("tea", 1)
        .order("cup", 1)
        .heal_ms(30_000)
        .crashes(Service::Orders, Commit, "put", [8, 15])
}

fn inventory_reserves_once_though_it_dies_at_every_step() -> Scenario {
    let claim = "Inventory dies at each step: each order's stock is reserved and settled once";
    Scenario::new("crashes.inventory_at_every_step", claim)
        .order("tea", 2)
        .order("declined", 1)
        .heal_ms(60_000)
        .crashes(Service::Inventory, Commit, "put", [6, 12])
        .crashes(Service::Inventory, Produce, "inventory.events", [1, 2])
        .crashes(Service::Inventory, Commit, "sent", [1, 2])
        .crashes(Service::Inventory, CommitOffsets, "", [1, 2])
}

fn payments_charges_once_though_it_dies_at_every_step() -> Scenario {
    let claim = "Payments dies at each step, in gateway calls too: one charge, one capture or void";
    Scenario::new("crashes.payments_at_every_step", claim)
        .stock("rare", Some(0))
        .order("tea", 1)
        .order("rare", 1)
        .heal_ms(60_000)
        .crashes(Service::Payments, Commit, "put", [3, 9])
        .crashes(Service::Payments, Outside, "", [1, 3])
        .crashes(Service::Payments, Produce, "payments.events", [1, 2])
        .crashes(Service::Payments, Commit, "sent", [1, 2])
        .crashes(Service::Payments, CommitOffsets, "", [1, 2])
}

fn query_shows_what_was_said_though_it_dies_at_every_step() -> Scenario {
    let claim = "Query dies at each step: its rows are those of every other interleaving";
    Scenario::new("crashes.query_at_every_step", claim)
        .order("tea", 1)
        .order("declined", 1)
        .heal_ms(60_000)
        .crashes(Service::Query, Commit, "put", [5, 8])
        .crashes(Service::Query, CommitOffsets, "", [4, 5])
}

fn a_notification_is_one_job_though_its_api_dies_at_every_step() -> Scenario {
    let claim = "Notifications API dies at each step: each end is one job, however often published";
    Scenario::new("crashes.notifications_api_at_every_step", claim)
        .order("tea", 1)
        .order("declined", 1)
        .heal_ms(60_000)
        .crashes(Service::NotificationsApi, Commit, "put", [4, 9])
        .crashes(Service::NotificationsApi, Publish, "notifications.jobs", [1, 2])
        .crashes(Service::NotificationsApi, Commit, "sent", [1, 2])
        .crashes(Service::NotificationsApi, CommitOffsets, "", [2, 3])
}

fn a_job_is_one_mail_though_the_worker_dies_at_every_step() -> Scenario {
    let claim =
        "the worker dies at each step: each job is one Message-ID, a copy more at most a kill";
    Scenario::new("crashes.notifications_worker_at_every_step", claim)
        .order("tea", 1)
        .order("declined", 1)
        .heal_ms(60_000)
        .crashes(Service::NotificationsWorker, Commit, "put", [1, 2])
        .crashes(Service::NotificationsWorker, Settle, "", [2, 3])
        .crashes(Service::NotificationsWorker, Outside, "", [2, 3])
}

fn a_zombie_with_an_old_lease_sends_late_duplicates_only() -> Scenario {
    let claim =
        "a relay freezes beyond its lease; awake, it repeats what the next one sent: no more";
    Scenario::new("freeze.zombie_relay", claim)
        .instances(Service::Orders, 2)
        .order("tea", 1)
        .order("cup", 1)
        .heal_ms(30_000)
        .with(Mishap::of(Freeze, Service::Orders, Produce, "").on(Service::Orders, 1).for_ms(9_000))
}

fn a_consumer_frozen_beyond_its_session_is_fenced() -> Scenario {
    let claim = "a consumer freezes with a batch in hand; another takes over, its own is fenced";
    Scenario::new("freeze.fenced_consumer", claim)
        .instances(Service::Payments, 2)
        .order("tea", 1)
        .order("cup", 1)
        .order("tea", 2)
        .heal_ms(30_000)
        .with(Mishap::of(Freeze, Service::Payments, Begin, "lock").nth(2).for_ms(9_000))
}

fn an_open_transaction_of_a_frozen_node_is_nobodys_loss() -> Scenario {
    let claim = "a node freezes in a transaction, with its locks: the others wait, then go on";
    Scenario::new("freeze.open_transaction", claim)
        .instances(Service::Inventory, 2)
        .order("tea", 1)
        .order("tea", 2)
        .heal_ms(30_000)
        .with(Mishap::of(Freeze, Service::Inventory, Commit, "put").nth(6).for_ms(9_000))
}

fn a_frozen_worker_loses_its_jobs_to_another() -> Scenario {
    let claim = "a worker freezes with a job in hand; it is redelivered, and one mail goes out";
    Scenario::new("freeze.worker_with_a_job", claim)
        .instances(Service::NotificationsWorker, 2)
        .order("tea", 1)
        .order("declined", 1)
        .heal_ms(60_000)
        .with(Mishap::of(Freeze, Service::NotificationsWorker, Settle, "").for_ms(40_000))
}

fn one_of_two_is_cut_from_its_database() -> Scenario {
    let claim = "one of two Inventories loses its database, not the log: the other does the work";
    Scenario::new("links.cut_from_the_database", claim)
        .instances(Service::Inventory, 2)
        .order("tea", 1)
        .order("cup", 1)
        .order("tea", 1)
        .heal_ms(30_000)
        .with(Mishap::of(Cut, Service::Inventory, Begin, "lock").nth(2).for_ms(9_000))
}

fn a_link_cut_one_way_leaves_no_doubt_for_ever() -> Scenario {
    let claim = "requests arrive and replies do not, or neither: what is unknown is looked up";
    Scenario::new("links.cut_one_way", claim)
        .order("tea", 1)
        .order("declined", 1)
        .heal_ms(30_000)
        .with(Mishap::of(CutReplies, Service::Payments, Commit, "put").nth(4).for_ms(3_000))
        .with(Mishap::of(CutReplies, Service::Orders, Produce, "orders.events").for_ms(3_000))
        .with(Mishap::of(CutRequests, Service::NotificationsWorker, Settle, "").for_ms(3_000))
}

fn slow_links_delay_and_change_nothing() -> Scenario {
    let claim = "slow ways to log, queue and database: orders end later, and just as well";
    Scenario::new("links.slow", claim)
        .order("tea", 1)
        .order("declined", 1)
        .with(Mishap::of(SlowLink, Service::Orders, Read, "unsent").nth(5).for_ms(6_000))
        .with(Mishap::of(SlowLink, Service::Payments, CommitOffsets, "").for_ms(6_000))
        .with(Mishap::of(SlowLink, Service::NotificationsWorker, Deliver, "").for_ms(6_000))
}

fn a_core_recovers_while_the_others_stay_broken() -> Scenario {
    let claim = "of two instances each, the first recover and finish alone; then the others wake";
    let mut scenario = Scenario::new("phases.core_first", claim).core_first().heal_ms(2_000);
    for service in Service::ALL {
        scenario = scenario.instances(service, 2);
    }
    for product in ["tea", "declined", "cup", "tea", "cup"] {
        scenario = scenario.order(product, 1);
    }
    scenario
        .with(Mishap::of(Freeze, Service::Orders, Produce, "").on(Service::Orders, 1))
        .with(Mishap::of(Freeze, Service::Payments, Begin, "lock").on(Service::Payments, 1).nth(2))
}
