/*!
Training of a reward head from files of judgements: what `stackelberg train reward` does.

[`Judgements`] reads files of preference pairs or rated texts. A [`Reader`] is the model on whose hidden states, or embeddings,
the head is trained. [`train`] computes the features of all texts, fits the head ([`fit`](crate::fit)), measures it on held-out
files, and writes the head and its card.
*/

mod data;
mod judgements;
mod reader;
mod train;
mod watch;

pub use judgements::Judgements;
pub use reader::Reader;
pub use train::{Settings, Trained, train};
pub use watch::Watch;
