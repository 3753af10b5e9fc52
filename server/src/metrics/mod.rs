//! What the gateway tells about itself in numbers: at `/metrics`, and over the last day.
//!
//! Nothing is counted here. Broker, rules, actions, access and store count what they do where they do it; `collect` reads
//! their counters when somebody asks and puts them under the names of `families`, `page` writes them down. So no number can be counted twice, a
//! message costs the same whether anybody looks or not, and what adds up in the parts adds up on the page.
//!
//! `observer` looks at the gateway from time to time, for the `history` of the main figures, which are `kept` over restarts, and for
//! subscribers that are `slow`. `overview` has the sums that an operator sees first.
//!
//! Labels hold names of the configuration alone, those of rules, actions, listeners and methods, never a topic or a Client Identifier: who
//! connects can't make the page grow. Rules beyond `metrics.max_rules` share the label `_other`.

mod collect;
pub(crate) mod families;
mod history;
mod kept;
mod observer;
mod overview;
mod page;
mod process;
mod slow;

pub(crate) use collect::Sources;
pub(crate) use history::{Resolution, SERIES};
pub(crate) use observer::{Observer, Seen};
pub(crate) use overview::{Figures, SessionsSeen};
pub(crate) use page::Format;
