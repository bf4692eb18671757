//! The ops pages: `/livez`, `/readyz`, `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use crate::{board::Board, metrics::Metrics};

/// Serves the pages on the current runtime until the process ends; gives the address it listens on.
///
/// # Errors
/// An address that is taken or is not ours.
pub async fn serve(address: &str, board: Arc<Board>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let router = router(board);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the ops pages ended");
        }
    });
    Ok(bound)
}

fn router(board: Arc<Board>) -> Router {
    let (live, ready) = (Arc::clone(&board), Arc::clone(&board));
    let metrics = Arc::new(Metrics::new(board));
    Router::new()
        .route("/livez", get(move || async move { answer(&live.not_live()) }))
        .route("/readyz", get(move || async move { answer(&ready.not_ready()) }))
        .route("/metrics", get(move || async move { page(&metrics) }))
}

fn answer(why_not: &[String]) -> Response {
    if why_not.is_empty() {
        return (StatusCode::OK, "ok\n").into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, why_not.join("\n") + "\n").into_response()
}

fn page(metrics: &Metrics) -> Response {
    match metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
