//! The key between Kratos and Vestibule is changed while people sign up.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use chrono::TimeDelta;

use crate::support::test_env::{KEY, NEXT_KEY};
use crate::support::{Client, TestEnv, company, eventually};

pub async fn keys_are_rotated_without_a_failed_sign_up() {
    let mut house = TestEnv::open().await;
    let (done, signed_up) = (AtomicBool::new(false), AtomicU32::new(0));

    let people = async {
        while !done.load(Ordering::SeqCst) {
            house
                .visitor(Client::Api)
                .signs_up(&company().by_password())
                .await;
            signed_up.fetch_add(1, Ordering::SeqCst);
        }
    };
    let rotation = async {
        let ten_more = async |what: &str| {
            let start = signed_up.load(Ordering::SeqCst);
            eventually(what, async || {
                (signed_up.load(Ordering::SeqCst) >= start + 10).then_some(())
            })
            .await;
        };
        ten_more("sign-ups with the first key").await;
        house.kratos.calls_with_key(KEY, NEXT_KEY);
        ten_more("sign-ups while Kratos reads the second key").await;
        eventually("Kratos has the second key", async || {
            let visitor = house.visitor(Client::Api);
            (visitor.registration().await.lifespan() > TimeDelta::minutes(90)).then_some(())
        })
        .await;
        ten_more("sign-ups with the second key").await;
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(people, rotation);

    house.vestibule.restart([NEXT_KEY, NEXT_KEY]).await;
    house
        .visitor(Client::Api)
        .signs_up(&company().by_password())
        .await;
}
