//! The starter of all HTTP servers in tests and benches.

use std::net::{SocketAddr, TcpListener};

use actix_web::dev::ServerHandle;
use actix_web::web::{self, Data};
use actix_web::{App, FromRequest, Handler, HttpResponse, HttpServer};

/// A running server. It runs until it is stopped or the runtime of the test ends, also after this value is dropped.
pub struct Server {
    /// Where the server listens.
    pub address: SocketAddr,
    handle: ServerHandle,
}

/// Serves every call with this function and this state on a free local port.
pub fn serve<Answer, Arguments, State>(state: &Data<State>, answer: Answer) -> Server
where
    Answer: Handler<Arguments, Output = HttpResponse> + Send,
    Arguments: FromRequest + 'static,
    State: Send + Sync + 'static,
{
    serve_on(any_port(), 1, state, answer)
}

/// Listens on a port that the system chooses.
pub fn any_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

/// Serves every call with this function and this state on `listener`, with this number of threads.
pub fn serve_on<Answer, Arguments, State>(
    listener: TcpListener,
    threads: usize,
    state: &Data<State>,
    answer: Answer,
) -> Server
where
    Answer: Handler<Arguments, Output = HttpResponse> + Send,
    Arguments: FromRequest + 'static,
    State: Send + Sync + 'static,
{
    let address = listener.local_addr().expect("an address");
    let state = state.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .default_service(web::to(answer.clone()))
    })
    .workers(threads)
    .disable_signals()
    .shutdown_timeout(0)
    .listen(listener)
    .expect("listening")
    .run();
    let handle = server.handle();
    tokio::spawn(server);
    Server { address, handle }
}

impl Server {
    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops the server, and waits until it has stopped.
    pub async fn stop(&self) {
        self.handle.stop(false).await;
    }

    /// Tells the server to stop.
    pub fn begin_to_stop(&self) {
        // The message is sent before the first poll.
        drop(self.handle.stop(false));
    }
}
