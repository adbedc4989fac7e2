//! The whole way: people sign up through a real Ory Kratos v26.2.0, which calls the real program.
//!
//! Every scene starts its own Kratos (in memory, with the files of kratos-config/), its own Vestibule and
//! its own external services on free ports. They need `kratos` on PATH or its path in `KRATOS_BIN`;
//! without it they are left out, loudly.

#![expect(
    clippy::disallowed_methods,
    reason = "these tests stand outside the program: real time, real clients"
)]

mod admin_api;
mod code;
mod data;
mod flows;
mod gate;
mod keys;
mod lost_calls;
mod nothing_is_lost;
mod reconcile;
mod registration;
mod services;
mod settings;
mod support;
mod what_checks_read;

use std::any::type_name_of_val;
use std::pin::pin;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};

use gate::methods::Method;
use support::visitor::Client;

/// Longer than any scene takes on a busy machine.
const BOUND: Duration = Duration::from_mins(3);
/// The same for those that are played only when asked for.
const LONG_BOUND: Duration = Duration::from_mins(20);

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let with_kratos = support::kratos::program().is_some();
    if !with_kratos {
        eprintln!("{}", support::LEFT_OUT);
    }

    let mut scenes = Scenes {
        with_kratos,
        trials: Vec::new(),
    };
    scenes.each(registration::a_refused_field_is_corrected_in_the_same_flow);
    scenes.each(registration::two_fields_are_refused_at_once);
    scenes.each(registration::a_hidden_field_is_refused_where_the_person_sees_it);
    scenes.once(registration::the_words_are_in_the_language_of_the_person);
    scenes.each(data::what_the_register_knows_is_stored_beside_what_the_person_typed);
    scenes.each(data::the_crm_learns_of_the_account_that_kratos_made);
    scenes.each(services::a_service_that_is_down_is_asked_again_in_the_same_flow);
    scenes.each(services::a_service_that_hangs_is_not_waited_for);
    scenes.each(code::a_sign_up_by_code_is_refused_and_corrected);
    scenes.each(settings::a_bad_change_is_refused_and_a_good_one_delivered);
    scenes.each(settings::an_unchanged_field_is_not_asked_about_again);
    scenes.each(settings::what_a_check_had_set_is_removed_with_the_field);
    scenes.each(what_checks_read::a_bad_number_is_asked_about_when_only_the_kind_changes);
    scenes.each(
        what_checks_read::a_check_without_a_field_runs_in_settings_if_a_trait_that_it_reads_changes,
    );
    scenes.each(what_checks_read::a_valid_address_that_the_service_rejects_is_not_admitted);
    scenes.each(flows::an_expired_flow_goes_on_in_a_new_one);
    scenes.each(settings::other_changes_and_a_proved_address_are_told_of);
    scenes.once(flows::an_api_flow_sent_by_a_browser_is_refused_by_kratos);
    scenes.once(keys::keys_are_rotated_without_a_failed_sign_up);
    scenes.once(lost_calls::a_lost_answer_is_given_again_without_a_second_question);
    scenes.once(lost_calls::nobody_gets_in_unchecked_behind_a_huge_form);
    scenes.once(nothing_is_lost::an_account_whose_post_came_empty_is_delivered_within_seconds);
    scenes.once(nothing_is_lost::accounts_of_which_no_post_tells_are_delivered_once_by_the_journal);
    scenes.once(nothing_is_lost::an_account_without_a_known_identifier_is_found_by_its_external_id);
    scenes.once(nothing_is_lost::an_invite_is_released_when_kratos_made_no_account_after_all);
    scenes.once(nothing_is_lost::an_account_is_made_while_the_register_is_away_and_refused_later);
    scenes.once(nothing_is_lost::what_the_crm_answers_is_written_into_the_identity);
    scenes.each(gate::submissions::one_invite_serves_one_account_of_a_form_that_is_sent_many_times);
    scenes.once(gate::submissions::on_two_instances_one_invite_serves_one_account_too);
    scenes.each(gate::submissions::without_our_external_id_one_invite_serves_one_account_too);
    scenes.each(gate::submissions::a_refused_submission_leaves_the_invite_with_the_accepted_one);
    scenes
        .each(gate::submissions::every_account_of_a_form_is_asked_about_once_the_register_is_back);
    scenes.each(gate::submissions::a_correction_after_a_taken_address_keeps_the_invite);
    scenes.once(gate::submissions::two_tabs_with_one_invite_take_turns);
    scenes.once(gate::submissions::by_code_one_account_comes_of_a_form);
    scenes.each_method(gate::methods::no_check_is_evaded_on_two_instances);
    scenes.each_method_long(
        gate::methods::without_our_external_id_no_check_is_evaded_on_two_instances,
    );
    scenes.once(gate::parallel_changes::one_invite_serves_one_of_many_changes);
    scenes.once(gate::parallel_changes::every_change_is_asked_about_once_the_register_is_back);
    scenes.each(gate::no_false_alarms::a_double_click_makes_one_account);
    scenes.once(gate::no_false_alarms::a_post_that_is_repeated_changes_nothing);
    scenes.once(gate::no_false_alarms::settings_that_change_between_pre_and_post_change_nothing);
    scenes.once(gate::social::one_invite_serves_one_account_of_parallel_callbacks);
    scenes.each(gate::changes::an_invite_of_a_change_that_kratos_refuses_is_released);
    scenes.once(gate::disconnects::every_account_is_delivered_although_clients_hang_up);
    scenes.once(gate::disconnects::every_change_is_delivered_although_clients_hang_up);
    scenes.long(gate::disconnects::every_account_is_delivered_although_two_hundred_clients_hang_up);
    scenes.long(gate::disconnects::every_change_is_delivered_although_two_hundred_clients_hang_up);
    scenes.once(gate::late_refusals::a_late_refusal_lasts_although_the_person_saves_in_a_loop);
    scenes.each(gate::late_refusals::a_deferral_is_not_evaded_by_a_change);
    scenes.once(
        gate::late_refusals::whoever_kratos_cannot_deactivate_is_kept_out_of_login_and_recovery,
    );
    scenes.once(gate::late_refusals::an_operator_who_activates_an_account_is_left_alone);
    scenes.once(gate::late_refusals::a_refusal_is_lifted_by_hand);
    scenes.once(gate::late_refusals::a_profile_save_beside_a_write_loses_nothing);
    scenes.long(gate::late_refusals::a_late_refusal_lasts_in_forty_rounds);
    scenes.long(gate::late_refusals::a_profile_save_beside_a_write_loses_nothing_in_forty_rounds);
    scenes.once(admin_api::identities_are_looked_up_paged_through_and_written_to);
    scenes.once(reconcile::imported_accounts_are_delivered_once_and_deleted_ones_forgotten);

    let conclusion = libtest_mimic::run(&arguments, scenes.trials);
    if !with_kratos && conclusion.num_ignored > 0 {
        eprintln!(
            "{} tests with a real Kratos were LEFT OUT.\n{}",
            conclusion.num_ignored,
            support::LEFT_OUT
        );
    }
    conclusion.exit();
}

/// What is to be played.
struct Scenes {
    with_kratos: bool,
    trials: Vec<Trial>,
}

impl Scenes {
    /// A scene of its own.
    fn once<S, F>(&mut self, scene: S)
    where
        S: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()>,
    {
        self.add(name_of(&scene), scene);
    }

    /// A scene that takes long, and is played only when asked for (`--ignored`).
    fn long<S, F>(&mut self, scene: S)
    where
        S: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()>,
    {
        self.add_long(name_of(&scene), scene);
    }

    /// A scene that every kind of client plays.
    fn each<S, F>(&mut self, scene: S)
    where
        S: Fn(Client) -> F + Copy + Send + 'static,
        F: Future<Output = ()>,
    {
        for client in [Client::BrowserForm, Client::BrowserJson, Client::Api] {
            self.add(format!("{}::{client}", name_of(&scene)), move || {
                scene(client)
            });
        }
    }

    /// A scene that is played by every method of signing up.
    fn each_method<S, F>(&mut self, scene: S)
    where
        S: Fn(Method) -> F + Copy + Send + 'static,
        F: Future<Output = ()>,
    {
        for method in Method::ALL {
            let name = format!("{}::{method}", name_of(&scene));
            self.add_within(2 * BOUND, name, move || scene(method));
        }
    }

    /// The same for one that takes long.
    fn each_method_long<S, F>(&mut self, scene: S)
    where
        S: Fn(Method) -> F + Copy + Send + 'static,
        F: Future<Output = ()>,
    {
        for method in Method::ALL {
            self.add_long(format!("{}::{method}", name_of(&scene)), move || {
                scene(method)
            });
        }
    }

    fn add_long<F: Future<Output = ()>>(
        &mut self,
        name: String,
        scene: impl FnOnce() -> F + Send + 'static,
    ) {
        self.add_within(LONG_BOUND, name, scene);
        if let Some(trial) = self.trials.pop() {
            self.trials.push(trial.with_ignored_flag(true));
        }
    }

    fn add<F: Future<Output = ()>>(
        &mut self,
        name: String,
        scene: impl FnOnce() -> F + Send + 'static,
    ) {
        self.add_within(BOUND, name, scene);
    }

    fn add_within<F: Future<Output = ()>>(
        &mut self,
        bound: Duration,
        name: String,
        scene: impl FnOnce() -> F + Send + 'static,
    ) {
        let is_repeated = std::env::var_os("GATE_ROUNDS").is_some();
        let bound = if is_repeated { LONG_BOUND } else { bound };
        let trial = Trial::test(name, move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut scene = pin!(scene());
                tokio::time::timeout(bound, &mut scene)
                    .await
                    .expect("the scene ends");
            });
            Ok(())
        });
        self.trials.push(trial.with_ignored_flag(!self.with_kratos));
    }
}

fn name_of<S>(scene: &S) -> String {
    let path = type_name_of_val(scene);
    path.split_once("::")
        .map_or(path, |(_, name)| name)
        .to_owned()
}
