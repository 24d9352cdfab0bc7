//! The services' databases: which tables they have, and whether this program can open what is there.

use contract::Service;
use ports::{Fault, Outcome, Shard, Table};
use postgres::{PostgresStore, Standing};

use super::REFUSED;
use super::finding::Finding;
use crate::config::Config;
use crate::servers::schema;
use crate::shop::other_shards;
use crate::topology::within;

const AREA: &str = "schemas";

/// Of services whose schema nobody has made, or made before versions were written down.
pub const NONE_YET: &str = "no version yet";

const BROUGHT_UP: &str = "the next start brings it up";

/// What a service keeps, without the chassis' own tables.
pub fn own_tables(service: Service) -> &'static [&'static Table] {
    match service {
        Service::Catalog => &catalog::rows::TABLES,
        Service::Orders => &orders::rows::TABLES,
        Service::Inventory => &inventory::rows::ALL,
        Service::Payments => &payments::rows::ALL,
        Service::Query => &query::rows::ALL,
        Service::NotificationsApi => &notifications_api::rows::ALL,
        Service::NotificationsWorker => &notifications_worker::rows::ALL,
    }
}

/// All tables of a service, the chassis' own first.
pub fn tables(service: Service) -> Vec<&'static Table> {
    chassis::TABLES.iter().chain(own_tables(service)).copied().collect()
}

/// What to do about a fault of a database.
pub fn next(fault: &Fault) -> &'static str {
    match fault {
        Fault::Refused(_) => REFUSED,
        Fault::Retry(_) | Fault::Unknown(_) => {
            "see what the server says; a start waits for it, or fails as it does here"
        }
    }
}

/// All schemas of a server that answers: one line where all are as they should be.
pub async fn schemas(config: &Config) -> Vec<Finding> {
    let (url, prefix) = (config.postgres.value.reveal(), config.prefix.value.as_str());
    let (mut findings, mut ready) = (Vec::new(), Vec::new());
    let mut todo = Vec::new();
    for service in Service::ALL {
        match within(look(url, prefix, service)).await {
            Ok((Standing { ready: true, version, .. }, barred, shards)) if barred.is_empty() => {
                match other_shards(shards, config.shards.value) {
                    None => ready.push((service, version)),
                    Some(said) => {
                        let said = format!("{}: {said}", service.name());
                        findings.push(Finding::fail(AREA, said, REFUSED));
                    }
                }
            }
            Ok((Standing { ready: true, .. }, barred, _)) => findings.push(Finding::fail(
                AREA,
                format!("{}: no right to read and write {}", service.name(), barred.join(", ")),
                format!(
                    "GRANT SELECT, INSERT, UPDATE, DELETE on them, and USAGE on schema {}",
                    schema(prefix, service)
                ),
            )),
            Ok((Standing { version, known, .. }, ..)) => todo.push((service, version, known)),
            Err(fault) => {
                let said = format!("{}: {fault}", service.name());
                findings.push(Finding::fail(AREA, said, next(&fault)));
            }
        }
    }
    if let Some((_, version)) = ready.first() {
        let services: Vec<&str> = ready.iter().map(|(service, _)| service.name()).collect();
        let said = format!("at version {version}: {}", services.join(", "));
        findings.insert(0, Finding::ok(AREA, said));
    }
    let of = |new: bool| todo.iter().filter(move |(_, version, _)| (*version == 0) == new);
    let absent: Vec<&str> = of(true).map(|(service, ..)| service.name()).collect();
    if !absent.is_empty() {
        let said = format!("{NONE_YET}: {}", absent.join(", "));
        findings.push(Finding::warn(AREA, said, BROUGHT_UP));
    }
    for (service, version, known) in of(false) {
        let said = match version == known {
            true => format!("{}: tables are missing", service.name()),
            false => format!("{}: at version {version}, this binary makes {known}", service.name()),
        };
        findings.push(Finding::warn(AREA, said, BROUGHT_UP));
    }
    findings
}

/// How a schema stands, which tables may not be used, and its shards.
async fn look(
    url: &str,
    prefix: &str,
    service: Service,
) -> Outcome<(Standing, Vec<String>, Option<Shard>)> {
    let store = PostgresStore::connect_with(url, &schema(prefix, service), 1).await?;
    let standing = store.standing(&tables(service)).await?;
    let barred = store.about().await?.barred;
    // Where all is there, this changes nothing.
    let shards = match standing.ready && barred.is_empty() {
        true => chassis::known_shards(&store).await?,
        false => None,
    };
    Ok((standing, barred, shards))
}
