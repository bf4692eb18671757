//! Serving: connections bounded in number and in how long their headers may take, and a stop that lets what is being
//! answered end. Plain HTTP/1.1; TLS is the reverse proxy's.

use std::{future::poll_fn, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::{
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use kept_runtime::counters::Http;
use kept_store::Prefix;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    books::{Books, PgBooks},
    door::{CodecNow, Door, Limits, Outbox, ReferenceNow},
    routes::routes,
};

/// Connections open at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 1_024;
/// A request's headers, and the wait for the next request of a connection.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Request line and headers together.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// What is being answered when we stop may take this long to end.
const STOP_TIME: Duration = Duration::from_secs(10);
/// A connection that we end may send so long before it is cut.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// Old idempotency keys are forgotten so often.
const TIDY_EVERY: Duration = Duration::from_secs(3_600);

/// Where the service listens and what it remembers things in.
pub struct Settings<'a> {
    /// `host:port`.
    pub listen: &'a str,
    /// The ledger's Postgres and the read model's, as URLs that psql takes.
    pub postgres: &'a str,
    pub read_postgres: &'a str,
    pub prefix: &'a Prefix,
    pub limits: Limits,
    /// What is counted for the metrics.
    pub counters: Arc<Http>,
}

/// The running service.
pub struct Service {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Service {
    /// Listens, and answers until `stop` becomes true. `pages`: what else is served, beside `/v1`.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(
        settings: Settings<'_>,
        reference: ReferenceNow,
        codec: CodecNow,
        outbox: Arc<dyn Outbox>,
        pages: Router,
        stop: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let (books, writing) =
            PgBooks::new(settings.postgres, settings.read_postgres, settings.prefix, Arc::clone(&settings.counters));
        let books = Arc::new(books);
        let door = Door::new(
            reference,
            codec,
            outbox,
            Arc::clone(&books) as Arc<dyn Books>,
            settings.limits,
            settings.counters,
        );
        let router = routes(Arc::new(door)).merge(pages);
        let serving = tokio::spawn(async move {
            let tidying = tokio::spawn(tidy(Arc::clone(&books)));
            serve(listener, router, stop).await;
            tidying.abort();
            drop(books);
            // What was accepted while the database was away is written down, if it comes back in time.
            if tokio::time::timeout(STOP_TIME, writing).await.is_err() {
                tracing::warn!("stopped before every accepted order was written down; they are safe in their topic");
            }
        });
        Ok(Self { address, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns once the service has ended, after its `stop`.
    pub async fn ended(self) {
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the http service died");
        }
    }
}

async fn tidy(books: Arc<PgBooks>) {
    let mut every = tokio::time::interval(TIDY_EVERY);
    loop {
        every.tick().await;
        books.tidy().await;
    }
}

/// Answers on `listener` until `stop` becomes true or its sender is gone, then ends in good order.
pub async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let stopping = stop.clone();
    let stopped = async move { while !*stop.borrow_and_update() && stop.changed().await.is_ok() {} };
    tokio::pin!(stopped);
    loop {
        // Those that ended are let go of here, so that the set stays as large as what is open.
        while connections.try_join_next().is_some() {}
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        tokio::select! {
            () = &mut stopped => break,
            (place, accepted) = next => match accepted {
                Ok((stream, _)) => {
                    let answering = answer(stream, router.clone(), stopping.clone());
                    connections.spawn(async move {
                        answering.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file handles, or the peer left before we took it: the next may do better.
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    let ending = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIME, ending).await.is_err() {
        tracing::warn!("connections that did not end in time are cut");
    }
}

async fn answer(stream: TcpStream, router: Router, mut stop: watch::Receiver<bool>) {
    // Answers are small and whole; waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    // Boxed, for a connection that we want the stream back from must be movable.
    let service = service_fn(move |request| Box::pin(service.call(request)));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // A sender that is gone means the same.
    let stopping = async { drop(stop.wait_for(|stop| *stop).await) };
    let ended = tokio::select! {
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => ended,
        () = stopping => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
    linger(connection.into_parts().io.into_inner()).await;
}

/// Ends a connection so that the other side can read our last answer: one that still sends a body which we refused
/// would get a reset for it, and with the reset loses the answer. What it sends is thrown away, for a while.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut away = vec![0; 16 * 1024];
    let discard = async { while matches!(stream.read(&mut away).await, Ok(1..)) {} };
    // Out of time or not, it is over.
    let _ = tokio::time::timeout(LINGER_TIME, discard).await;
}
