//! This saga under misfortune: the very services in simulated worlds, their workload, the invariants
//! that must always hold, and scenarios. Never touches a real clock, socket or file.

#[cfg(not(madsim))]
compile_error!(
    "your RUSTFLAGS replaced .cargo/config.toml, which sets --cfg madsim; run `env -u RUSTFLAGS cargo test`"
);

pub mod agreement;
pub mod causes;
pub mod customers;
pub mod excuses;
pub mod facts;
pub mod followers;
pub mod forms;
pub mod history;
pub mod invariants;
pub mod keeper;
pub mod leaving;
pub mod letters;
pub mod lists;
pub mod next;
pub mod nodes;
pub mod operator;
pub mod pace;
pub mod plan;
pub mod poison;
pub mod sagas;
pub mod scenario;
pub mod scenarios;
pub mod shop;
pub mod smaller;
pub mod story;
pub mod told;
pub mod visitor;
pub mod walk_ins;
pub mod watch;
pub mod workload;

pub use shop::Shop;
pub use workload::{Order, Product, Workload};
