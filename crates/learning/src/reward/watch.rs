//! What training tells its caller.

/// Callbacks for warnings, progress and cancellation.
pub trait Watch {
    /// A warning for the user.
    fn warning(&self, _text: &str) {}

    /// So much is done of reading a file's texts, or of the fit.
    fn progress(&self, _what: &str, _done: usize, _total: usize) {}

    /// What was last told is over.
    fn done(&self) {}

    /// Whether to stop now. Nothing is written. The fit is not stopped.
    fn stop(&self) -> bool {
        false
    }
}

/// No callbacks.
impl Watch for () {}
