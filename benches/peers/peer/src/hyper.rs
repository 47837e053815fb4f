//! A handshake by hyper, after which the bare TCP connection comes back: without it, each read and write would go
//! through hyper's type-erased stream.

use crate::Service;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Mutex;
use tokio::net::TcpStream;

/// Answers one request as `upgrade` has it, and gives the connection with what its path stands for. A connection that
/// asks for something else gets its answer and nothing more, and so does a client that did not wait for its answer.
pub async fn accept<E>(
    stream: TcpStream,
    upgrade: impl Fn(&mut Request<Incoming>) -> Result<Response<Empty<Bytes>>, E>,
) -> Option<(TcpStream, Service)> {
    // A lock because the task is `Send`; nobody waits for it.
    let upgraded = Mutex::new(None);
    let answer = |mut request: Request<Incoming>| {
        let mut response = Response::new(Empty::new());
        *response.status_mut() = StatusCode::NOT_FOUND;
        if let Some(service) = Service::at(request.uri().path()) {
            // Kept before the crate takes it: the first of the two to wait gets the connection.
            let on_upgrade = request.extensions().get::<OnUpgrade>().cloned();
            match upgrade(&mut request) {
                Ok(switching) => {
                    *upgraded.lock().expect("no panic while it is locked") = on_upgrade.map(|it| (it, service));
                    response = switching;
                }
                Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
            }
        }
        async move { Ok::<_, Infallible>(response) }
    };
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
    connection.with_upgrades().await.ok()?;
    let (on_upgrade, service) = upgraded.into_inner().expect("no panic while it is locked")?;
    let parts = Upgraded::downcast::<TokioIo<TcpStream>>(on_upgrade.await.ok()?).ok()?;
    parts.read_buf.is_empty().then(|| (parts.io.into_inner(), service))
}
