//! End-to-end tests: visitors sign up through a real Ory Kratos v26.2.0, which calls the real program.
//!
//! Every test case starts its own Kratos (with the files of kratos-config/), its own Vestibule and its own
//! external services on free ports. The tests need `kratos` on PATH or its path in `KRATOS_BIN`. Without it
//! they are skipped, with a notice.

#![expect(
    clippy::disallowed_methods,
    reason = "these tests run outside the program, with the system clock and real clients"
)]

mod admin_api;
mod checked_fields;
mod code;
mod data;
mod delivery_order;
mod doctor;
mod flows;
mod gate;
mod keys;
mod links_and_headers;
mod lint;
mod lost_calls;
mod nothing_is_lost;
mod reconcile;
mod registration;
mod services;
mod settings;
mod social_sign_ups;
mod support;
mod tutorial;
mod unreported;
mod what_checks_read;

use std::any::type_name_of_val;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use vestibule_testing::test_case;

use gate::methods::Method;
use support::visitor::Client;

/// The timeout of a test case, longer than any takes on a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_mins(3);
/// The timeout of a test case that runs only with `--ignored`.
const LONG_TEST_TIMEOUT: Duration = Duration::from_mins(20);

#[expect(clippy::too_many_lines, reason = "one line per test case")]
fn main() {
    let mut arguments = Arguments::from_args();
    // The test cases wait for Kratos most of the time.
    arguments.test_threads.get_or_insert(3);
    let with_kratos = support::kratos::program().is_some();
    if !with_kratos {
        eprintln!("{}", support::SKIPPED_NOTICE);
    }

    let mut cases = TestCases {
        with_kratos,
        trials: Vec::new(),
    };
    cases.each_client(registration::visitor_corrects_a_refused_field_in_the_same_flow);
    cases.each_client(registration::vestibule_refuses_two_fields_in_one_response);
    cases.each_client(registration::visitor_sees_the_message_of_a_hidden_field_above_the_form);
    cases.once(registration::vestibule_answers_in_the_language_of_the_visitor);
    cases.each_client(data::kratos_stores_what_a_check_sets_beside_what_the_visitor_typed);
    cases.each_client(data::vestibule_notifies_the_crm_of_each_account_once);
    cases.each_client(services::vestibule_calls_a_service_again_in_the_same_flow_after_an_outage);
    cases.each_client(services::vestibule_answers_within_its_deadline_although_a_service_hangs);
    cases.each_client(code::visitor_corrects_a_refused_sign_up_by_code);
    cases.each_client(
        delivery_order::vestibule_brings_the_newest_change_last_after_an_outage_of_the_crm,
    );
    cases.each_client(settings::vestibule_refuses_a_bad_change_and_delivers_a_good_one);
    cases.each_client(settings::vestibule_does_not_check_an_unchanged_field_again);
    cases.each_client(
        settings::vestibule_removes_what_a_check_set_when_the_visitor_empties_the_field,
    );
    cases.each_client(
        what_checks_read::vestibule_checks_an_unchanged_field_once_its_when_condition_becomes_true,
    );
    cases.each_client(
        what_checks_read::vestibule_runs_a_check_without_a_field_if_a_trait_that_it_reads_changes,
    );
    cases.each_client(what_checks_read::vestibule_refuses_a_valid_address_that_the_service_rejects);
    cases.each_client(links_and_headers::the_invite_of_a_link_reaches_a_check_in_one_step);
    cases.each_client(links_and_headers::the_invite_of_a_link_reaches_a_check_in_two_steps);
    cases.once(
        links_and_headers::the_invite_of_a_link_and_the_provider_reach_a_check_of_a_social_sign_up,
    );
    cases.each_client(links_and_headers::the_address_and_listed_headers_reach_a_check);
    cases.each_client(links_and_headers::the_state_before_a_change_reaches_a_delivery);
    cases.each_client(links_and_headers::an_old_template_is_refused_until_it_is_replaced);
    cases.each_client(
        checked_fields::visitor_signs_up_without_a_field_that_only_others_must_fill_in,
    );
    cases.each_client(checked_fields::vestibule_requires_an_absent_field_once_the_condition_holds);
    cases.each_client(checked_fields::visitor_can_neither_change_nor_remove_an_immutable_value);
    cases.each_json_client(checked_fields::vestibule_checks_and_changes_an_entry_of_a_list);
    cases.each_json_client(checked_fields::visitor_cannot_replace_an_immutable_value_by_null);
    cases.once(social_sign_ups::kratos_offers_to_link_a_social_sign_up_to_an_existing_account);
    cases.once(social_sign_ups::native_app_reads_the_message_about_a_field_that_kratos_dropped);
    cases.each_client(flows::visitor_continues_an_expired_flow_in_a_new_flow);
    cases.each_client(settings::vestibule_delivers_password_changes_and_verified_addresses);
    cases.once(flows::kratos_refuses_an_api_flow_that_a_browser_sends);
    cases.once(keys::operator_rotates_keys_without_a_failed_sign_up);
    cases.once(lost_calls::vestibule_repeats_a_lost_response_without_a_second_call_to_the_service);
    cases.once(lost_calls::no_visitor_signs_up_unchecked_after_a_huge_form);
    cases.once(nothing_is_lost::vestibule_delivers_an_account_within_seconds_of_an_empty_post);
    cases.once(nothing_is_lost::vestibule_delivers_accounts_without_a_post_once);
    cases.once(
        nothing_is_lost::vestibule_finds_an_account_without_a_known_identifier_by_its_external_id,
    );
    cases.once(nothing_is_lost::vestibule_releases_an_invite_if_kratos_creates_no_account);
    cases.once(nothing_is_lost::vestibule_refuses_an_account_late_after_an_outage_of_the_register);
    cases.once(nothing_is_lost::vestibule_writes_the_response_of_the_crm_into_the_identity);
    cases.each_client(
        gate::submissions::kratos_creates_one_account_with_one_invite_from_a_form_sent_many_times,
    );
    cases.once(gate::submissions::kratos_creates_one_account_with_one_invite_on_two_instances);
    cases.each_client(gate::submissions::kratos_creates_at_most_one_account_with_one_invite_without_the_one_identity_guard);
    cases.each_client(gate::submissions::vestibule_keeps_the_invite_for_the_accepted_submission_after_a_refused_one);
    cases.each_client(
        gate::submissions::vestibule_checks_every_account_of_a_form_after_an_outage_of_the_register,
    );
    cases.each_client(gate::submissions::visitor_keeps_the_invite_when_correcting_a_taken_address);
    cases.once(gate::submissions::visitor_in_a_second_tab_gets_the_invite_after_its_release);
    cases.once(gate::submissions::kratos_creates_one_account_from_a_form_by_code);
    cases.each_method(gate::methods::visitor_evades_no_check_on_two_instances);
    cases.each_method_long(
        gate::methods::visitor_evades_no_check_on_two_instances_without_the_one_identity_guard,
    );
    cases.once(gate::parallel_changes::kratos_saves_one_of_many_changes_with_one_invite);
    cases.once(
        gate::parallel_changes::vestibule_checks_every_change_after_an_outage_of_the_register,
    );
    cases.each_client(gate::no_false_alarms::visitor_gets_one_account_after_a_double_click);
    cases.once(gate::no_false_alarms::vestibule_ignores_a_repeated_post);
    cases
        .once(gate::no_false_alarms::operator_changes_settings_between_pre_and_post_without_a_loss);
    cases.once(gate::social::kratos_creates_one_account_with_one_invite_from_parallel_callbacks);
    cases.each_client(gate::changes::vestibule_releases_the_invite_of_a_change_that_kratos_refuses);
    cases.once(gate::disconnects::vestibule_delivers_every_account_although_clients_disconnect);
    cases.once(gate::disconnects::vestibule_delivers_every_change_although_clients_disconnect);
    cases.long(
        gate::disconnects::vestibule_delivers_every_account_although_two_hundred_clients_disconnect,
    );
    cases.long(
        gate::disconnects::vestibule_delivers_every_change_although_two_hundred_clients_disconnect,
    );
    cases.once(
        gate::late_refusals::vestibule_enforces_a_late_refusal_although_the_visitor_saves_in_a_loop,
    );
    cases.each_client(gate::late_refusals::visitor_does_not_evade_a_deferred_check_by_a_change);
    cases.once(
        gate::late_refusals::vestibule_blocks_login_and_recovery_of_an_account_that_kratos_cannot_deactivate,
    );
    cases.once(gate::late_refusals::operator_activates_a_refused_account_and_it_stays_active);
    cases.once(gate::late_refusals::operator_lifts_a_late_refusal);
    cases.once(
        gate::late_refusals::vestibule_loses_no_profile_change_saved_during_an_identity_write,
    );
    cases.long(gate::late_refusals::vestibule_enforces_a_late_refusal_in_forty_rounds);
    cases.long(gate::late_refusals::vestibule_loses_no_profile_change_saved_during_an_identity_write_in_forty_rounds);
    cases.once(admin_api::vestibule_finds_lists_and_changes_identities);
    cases.once(doctor::doctor_is_clean_until_kratos_has_no_such_trait);
    cases.once(doctor::lint_takes_the_identity_schemas_from_a_running_kratos);
    cases.once(reconcile::vestibule_delivers_imported_accounts_once_and_erases_deleted_ones);
    cases.once(tutorial::the_tutorial_leads_to_a_refused_sign_up);
    cases.once(unreported::vestibule_delivers_changes_and_deletions_of_the_admin_api_once);
    cases.of_lint();

    let conclusion = libtest_mimic::run(&arguments, cases.trials);
    if !with_kratos && conclusion.num_ignored > 0 {
        eprintln!(
            "{} tests with a real Kratos were SKIPPED.\n{}",
            conclusion.num_ignored,
            support::SKIPPED_NOTICE
        );
    }
    conclusion.exit();
}

impl TestCases {
    /// Adds the test cases about the claims of `vestibule kratos lint`.
    fn of_lint(&mut self) {
        self.once(lint::registration::each_mistake_in_a_hook_is_reported_and_has_its_effect);
        self.once(lint::registration::kratos_checks_no_sign_up_without_a_hook_and_opens_no_form_with_a_hook_under_before);
        self.once(lint::calls::kratos_sends_no_trigger_id_without_the_analytics_event);
        self.once(lint::calls::kratos_forgets_an_ignored_post_when_it_stops);
        self.once(lint::form::kratos_passes_only_listed_headers_to_hooks);
        self.once(
            lint::form::kratos_hides_the_fields_when_it_calls_vestibule_unless_the_style_is_set,
        );
        self.once(lint::form::vestibule_refuses_the_body_of_another_template);
        self.once(lint::lists::kratos_never_calls_a_blocking_hook_in_the_list_for_all_methods);
        self.once(
            lint::lists::kratos_uses_the_list_for_all_methods_only_where_a_method_has_no_hooks,
        );
        self.once(lint::methods::password_and_code_are_open_by_default);
        self.once(lint::methods::code_is_closed_without_both_keys_or_without_an_identifier);
        self.once(lint::methods::a_social_sign_up_bypasses_every_check_without_hooks);
        self.once(
            lint::methods::a_sign_up_by_passkey_or_security_key_bypasses_every_check_without_hooks,
        );
        self.once(lint::settings::a_visitor_changes_a_checked_trait_to_anything_without_a_hook_in_settings);
        self.once(lint::settings::kratos_reports_a_changed_password_only_to_a_hook);
        self.once(lint::settings::kratos_reports_no_account_without_a_post);
        self.once(lint::other_systems::a_later_blocking_hook_changes_what_vestibule_has_checked);
        self.once(
            lint::other_systems::a_visitor_waits_for_the_hook_of_another_system_and_sees_its_failure,
        );
        self.once(lint::sign_in::an_owner_signs_in_recovers_and_changes_settings_without_a_call_if_hooks_are_missing);
        self.once(
            lint::sign_in::kratos_does_not_call_a_login_hook_that_a_list_of_the_method_shadows,
        );
        self.once(lint::sign_in::a_refused_login_is_an_error_without_a_message_if_kratos_does_not_parse_the_answer);
        self.once(lint::sign_in::the_subject_of_a_token_is_the_external_id_that_vestibule_sets);
        self.once(lint::files::a_second_file_replaces_lists_and_merges_sections);
        self.once(lint::files::environment_variables_of_kratos_override_the_file_by_list_position);
        self.once(lint::traits::a_visitor_makes_itself_an_administrator_without_a_check);
    }
}

/// The test cases to run.
struct TestCases {
    with_kratos: bool,
    trials: Vec<Trial>,
}

impl TestCases {
    /// Adds a test case that runs once.
    fn once<S, F>(&mut self, case: S)
    where
        S: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()>,
    {
        self.add(name_of(&case), case);
    }

    /// Adds a test case that takes long and runs only with `--ignored`.
    fn long<S, F>(&mut self, case: S)
    where
        S: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()>,
    {
        self.add_long(name_of(&case), case);
    }

    /// Adds a test case for every kind of client.
    fn each_client<S, F>(&mut self, case: S)
    where
        S: Fn(Client) -> F + Copy + Send + 'static,
        F: Future<Output = ()>,
    {
        self.with_clients(
            &[Client::BrowserForm, Client::BrowserJson, Client::Api],
            case,
        );
    }

    /// Adds a test case for every kind of client that sends JSON, in which a value can be a list or null.
    fn each_json_client<S, F>(&mut self, case: S)
    where
        S: Fn(Client) -> F + Copy + Send + 'static,
        F: Future<Output = ()>,
    {
        self.with_clients(&[Client::BrowserJson, Client::Api], case);
    }

    fn with_clients<S, F>(&mut self, clients: &[Client], case: S)
    where
        S: Fn(Client) -> F + Copy + Send + 'static,
        F: Future<Output = ()>,
    {
        for client in clients.iter().copied() {
            self.add(format!("{}::{client}", name_of(&case)), move || {
                case(client)
            });
        }
    }

    /// Adds a test case for every sign-up method.
    fn each_method<S, F>(&mut self, case: S)
    where
        S: Fn(Method) -> F + Copy + Send + 'static,
        F: Future<Output = ()>,
    {
        for method in Method::ALL {
            let name = format!("{}::{method}", name_of(&case));
            self.add_within(2 * TEST_TIMEOUT, name, move || case(method));
        }
    }

    /// Adds a test case for every sign-up method that runs only with `--ignored`.
    fn each_method_long<S, F>(&mut self, case: S)
    where
        S: Fn(Method) -> F + Copy + Send + 'static,
        F: Future<Output = ()>,
    {
        for method in Method::ALL {
            self.add_long(format!("{}::{method}", name_of(&case)), move || {
                case(method)
            });
        }
    }

    fn add_long<F: Future<Output = ()>>(
        &mut self,
        name: String,
        case: impl FnOnce() -> F + Send + 'static,
    ) {
        self.add_within(LONG_TEST_TIMEOUT, name, case);
        if let Some(trial) = self.trials.pop() {
            self.trials.push(trial.with_ignored_flag(true));
        }
    }

    fn add<F: Future<Output = ()>>(
        &mut self,
        name: String,
        case: impl FnOnce() -> F + Send + 'static,
    ) {
        self.add_within(TEST_TIMEOUT, name, case);
    }

    fn add_within<F: Future<Output = ()>>(
        &mut self,
        timeout: Duration,
        name: String,
        case: impl FnOnce() -> F + Send + 'static,
    ) {
        let is_repeated = std::env::var_os("GATE_ROUNDS").is_some();
        let timeout = if is_repeated {
            LONG_TEST_TIMEOUT
        } else {
            timeout
        };
        let trial = Trial::test(name, move || Ok(test_case::run(timeout, case)?));
        self.trials.push(trial.with_ignored_flag(!self.with_kratos));
    }
}

fn name_of<S>(case: &S) -> String {
    let path = type_name_of_val(case);
    path.split_once("::")
        .map_or(path, |(_, name)| name)
        .to_owned()
}
