//! Ports that stay reserved for a test case while no program listens on them.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// The range is below that from which the system takes ports for outgoing connections.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// Returns a free port that no other test case of this run gets.
pub fn free() -> u16 {
    port_of(&listener())
}

/// Listens on a free port that no other test case of this run gets.
pub fn listener() -> TcpListener {
    let start = u16::try_from(std::process::id() % 1_000).expect("a small number") * 12;
    for _ in FIRST..LAST {
        let step = start.wrapping_add(NEXT.fetch_add(1, Ordering::SeqCst));
        let port = FIRST + step % (LAST - FIRST);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener;
        }
    }
    panic!("no free port between {FIRST} and {LAST}");
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("an address").port()
}
