//! Connections: accepted, served, and closed when the server is told to stop.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use stackelberg_decoding::Cancel;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use crate::app::{App, Phase};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::models::Models;
use crate::routes::router;

/// Time without data after which a client is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Time that aborted answers have to reach their clients: the least and the most. Between them, it is what is left of the drain.
const ABORTED: Duration = Duration::from_secs(1);
const FAREWELL: Duration = Duration::from_secs(5);

/// A server whose models are loaded and whose decoding thread runs.
pub struct Server {
    app: Arc<App>,
    ended: oneshot::Receiver<String>,
}

impl Server {
    /// Starts the thread that decodes.
    ///
    /// # Errors
    /// The default guidance is no good, or the thread cannot be started.
    pub fn new(config: Config, models: Models) -> Result<Self> {
        let (app, ended) = App::start(config, models)?;
        Ok(Self { app, ended })
    }

    /// The service, for tests and for programs that have connections of their own.
    pub fn router(&self) -> Router {
        router(self.app.clone())
    }

    /// Serves until `stop` is ready: then no new requests are taken, those that run may finish within
    /// [`Limits::drain`](crate::Limits::drain), and what still runs then ends with `finish_reason` "abort".
    ///
    /// # Errors
    /// The thread that decodes has ended, so that nothing can be answered any more.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<()> {
        let Self { app, mut ended } = self;
        let (router, graceful) = (router(app.clone()), GracefulShutdown::new());
        let places = Arc::new(Semaphore::new(app.config.limits.connections.max(1)));
        let lost = |why: std::result::Result<String, _>| Error::Engine(why.unwrap_or_default());
        let mut stop = std::pin::pin!(stop);
        loop {
            // Connections beyond the limit wait in the queue of the operating system.
            let accept = async {
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                accepted = accept => accepted,
                () = &mut stop => break,
                why = &mut ended => return Err(lost(why)),
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // The client was faster, or files are used up: others close theirs.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            // The operating system closes connections whose client is gone without a word.
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
            let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(app.config.limits.arrival);
            let service = TowerToHyperService::new(router.clone());
            let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
            tokio::spawn(async move {
                let _place = place;
                // Clients may go away at any time.
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended");
                }
            });
        }
        drop(listener);
        app.enter(Phase::Draining);
        let began = Instant::now();
        let mut closed = std::pin::pin!(graceful.shutdown());
        tokio::select! {
            () = &mut closed => return Ok(()),
            () = tokio::time::sleep(app.config.limits.drain) => {}
            // Connections that ask for nothing are not waited for.
            () = app.idle() => {}
            why = &mut ended => return Err(lost(why)),
        }
        app.enter(Phase::Aborting);
        // Slow readers are not waited for, nor what arrives slowly.
        let rest = app.config.limits.drain.saturating_sub(began.elapsed());
        let _ = tokio::time::timeout(rest.clamp(ABORTED, FAREWELL), closed).await;
        Ok(())
    }
}

/// Runs a server on this host and port until `stop` is cancelled. `ready` is told the address, whose port is a free one if
/// `port` is 0.
///
/// # Errors
/// The address cannot be listened on; as [`Server::new`] and [`Server::serve`].
pub fn run(
    config: Config,
    models: Models,
    (host, port): (&str, u16),
    stop: &Cancel,
    ready: impl FnOnce(SocketAddr),
) -> Result<()> {
    let io = |what: String| move |source| Error::Io { what, source };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .map_err(io("cannot start the runtime".to_owned()))?;
    let outcome = runtime.block_on(async {
        let cannot = || format!("cannot listen on {host}:{port}");
        let listener = TcpListener::bind((host, port)).await.map_err(io(cannot()))?;
        let local = listener.local_addr().map_err(io(cannot()))?;
        let server = Server::new(config, models)?;
        ready(local);
        let stopped = async {
            while !stop.is_cancelled() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        server.serve(listener, stopped).await
    });
    // What a slow reward still computes is not waited for.
    runtime.shutdown_background();
    outcome
}
