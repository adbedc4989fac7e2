//! An HTTP server for one test.

use std::net::{SocketAddr, TcpListener};

use actix_web::web::{self, Data};
use actix_web::{App, FromRequest, Handler, HttpResponse, HttpServer};

/// Serves every call with this function and this state on a free local port until the test ends.
pub fn serve<Answer, Arguments, State>(state: &Data<State>, answer: Answer) -> SocketAddr
where
    Answer: Handler<Arguments, Output = HttpResponse> + Send,
    Arguments: FromRequest + 'static,
    State: Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let state = state.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .default_service(web::to(answer.clone()))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(0)
    .listen(listener)
    .expect("listening")
    .run();
    tokio::spawn(server);
    address
}
