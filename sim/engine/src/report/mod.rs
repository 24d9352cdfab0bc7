//! pages
use crate::system::{Plan, System};
pub(crate) fn page<S: System>(_system: &S, _plan: &Plan<S::Workload>) -> String {
    String::new()
}
