//! A generation: one Envoy of a node, from its start to its end.
//!
//! ```text
//!  running ─(another shall take its place, or the node's Envoy shall end)─► retiring
//!     ─(no frontend leads to it any more, or the bound)─► draining ─(no connection, or the bound)─► gone
//! ```
//!
//! Upgrade, crash and a changed bootstrap are the same move: another generation, with ports of its
//! own. Agent and supervisor speak by files in the run directory, so that each may end at any time:
//! `envoy/ID.json` is the supervisor's record, `envoy/ID.unled` the agent's word that no frontend
//! leads there, `envoy/ID/` the Envoy's own folder. Records are not in that folder: Envoy is
//! another user, and not trusted with them.

mod ending;
mod record;
mod supervisor;
mod words;

pub use ending::{Bounds, Phase};
pub(crate) use record::AGENT_SOCKET;
pub use record::{GenerationError, Record, folder, list, mark_unled};
pub use supervisor::{Order, Supervisor, SupervisorError, SupervisorOptions};
