//! How a process that goes on and on answers over HTTP: metrics and health, to whoever may ask.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};

/// A client that does not say what it wants is not waited for.
const ASK_WITHIN: Duration = Duration::from_secs(10);
const TEXT: &str = "text/plain; charset=utf-8";

/// Why metrics and health are not served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics at {address}: {cause}; choose another with --metrics")]
pub struct PortError {
    address: SocketAddr,
    cause: io::Error,
}

/// What is answered.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Answers at an address as long as the runtime lives; what is asked for is a path, with a query.
pub(crate) fn serve_at<A, F>(
    runtime: &Runtime,
    address: SocketAddr,
    answer: A,
) -> Result<(), PortError>
where
    A: Fn(Uri) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send,
{
    let listener = runtime.block_on(TcpListener::bind(address));
    let listener = listener.map_err(|cause| PortError { address, cause })?;
    let handle = runtime.handle().clone();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(&handle, stream, answer.clone());
        }
    });
    Ok(())
}

/// Answers one client.
pub(crate) fn serve<A, F>(
    handle: &Handle,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: A,
) where
    A: Fn(Uri) -> F + Send + 'static,
    F: Future<Output = Answer> + Send,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.uri().clone());
        async move { Ok::<_, Infallible>(answer.await) }
    });
    handle.spawn(async move {
        let mut server = http1::Builder::new();
        let server = server
            .timer(TokioTimer::new())
            .header_read_timeout(ASK_WITHIN);
        // Who breaks off has no more use for an answer.
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    });
}

/// There is no such path.
pub(crate) fn not_found() -> Answer {
    let known = "there is /healthz, /readyz and /metrics\n";
    text(StatusCode::NOT_FOUND, known)
}

pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    with_type(status, TEXT, body)
}

pub(crate) fn with_type(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
