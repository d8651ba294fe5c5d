//! Threads that serve connections.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::AbortHandle;

/// Threads that serve the connections of one client. What is under way when it is dropped ends without being waited for.
pub(crate) struct Background {
    handle: Handle,
    runtime: Option<Runtime>,
}

/// Threads of one client.
const THREADS: usize = 2;

impl Background {
    /// # Errors
    /// No thread can be started.
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let builder = &mut Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name(name).enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Waits for something. The calling thread must not serve connections itself.
    pub(crate) fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.handle.block_on(what)
    }

    /// Begins something, which the returned handle ends.
    pub(crate) fn begin(&self, what: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.handle.spawn(what).abort_handle()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
