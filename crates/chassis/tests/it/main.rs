//! The chassis on the models in virtual time: a small service that counts, and ports that lie, lose
//! and wait as the broker contract allows. Never uses a service of the shop.

mod applying;
mod bulking;
mod commanding;
mod consuming;
mod counter;
mod crashing;
mod faults;
mod leaving;
mod letters;
mod relaying;
mod retaining;
mod seeing;
mod tracing;
mod working;
mod world;
