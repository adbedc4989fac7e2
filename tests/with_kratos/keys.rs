//! The operator changes the hook key while visitors sign up.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use chrono::TimeDelta;

use crate::support::test_env::{KEY, NEXT_KEY};
use crate::support::{Client, TestEnv, company, eventually};

pub async fn operator_rotates_keys_without_a_failed_sign_up() {
    let mut env = TestEnv::start().await;
    let (done, signed_up) = (AtomicBool::new(false), AtomicU32::new(0));

    let sign_ups = async {
        while !done.load(Ordering::SeqCst) {
            env.visitor(Client::Api)
                .sign_up(&company().by_password())
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
        env.kratos.replace_key(KEY, NEXT_KEY);
        ten_more("sign-ups while Kratos reloads its settings").await;
        eventually("Kratos uses the second key", async || {
            let visitor = env.visitor(Client::Api);
            (visitor.registration().await.lifespan() > TimeDelta::minutes(90)).then_some(())
        })
        .await;
        ten_more("sign-ups with the second key").await;
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(sign_ups, rotation);

    env.vestibule.restart([NEXT_KEY, NEXT_KEY]).await;
    env.visitor(Client::Api)
        .sign_up(&company().by_password())
        .await;
}
