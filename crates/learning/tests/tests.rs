//! Tests of the public interface of `stackelberg-learning`.

mod common;
mod fit;
mod import;
mod import_errors;
mod measure;
mod rollouts;
mod saving;
mod shaped;
#[path = "../../engine/tests/common/tiny.rs"]
mod tiny;
mod value;
