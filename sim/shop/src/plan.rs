//! The world of a seed: workload and faults are drawn here, once, and are data from then on.

use contract::{CATALOG, PaymentMode, Service, Stream};
use sim_engine::{Choices, FaultKind, FaultSpec, Plan, Site, When};

use crate::forms::{self, Form};
use crate::poison::{Kind, Poison};
use crate::workload::{
    CATEGORY, Import, LATE_ENDING, Order, PriceChange, PriceList, Product, QUARRELLED, Retention,
    SOON_MS, UNKEPT, Upgrade, Workload, WriteOff, nobodys, node,
};

/// Orders of a default world.
const ORDERS: u64 = 20;
/// Pairs of price changes while they are placed.
const PRICES: u64 = 2;
/// A product that nobody orders.
const UNSOLD: &str = "unsold";
/// Faults of a default world; about two thirds meet their step.
const FAULTS: u64 = 14;

/// The default world of this seed.
pub fn draw(seed: u64) -> Plan<Workload> {
    let choices = Choices::new(seed);
    let workload = workload(&choices);
    let faults = faults(&choices, &workload);
    Plan { seed, workload, faults, choices: Vec::new() }
}

fn workload(choices: &Choices) -> Workload {
    let pick = |what: &str, below: u64| choices.below("workload", what, below);
    let mut products: Vec<Product> = (0..5)
        .map(|i| {
            let price = 100 * (1 + pick("price", 30) as i64);
            // Between too little for two orders and enough for all.
            let stock = Some([3, 6, 12, 40, 200][pick("stock", 5) as usize]);
            Product { id: format!("p{i}"), price, stock }
        })
        .collect();
    products.push(Product { id: "declined".into(), price: 1_313, stock: Some(100) });
    // Before or behind the others of an order: which of two reasons counts is not said by their places.
    let unstocked = ["unstocked", "absent"][pick("unstocked", 2) as usize];
    products.push(Product { id: unstocked.into(), price: 500, stock: None });
    products.push(Product { id: "late".into(), price: 1_000 + LATE_ENDING, stock: Some(100) });
    products.push(Product { id: "free".into(), price: 0, stock: Some(100) });
    products.push(Product { id: UNSOLD.into(), price: 700, stock: Some(100) });
    // At once, so that they wait for each other and share transactions; or one after the other.
    let within_ms = [500, 1_500, 4_000][pick("within", 3) as usize];
    let mut orders: Vec<Order> =
        (0..ORDERS).map(|i| order(choices, i, within_ms, &products)).collect();
    let mut prices: Vec<PriceChange> =
        (0..PRICES).flat_map(|_| reprice(choices, within_ms, &products)).collect();
    // Each is a request of its own, by product and time.
    let mut taken = std::collections::BTreeSet::new();
    for change in &mut prices {
        while !taken.insert((change.product.clone(), change.at_ms)) {
            change.at_ms += 1;
        }
    }
    let mut price_lists: Vec<PriceList> = (0..u64::from(pick("price list", 4) == 0))
        .map(|i| PriceList {
            name: format!("L{i}"),
            at_ms: pick("price list at", within_ms),
            lines: (0..2 + pick("price list lines", 4))
                .map(|_| {
                    let product = products[pick("priced", 2) as usize].id.clone();
                    (product, 100 * (1 + pick("list price", 30) as i64))
                })
                .collect(),
        })
        .collect();
    if pick("haggling", 8) == 0 {
        let (at_ms, product) =
            (pick("haggled at", within_ms), &products[pick("haggled", 2) as usize]);
        // More versions than have one digit.
        let lines = (0..12).map(|i| (product.id.clone(), product.price + 100 * (i % 3 + 1)));
        price_lists.push(PriceList { name: "H0".to_owned(), at_ms, lines: lines.collect() });
    }
    let mut instances = std::collections::BTreeMap::new();
    for service in Service::ALL {
        if pick("instances", 3) == 0 {
            instances.insert(service.name().to_owned(), 2);
        }
    }
    let deadline_ms = if pick("deadline", 4) == 0 { 3_000 } else { 900_000 };
    if deadline_ms < 900_000 && pick("late", 3) == 0 {
        // Its payment is not known before its deadline, whatever else happens.
        orders[0].lines = vec![("late".to_owned(), 1)];
    }
    let followed = pick("followed", ORDERS) as usize;
    orders[followed].followed = true;
    let audited = pick("audited", 4) == 0;
    let import = |i: u64| {
        let (at_ms, lines) = (pick("import at", 4_000), 1 + pick("import lines", 45) as u32);
        let spoilt = (pick("spoilt", 3) == 0).then(|| pick("spoilt at", lines.into()) as u32);
        let reuses_key = pick("import reuses key", 4) == 0;
        Import { name: format!("I{i}"), at_ms, lines, spoilt, again_after_ms: None, reuses_key }
    };
    let mut imports: Vec<Import> = (0..pick("imports", 3)).map(import).collect();
    let write_off = |i: u64| {
        let (at_ms, product) = (pick("write off at", within_ms), pick("written off", 5) as usize);
        let (product, pieces) = (products[product].id.clone(), 1 + pick("pieces", 4) as i64);
        let again_after_ms = (pick("write off again", 2) == 0).then(|| pick("after", SOON_MS));
        let reuses_key = pick("off reuses key", 3) == 0;
        WriteOff { name: format!("W{i}"), at_ms, product, pieces, again_after_ms, reuses_key }
    };
    let mut write_offs: Vec<WriteOff> = (0..pick("write offs", 3)).map(write_off).collect();
    let mut strays = u32::from(pick("strays", 4) == 0);
    let refuses_mail = pick("refuses mail", 3) == 0;
    let visited = pick("visited", 8) == 0;
    let wordy_gateway = pick("wordy", 3) == 0;
    let narrow = pick("narrow", 8) == 0;
    let mut poisons: Vec<Poison> = match pick("poisons", 2) {
        0 => Vec::new(),
        _ => (0..=pick("poisons", 4)).map(|_| poison(choices, within_ms)).collect(),
    };
    // Who asks for what nobody placed may meet what somebody else said of it.
    strays |= u32::from(poisons.iter().any(|it| it.kind == Kind::Foreign));
    // The same bytes once more are a redelivery, of which no letter speaks.
    let mut forms = std::collections::BTreeSet::new();
    poisons.retain(|it| it.form.is_none() || forms.insert(it.form.clone()));
    if !poisons.is_empty() && pick("quarrel", 4) == 0 {
        poisons.extend(quarrel(choices, within_ms));
    }
    if !poisons.is_empty() && pick("unversioned", 4) == 0 {
        poisons.extend(unversioned(choices, within_ms));
    }
    if !poisons.is_empty() && pick("unkept", 4) == 0 {
        poisons.push(stranger(Kind::Unkept, UNKEPT, pick("unkept at", within_ms + 2_000)));
    }
    let walk_ins = 2 * u32::from(pick("walk-ins", 4) == 0);
    // Long enough for what stands still beyond its session.
    let (as_written, heal_ms) = (false, within_ms + 8_000);
    let cooperative = pick("cooperative", 2) == 0;
    let commits_each = pick("commits each", 2) == 0;
    let retention = (pick("retention", 4) == 0).then(|| {
        // So seldom that all must go in one sweep.
        let seldom = pick("seldom", 6) == 0;
        Retention {
            old_rows: if seldom { 320 } else { 10 + pick("old rows", 40) as u32 },
            keep_ms: 60_000 + pick("keep", 60_000),
            every_ms: if seldom { 60_000 } else { 1_000 + pick("every", 3_000) },
            events_times: 3,
            letters: pick("old letters", 2) == 0,
        }
    });
    // Once no inbox knows it any more.
    let swept = retention.as_ref().filter(|it| it.every_ms < 10_000);
    let swept_ms = swept.map(|it| it.keep_ms + 2 * it.every_ms + 1_000);
    let mut again = false;
    if let (Some(_), Some(import), 0) = (swept_ms, imports.first_mut(), pick("again", 6)) {
        (import.again_after_ms, again) = (swept_ms, true);
    }
    if let (Some(_), Some(first), 0) = (swept_ms, write_offs.first_mut(), pick("off again", 6)) {
        (first.again_after_ms, again) = (swept_ms, true);
    }
    let put_up_in_bulk = pick("bulk", 4) > 0;
    let mut workload = Workload {
        as_written,
        instances,
        cooperative,
        commits_each,
        retention,
        products,
        put_up_in_bulk,
        prices,
        price_lists,
        poisons,
        orders,
        imports,
        write_offs,
        walk_ins,
        strays,
        refuses_mail,
        wordy_gateway,
        narrow,
        visited,
        audited,
        next: Vec::new(),
        upgrades: Vec::new(),
        deadline_ms,
        heal_ms,
        core: Vec::new(),
    };
    // While something is sent after so long, nobody stays broken: it would repeat what no inbox knows any
    // more.
    if pick("core", 2) == 0 && !again {
        let one = |service: Service| node(service, pick("core", workload.count(service)) as u32);
        workload.core = Service::ALL.into_iter().map(one).collect();
    }
    if pick("release", 3) == 0 {
        release(choices, &mut workload);
    }
    workload
}

/// A rolling upgrade, to a release with a new version of OrderCreated. As it should be: whoever reads it
/// goes first, in any order, some long before. In haste: whoever writes it goes first, and what dies of
/// it is redriven when its readers can read it.
fn release(choices: &Choices, workload: &mut Workload) {
    const HALF_MS: u64 = 2_000;
    let pick = |what: &str, below: u64| choices.below("release", what, below);
    let haste = pick("haste", 3) == 0;
    let (read_ms, write_ms) = if haste { (HALF_MS, 0) } else { (0, HALF_MS) };
    for service in [Service::Inventory, Service::Payments, Service::Query] {
        for node in workload.nodes(service) {
            if !haste && pick("already", 4) == 0 {
                workload.next.push(node);
                continue;
            }
            let at_ms = read_ms + pick("read", HALF_MS);
            workload.upgrades.push(Upgrade { node, at_ms });
        }
    }
    for node in workload.nodes(Service::Orders) {
        let at_ms = write_ms + pick("write", HALF_MS);
        workload.upgrades.push(Upgrade { node, at_ms });
    }
}

/// What a stranger plants. What copies a record does so where orders have some.
fn poison(choices: &Choices, within_ms: u64) -> Poison {
    let pick = |what: &str, below: u64| choices.below("poison", what, below);
    let at_ms = pick("at", within_ms + 2_000);
    // The first eight; the others take the place of one in half of its cases.
    let kind = match Kind::ALL[pick("kind", 8) as usize] {
        Kind::SameFact if pick("another", 2) == 0 => Kind::OtherAmount,
        Kind::UnknownType if pick("another", 2) == 0 => Kind::Foreign,
        // Its letters are as large, and cost as much as a tenth of a world.
        Kind::TooLarge if pick("large", 8) != 0 => Kind::Garbage,
        kind => kind,
    };
    if kind == Kind::Invalid {
        // The next release reads that one.
        let upcast = |form: &&Form| form.name != "unsupported_version.OrderCreated.version_2";
        let forms: Vec<&Form> = forms::ALL.iter().filter(upcast).collect();
        let form = forms[pick("form", forms.len() as u64) as usize];
        let row = CATALOG.iter().find(|row| row.event == form.event_type());
        let stream = row.map_or("", |row| row.stream.name()).to_owned();
        let (order, form) = (format!("A{}", pick("order", ORDERS)), Some(form.name.to_owned()));
        return Poison { at_ms, kind, stream, order, mend: false, form, again_after_ms: None };
    }
    let streams = match kind {
        // On a queue the copy may be handled ahead of what it was made from, and the id is then its own.
        Kind::ReusedId => &Stream::ALL[1..4],
        Kind::OtherAmount | Kind::Foreign => &[Stream::OrdersEvents],
        kind if kind.copies() => &Stream::ALL[1..],
        _ => &Stream::ALL[..],
    };
    let stream = streams[pick("stream", streams.len() as u64) as usize].name().to_owned();
    let order = match kind {
        Kind::Foreign => nobodys(0),
        _ => format!("A{}", pick("order", ORDERS)),
    };
    let known = matches!(kind, Kind::HigherVersion | Kind::BadPayload | Kind::OtherAmount);
    let again_after_ms = (known && pick("again", 3) == 0).then(|| 8_000 + pick("after", 8_000));
    Poison { at_ms, kind, stream, order, mend: pick("mend", 2) == 0, form: None, again_after_ms }
}

/// What one says of an order that nobody placed.
fn stranger(kind: Kind, order: u32, at_ms: u64) -> Poison {
    let (stream, order) = (Stream::OrdersEvents.name().to_owned(), nobodys(order));
    Poison { at_ms, kind, stream, order, mend: false, form: None, again_after_ms: None }
}

/// The ends of an order that nobody else knows, of which the second contradicts; and, now and then, the order
/// itself, ahead of them, between or behind.
fn quarrel(choices: &Choices, within_ms: u64) -> Vec<Poison> {
    let pick = |what: &str, below: u64| choices.below("quarrel", what, below);
    let ends = match pick("first", 2) {
        0 => [Kind::Confirmed, Kind::Cancelled],
        _ => [Kind::Cancelled, Kind::Confirmed],
    };
    let ends = [ends[0], ends[1], ends[pick("third", 2) as usize]];
    let mut at_ms = pick("at", within_ms);
    let placed = (pick("placed", 2) == 0).then(|| at_ms + pick("placed at", 2_400));
    let placed = placed.map(|at_ms| stranger(Kind::Foreign, QUARRELLED, at_ms));
    let ends = ends.map(|kind| {
        at_ms += 1 + pick("gap", 800);
        stranger(kind, QUARRELLED, at_ms)
    });
    ends.into_iter().chain(placed).collect()
}

/// What two strangers say of a product that the catalog does not have.
fn unversioned(choices: &Choices, within_ms: u64) -> [Poison; 2] {
    let pick = |what: &str| choices.below("unversioned", what, within_ms + 2_000);
    ["one", "other"].map(|which| Poison {
        at_ms: pick(which),
        kind: Kind::Unversioned,
        stream: Stream::CatalogEvents.name().to_owned(),
        order: "strange".to_owned(),
        mend: false,
        form: None,
        again_after_ms: None,
    })
}

/// Two changes of a product, shortly one after the other. One that nobody orders may lose its price: who
/// orders what has none waits until it has one.
fn reprice(choices: &Choices, within_ms: u64, products: &[Product]) -> [PriceChange; 2] {
    let pick = |what: &str, below: u64| choices.below("reprice", what, below);
    let unsold = || products.iter().find(|product| product.id == UNSOLD);
    let product = match pick("product", 3) as usize {
        2 => unsold().expect("it is for sale"),
        sold => &products[sold],
    };
    let (first_ms, looks) = (pick("at", within_ms), pick("looks", 3) == 0);
    [first_ms, first_ms + 1 + pick("gap", 60)].map(|at_ms| {
        let price = match pick("sort", 4) {
            0 => Some(product.price),
            1 if product.id == UNSOLD => None,
            _ => Some(100 * (1 + pick("price", 30) as i64)),
        };
        let category = [CATEGORY, "toys", "tools"][pick("category", 3) as usize];
        let category = (category != CATEGORY).then(|| category.to_owned());
        let creates = !looks && pick("creates", 8) == 0;
        let reuses_key = pick("reuses key", 4) == 0;
        let product = product.id.clone();
        PriceChange { product, at_ms, price, category, looks, creates, reuses_key }
    })
}

fn order(choices: &Choices, i: u64, within_ms: u64, products: &[Product]) -> Order {
    let pick = |what: &str, below: u64| choices.below("order", what, below);
    let mode = match pick("mode", 10) {
        0 | 1 => PaymentMode::AfterStock,
        2 => PaymentMode::None,
        _ => PaymentMode::Parallel,
    };
    let lines = match pick("sort", 20) {
        0 | 1 => vec![("declined".to_owned(), 1)],
        2 | 3 => {
            let unstocked = products.iter().find(|product| product.stock.is_none());
            let unstocked = unstocked.expect("one was never adjusted").id.clone();
            vec![("p0".to_owned(), 1), (unstocked, 1)]
        }
        4 => vec![("free".to_owned(), 1)],
        _ => (0..=pick("lines", 3))
            .map(|_| {
                let product = &products[pick("product", 5) as usize];
                (product.id.clone(), 1 + pick("qty", 3) as u32)
            })
            .collect(),
    };
    let cancel_after_ms = (pick("cancel", 8) == 0).then(|| pick("cancel after", 400));
    let (name, at_ms) = (format!("A{i}"), pick("at", within_ms));
    let resend_after_ms = (pick("resend", 8) == 0).then(|| pick("resend after", 6_000));
    let insists = resend_after_ms.is_some() && pick("insists", 16) == 0;
    let again_after_ms = (pick("again", 16) == 0).then(|| pick("again after", 4_000));
    Order {
        name,
        at_ms,
        lines,
        mode,
        cancel_after_ms,
        followed: false,
        resend_after_ms,
        insists,
        reuses_key: pick("reuses key", 16) == 0,
        one_key: pick("one key", 3) == 0,
        from_cart: pick("from cart", 3) == 0,
        hold_is_stuck: pick("stuck", 30) == 0,
        again_after_ms,
    }
}

/// The calls that nodes of this service make.
fn sites(service: Service) -> &'static [Site] {
    use Site::{
        Begin, Commit, CommitOffsets, Consume, Deliver, Http, Outside, Poll, Produce, Publish,
        Read, Run, Settle, Subscribe,
    };
    match service {
        Service::Catalog => &[Begin, Commit, Commit, Read, Produce, Produce, Http],
        Service::Orders => {
            &[Begin, Commit, Commit, Read, Produce, Produce, Poll, CommitOffsets, Subscribe, Http]
        }
        Service::Inventory => &[
            Begin,
            Commit,
            Commit,
            Run,
            Run,
            Read,
            Produce,
            Produce,
            Poll,
            CommitOffsets,
            Subscribe,
            Http,
        ],
        Service::Payments => &[
            Begin,
            Commit,
            Commit,
            Produce,
            Poll,
            CommitOffsets,
            Subscribe,
            Outside,
            Outside,
            Read,
        ],
        Service::Query => &[Begin, Commit, Poll, CommitOffsets, Subscribe, Read, Http],
        Service::NotificationsApi => {
            &[Begin, Commit, Poll, CommitOffsets, Subscribe, Publish, Publish, Read]
        }
        Service::NotificationsWorker => {
            &[Begin, Commit, Read, Consume, Deliver, Deliver, Settle, Settle, Outside, Outside]
        }
    }
}

/// What is drawn somewhere: each kind at each site where it is legal and that a service reaches, and
/// at any instant.
pub fn cells() -> Vec<(FaultKind, Option<Site>)> {
    let reached = |site: &Site| Service::ALL.iter().any(|it| sites(*it).contains(site));
    let of_kind = |kind: FaultKind| {
        let legal = move |site: &Site| kind.legal(*site);
        let sites = Site::ALL.into_iter().filter(reached).filter(legal);
        sites.map(Some).chain(kind.any_instant().then_some(None)).map(move |site| (kind, site))
    };
    FaultKind::ALL.into_iter().flat_map(of_kind).collect()
}

/// How many calls of a site a node makes while orders run, roughly: faults are aimed within.
fn reach(site: Site) -> u64 {
    match site {
        Site::Subscribe | Site::Consume => 2,
        Site::Begin | Site::Commit => 40,
        Site::Run => 20,
        Site::Read => 40,
        Site::Produce | Site::Poll | Site::CommitOffsets => 18,
        Site::Publish | Site::Deliver | Site::Settle => 10,
        Site::Http | Site::Outside => 16,
    }
}

fn faults(choices: &Choices, workload: &Workload) -> Vec<FaultSpec> {
    let pick = |what: &str, below: u64| choices.below("faults", what, below);
    // Swarm: each world does without some kinds, so that the others meet in more ways.
    let kinds: Vec<FaultKind> =
        FaultKind::ALL.into_iter().filter(|_| pick("swarm", 3) > 0).collect();
    if kinds.is_empty() {
        return Vec::new();
    }
    // What goes wrong seldom goes wrong once, nor at the other end of the house: in a part of the worlds
    // faults come in a row, and in a part of those to one service.
    let bursts = pick("bursts", 4) == 0;
    let only = (bursts && pick("one service", 2) == 0).then(|| pick("service", 7));
    let mut faults: Vec<FaultSpec> = Vec::new();
    while (faults.len() as u64) < FAULTS {
        let kind = kinds[pick("kind", kinds.len() as u64) as usize];
        let service = Service::ALL[only.unwrap_or_else(|| pick("service", 7)) as usize];
        let instances = workload.nodes(service).len() as u64;
        let node = node(service, pick("instance", instances) as u32);
        // Now and then longer than the group's session, so that partitions move.
        let for_ms = match pick("long", if kind == FaultKind::Freeze { 2 } else { 6 }) {
            0 => 7_000 + pick("for", 3_000),
            _ => 20 + pick("for", 2_500),
        };
        let times = if bursts && pick("burst", 4) == 0 { 3 + pick("times", 6) } else { 1 };
        let whens: Vec<When> = if kind.any_instant() && pick("any instant", 4) == 0 {
            let end_ms = workload.heal_ms - 3_500;
            let (first_ms, every_ms) = (500 + pick("at", end_ms - 500), 100 + pick("every", 1_000));
            let at_ms = (0..times).map(|i| first_ms + i * every_ms);
            at_ms.take_while(|ms| *ms < end_ms).map(When::AtMs).collect()
        } else {
            let sites = sites(service);
            let site = sites[pick("site", sites.len() as u64) as usize];
            let groupless = matches!(service, Service::Catalog | Service::NotificationsWorker);
            if !kind.legal(site) || kind == FaultKind::Rebalance && groupless {
                continue;
            }
            let first = 1 + pick("nth", reach(site));
            (first..first + times).map(|nth| When::Call { site, nth }).collect()
        };
        faults.extend(whens.into_iter().map(|when| FaultSpec {
            kind,
            node: node.clone(),
            when,
            for_ms,
        }));
    }
    if pick("rolling", 6) == 0 {
        let (first_ms, every_ms) = (500 + pick("rolling from", 3_000), 200 + pick("every", 600));
        faults.extend(rolling_restart(workload, first_ms, every_ms));
    }
    faults
}

/// Each instance of each service is asked to leave, one after the other, and starts again: the
/// instances of a service never all at once.
pub fn rolling_restart(workload: &Workload, first_ms: u64, every_ms: u64) -> Vec<FaultSpec> {
    let nodes = Service::ALL.into_iter().flat_map(|service| workload.nodes(service));
    let leave = |(i, node)| FaultSpec {
        kind: FaultKind::Leave,
        node,
        when: When::AtMs(first_ms + every_ms * i as u64),
        for_ms: every_ms / 2,
    };
    nodes.enumerate().map(leave).collect()
}
