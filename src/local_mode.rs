//! Local mode: everything in one process, on files of one folder, with nothing to install. For demos
//! and development. It opens no socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use chassis::Ports;
use contract::{Service, Streams};
use local::{Local, TokioRuntime};
use notifications_worker::eml::EmlFolder;
use payments::gateway::Gateway;
use payments::simulated::Steering;
use ports::Runtime;
use tokio::runtime::Handle;

use crate::config::Config;
use crate::gateway_journal::JournaledGateway;
use crate::outside_http;
use crate::shop::{Outside, Setup, Shop, run_all};

/// Says what this is, at start.
pub const NOTICE: &str = "local mode: models of Kafka and RabbitMQ and SQLite files, for demos and \
                          development; not for production";

/// The services on a folder.
pub struct LocalMode {
    /// The running services.
    pub shop: Shop,
    /// The simulated gateway, whose books can be read.
    pub gateway: Arc<JournaledGateway>,
    /// Where mails go, one `.eml` file a copy sent.
    pub mails: PathBuf,
}

/// What is outside the shop on this machine: a simulated gateway with its journal, and a folder of
/// mails.
pub fn outside(
    folder: &Path,
    steering: Steering,
) -> anyhow::Result<(Outside, Arc<JournaledGateway>, PathBuf)> {
    // The folder first: the journal is in it.
    let mails = mails(folder)?;
    let gateway = Arc::new(JournaledGateway::open(&folder.join("gateway.jsonl"), steering)?);
    let sink = Arc::new(mailbox(&mails)?);
    let books = outside_http::gateway(gateway.clone()).merge(outside_http::mailbox(mails.clone()));
    Ok((Outside { gateway: gateway.clone(), mails: sink, books }, gateway, mails))
}

/// The same with a gateway that keeps its books elsewhere.
pub fn with_gateway(folder: &Path, gateway: impl Gateway) -> anyhow::Result<Outside> {
    let mails = mails(folder)?;
    let sink = Arc::new(mailbox(&mails)?);
    Ok(Outside { gateway: Arc::new(gateway), mails: sink, books: outside_http::mailbox(mails) })
}

fn mails(folder: &Path) -> anyhow::Result<PathBuf> {
    let mails = folder.join("mails");
    std::fs::create_dir_all(&mails).with_context(|| format!("the folder {}", mails.display()))?;
    Ok(mails)
}

fn mailbox(mails: &Path) -> anyhow::Result<EmlFolder> {
    EmlFolder::open(mails).with_context(|| format!("the folder {}", mails.display()))
}

/// The runtime port of this process. Call it on a multi-threaded tokio runtime.
pub fn runtime() -> Arc<dyn Runtime> {
    Arc::new(TokioRuntime::new(Handle::current()))
}

impl LocalMode {
    /// Opens the folder, or creates it, and starts the services on it. Fails where another process
    /// uses the folder.
    pub async fn start(
        folder: &Path,
        config: &Config,
        steering: Steering,
    ) -> anyhow::Result<LocalMode> {
        let runtime = runtime();
        let local = match Local::open(folder, runtime.clone()) {
            Ok(local) => local,
            Err(fault) => bail!("cannot use the data folder: {fault}"),
        };
        let mut all = BTreeMap::new();
        for service in Service::ALL {
            let ports = Ports {
                log: local.log(),
                queue: local.queue(),
                store: local.store(service.name())?,
                runtime: runtime.clone(),
            };
            all.insert(service, ports);
        }
        let (outside, gateway, mails) = outside(folder, steering)?;
        // The folder has one process at a time: after a crash the leases are its own again.
        let (instance, streams) = ("local".to_owned(), Streams::default());
        let setup = Setup { instance, streams, config: config.clone() };
        let shop = run_all(&all, &outside, &setup).await?;
        Ok(LocalMode { shop, gateway, mails })
    }
}
