/*!
The extension module `stackelberg._lib` of the Python package: [`stackelberg_shaping`] on NumPy arrays, models that generate
and score ([`engine`]), and the command line ([`console`]).

Every function of the mathematics takes [`Rows`] (the rewards of many prompts, in place), [`Settings`] and a number of threads. It applies one function
of the shaping crate to each prompt without the GIL ([`walk`]), and returns a dictionary of columns: arrays with one number per
prompt, and the values of all responses as one flat array. What users see is written in Python: the package in
`python/stackelberg` turns what they pass into rows, and columns into results.
*/

mod columns;
mod console;
mod engine;
mod error;
mod functions;
mod report;
mod rows;
mod settings;
mod walk;

/// The mathematics of `stackelberg` on prepared arrays, and models. Private: use what `stackelberg` has.
#[pyo3::pymodule]
mod _lib {
    #[pymodule_export]
    use crate::console::command_line;
    #[pymodule_export]
    use crate::engine::{Answers, Policy, Rollouts, Scorer};
    #[pymodule_export]
    use crate::engine::{evaluate, rollout, train_reward, train_value};
    #[pymodule_export]
    use crate::error::RowError;
    #[pymodule_export]
    use crate::functions::{follower, interval, kl_budget, shape, threshold};
    #[pymodule_export]
    use crate::report::report;
    #[pymodule_export]
    use crate::settings::Settings;

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
