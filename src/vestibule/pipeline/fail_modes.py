"""The fail-mode table: each guard, what it depends on, and what happens when that breaks: deny, always.

`doctor` shows it; `tests/unit/pipeline/test_fail_modes.py` checks that every row's test exists, and each of these
tests breaks the dependency for real. `reason` is the rule that the refusal carries, or the exit code where what stops
is the command itself; nothing gets through in either case.
"""

from __future__ import annotations

from vestibule.core.model import FailMode

_E2E = "tests/e2e/test_dependencies.py::"
_KILL = "tests/e2e/test_kill.py::"
_CONTEXT = "tests/unit/boundary/context/test_context_dependencies.py::"
_NETWORK = "tests/egress/test_egress_faults.py::"
_MODELS = "tests/unit/boundary/models/test_model_failures.py::"
_AUDIT = "tests/unit/audit/test_audit_failures.py::"
_ATTACKS = "tests/unit/audit/test_audit_attacks.py::"
_POLICY = "tests/unit/policy/test_policy_layers.py::"
_OPA = "tests/unit/policy/test_policy_opa.py::"
_LINT = "tests/unit/policy/test_policy_lint.py::"
_WALLS = "tests/unit/sandbox/test_sandbox_walls.py::"
_LIFE = "tests/unit/sandbox/test_sandbox_lifecycle.py::"
_QUOTA = "tests/unit/sandbox/test_sandbox_quota.py::"
_CEILINGS = "tests/e2e/test_ceilings.py::"
_SETUP = "tests/e2e/test_setup.py::"
_GATES = "tests/unit/review/test_review_gates.py::"
_QUESTIONS = "tests/unit/review/test_review_questions.py::"
_SIGNING = "tests/unit/review/test_review_signing.py::"
_FORGE = "tests/unit/forges/test_forge_"
_CHANGES = "tests/unit/boundary/changes/test_changes_"
_CONTROL = "tests/attacks/test_control_"
_MONITOR = "tests/e2e/test_monitor.py::"
_HOST = "tests/unit/boundary/host/test_host_monitor.py::"
_PIPELINE = "tests/unit/pipeline/test_"

# ruff: noqa: E501 - one row, one line
_ROWS: tuple[tuple[str, str, str, str], ...] = (
    # guard, what it depends on, the refusal's rule, the test that breaks it
    ("admission", "policy bundle", "dependency.policy", _E2E + "test_unreadable_policy_bundle_refuses"),
    ("admission", "policy that compiles", "exit 2, naming the file", _E2E + "test_broken_policy_bundle_refuses"),
    ("admission", "walls of the configured minimum", "task.walls", _E2E + "test_missing_wall_refuses"),
    ("admission", "provider key", "dependency.provider_key", _E2E + "test_missing_provider_key_refuses"),
    ("admission", "state folder", "dependency.state", _E2E + "test_unwritable_state_folder_refuses"),
    ("admission", "a decision for each round in the log", "task.unadmitted", _PIPELINE + "pipeline_admission.py::test_an_attempt_without_an_admission_touches_nothing"),
    ("admission", "permission that can be found out", "task.permission", _PIPELINE + "pipeline_admission.py::test_each_way_is_refused_for_who_may_not_write"),
    ("admission", "guards that answer to a forbidden call", "dependency.guard", _E2E + "test_dead_guard_refuses"),
    ("policy", "evaluation without error", "policy.error", _POLICY + "test_an_engine_that_reports_an_error_is_a_deny"),
    ("policy", "evaluation that ends", "policy.error", _POLICY + "test_a_policy_that_does_not_end_is_a_deny_until_its_threads_end"),
    ("policy", "an answer of the agreed shape", "policy.error", _POLICY + "test_an_answer_of_another_shape_is_a_deny"),
    ("policy", "every file of the organisation's folder", "dependency.policy", _CONTROL + "folders.py::test_an_organisation_policy_that_is_a_dangling_link_is_not_left_out"),
    ("policy", "every layer", "policy.error", _POLICY + "test_one_layer_that_fails_denies_although_the_others_allow"),
    ("policy", "the shipped bundle", "dependency.policy", _POLICY + "test_a_missing_shipped_bundle_refuses_to_start"),
    ("policy", "a child process to try policies in", "dependency.policy", _LINT + "test_no_child_is_a_broken_dependency"),
    ("policy", "an OPA server, where one is configured", "dependency.policy", _OPA + "test_a_server_that_dies_denies_and_is_taken_up_again_when_it_holds_the_policy"),
    ("policy", "an OPA server that answers in time", "dependency.policy", _OPA + "test_a_server_that_is_silent_is_a_deny"),
    ("policy", "an OPA server that holds our text and no more", "dependency.policy", _OPA + "test_a_changed_module_on_the_server_is_a_deny"),
    ("audit", "room on its disk", "dependency.audit", _E2E + "test_full_audit_disk_refuses"),
    ("audit", "room on its disk while the agent works", "dependency.audit", _E2E + "test_audit_log_lost_during_the_run_stops_the_agent"),
    ("audit", "its lock", "dependency.audit", _AUDIT + "test_a_locked_database_is_refused_and_stays_refused_until_reopened"),
    ("audit", "a whole file", "dependency.audit", _AUDIT + "test_a_damaged_file_is_refused_by_writer_and_verifier"),
    ("audit", "its signing key", "dependency.audit", _E2E + "test_unusable_audit_key_refuses"),
    ("audit", "its key and remembered head", "dependency.audit", _ATTACKS + "test_a_missing_key_or_head_is_refused_not_made_anew"),
    ("context", "policy", "dependency.policy", _CONTEXT + "test_policy_that_raises_is_a_deny_and_recorded"),
    ("context", "audit log", "dependency.audit", _CONTEXT + "test_log_that_cannot_record_is_a_deny"),
    ("context", "token check", "dependency.identity", _CONTEXT + "test_authentication_that_fails_lets_nobody_in"),
    ("context", "MCP library", "dependency.mcp", _CONTEXT + "test_sdk_that_cannot_be_loaded_is_a_403"),
    ("context", "workspace", "dependency.workspace", _CONTEXT + "test_workspace_that_is_gone_is_a_403"),
    ("context", "openat2 of the kernel", "dependency.openat2", _CONTEXT + "test_openat2_lost_on_the_way_is_a_403"),
    ("context", "sandbox of run_command", "dependency.sandbox", _CONTEXT + "test_runner_that_is_down_is_a_403"),
    ("context", "search process", "dependency.search", _PIPELINE + "fail_modes.py::test_search_without_its_process_is_refused"),
    ("upstream servers", "a server that keeps the protocol", "dependency.upstream", "tests/attacks/test_upstream_servers.py::test_a_server_that_breaks_the_protocol_is_ended_and_its_tool_refused"),
    ("upstream servers", "a server that answers in time", "dependency.upstream", "tests/attacks/test_upstream_servers.py::test_a_server_that_does_not_answer_is_waited_for_in_time_and_its_late_answer_is_nobodys"),
    ("upstream servers", "the walls of their sandboxes", "dependency.walls", _PIPELINE + "pipeline_upstreams.py::test_a_server_does_not_start_without_a_wall_of_the_minimum"),
    ("upstream servers", "pins as a person made them", "dependency.upstream_pins", _PIPELINE + "pipeline_upstreams.py::test_pins_that_were_changed_by_hand_stop_the_run_before_an_agent_is_there"),
    ("upstream servers", "the key of an HTTP server", "dependency.upstream_key", _PIPELINE + "pipeline_upstreams.py::test_a_missing_key_means_no_request"),
    ("context", "our own code", "dependency.context", _CONTEXT + "test_bug_of_ours_is_a_403_and_the_loop_goes_on"),
    ("context", "gateway process", "dependency.gateway", _E2E + "test_killed_gateway_ends_the_run"),
    ("models", "policy", "dependency.policy", _MODELS + "test_decider_that_raises_means_no_dispatch_and_says_policy"),
    ("models", "audit log", "dependency.audit", _MODELS + "test_audit_failing_means_no_dispatch_and_no_hold"),
    ("models", "provider", "dependency.provider", _MODELS + "test_provider_down_is_an_error_without_cost"),
    ("models", "provider that answers in time", "dependency.provider", _MODELS + "test_silent_provider_times_out"),
    ("models", "provider that is honest about length", "dependency.provider", _MODELS + "test_content_length_that_lies_is_an_error_and_charges_the_hold"),
    ("models", "provider key", "dependency.provider_key", _MODELS + "test_missing_provider_key_is_said_plainly_and_nothing_leaves"),
    ("models", "price table", "dependency.prices", _MODELS + "test_missing_price_table_refuses"),
    ("models", "books of the budget", "dependency.database", _MODELS + "test_locked_ledger_means_no_dispatch"),
    ("models", "ceilings of the run", "dependency.budget", _MODELS + "test_run_without_opened_ceilings_is_refused"),
    ("models", "guards that can look at texts", "dependency.guards", "tests/unit/boundary/models/test_guard_gateway.py::test_guards_that_cannot_look_refuse_the_request"),
    ("models", "event loop of the gateways", "dependency.gateway", _PIPELINE + "gateway_host.py::test_a_loop_that_breaks_reports_every_gateway"),
    ("changes", "git", "dependency.git", _E2E + "test_missing_git_refuses"),
    ("changes", "git that answers in time and bounds", "dependency.git", "tests/unit/git/test_git_wrapper.py::test_a_git_that_takes_too_long_or_prints_too_much_is_down"),
    ("changes", "every object of the change", "dependency.git", _CHANGES + "changeset.py::test_a_missing_object_refuses"),
    ("changes", "audit log", "dependency.audit", _CHANGES + "gateway.py::test_a_log_that_is_down_refuses"),
    ("changes", "openat2 of the kernel", "dependency.openat2", _CHANGES + "export.py::test_without_openat2_nothing_is_exported"),
    ("changes", "guards that see", "dependency.changes", _CHANGES + "gateway.py::test_a_dead_guard_stops_the_run_before_it_starts"),
    ("network", "policy", "dependency.policy", _NETWORK + "test_a_policy_that_raises_lets_nothing_out"),
    ("network", "audit log", "dependency.audit", _NETWORK + "test_a_log_that_takes_nothing_lets_nothing_out"),
    ("network", "room on the log's disk during a transfer", "dependency.audit", _NETWORK + "test_a_log_that_fills_up_during_a_transfer_is_said_and_the_next_connection_stays_inside"),
    ("network", "a look-up that answers in time", "network.unresolved", _NETWORK + "test_a_look_up_that_breaks_or_stalls_lets_nothing_out"),
    ("network", "our own code", "dependency.network", _NETWORK + "test_a_look_up_that_breaks_or_stalls_lets_nothing_out"),
    ("network", "a program that can be told, where a rule is for some", "network.program", "tests/unit/sandbox/test_sandbox_whose.py::test_a_process_that_cannot_be_looked_at_makes_it_not_known"),
    ("network", "the operator's client, for a registry", "network.registry", "tests/unit/boundary/network/test_network_rules.py::test_what_cannot_be_carried_is_said"),
    ("network", "gateway process", "dependency.gateway", "tests/e2e/test_egress_way.py::test_an_egress_gateway_that_ends_in_the_middle_of_a_transfer_ends_the_run"),
    ("sandbox", "bubblewrap", "dependency.sandbox", _E2E + "test_missing_bubblewrap_refuses"),
    ("sandbox", "user namespaces", "dependency.sandbox", "tests/unit/sandbox/test_sandbox_without_root.py::test_without_user_namespaces_everything_is_refused"),
    ("sandbox", "walls that stand", "dependency.<wall>", _WALLS + "test_no_program_starts_when_a_needed_wall_is_down"),
    ("sandbox", "walls of commands and verify commands", "dependency.walls", _PIPELINE + "pipeline_effects.py::test_neither_a_command_nor_a_verify_command_starts_without_a_wall_of_the_minimum"),
    ("sandbox", "a seccomp filter for this machine", "dependency.sandbox", _WALLS + "test_an_architecture_without_a_filter_refuses"),
    ("sandbox", "launch server", "dependency.sandbox", _WALLS + "test_a_server_that_cannot_start_refuses"),
    ("sandbox", "records of what is to be ended", "dependency.sandbox", _LIFE + "test_reap_refuses_a_record_it_cannot_read"),
    ("sandbox", "an end that ends everything", "dependency.sandbox", _LIFE + "test_an_end_that_left_something_is_never_reported_as_an_end"),
    ("sandbox", "room on the disk", "dependency.disk", _LIFE + "test_who_waits_for_a_sandbox_that_filled_the_disk_is_refused"),
    ("sandbox", "a workspace within its quota", "sandbox.quota", _CEILINGS + "test_an_agent_that_fills_its_workspace_is_stopped_and_the_run_refused"),
    ("sandbox", "a folder for the workspace's disk", "dependency.workspace", _QUOTA + "test_a_folder_that_cannot_be_written_refuses"),
    ("sandbox", "the right to mount the workspace's disk", "counted instead, and said so", _QUOTA + "test_without_the_right_to_mount_the_quota_is_counted_and_says_so"),
    ("toolchains", "set-up commands that succeed", "setup.failed", _SETUP + "test_a_setup_that_fails_ends_the_run_before_the_agent"),
    ("toolchains", "lock files of the base commit", "setup.failed", _SETUP + "test_a_lock_file_that_the_base_commit_lacks_is_a_failure"),
    ("toolchains", "a kept result that is unchanged", "dependency.toolchain", _SETUP + "test_a_kept_result_that_was_changed_is_refused"),
    ("toolchains", "a folder for results", "dependency.toolchain", "tests/unit/sandbox/test_sandbox_toolchain.py::test_a_store_that_cannot_be_written_is_a_broken_dependency"),
    ("host", "a monitor that proves itself, where the minimum asks for one", "task.walls", _MONITOR + "test_a_minimum_with_a_monitor_is_refused_where_none_stands"),
    ("host", "a monitor that lives and answers", "dependency.monitor", _MONITOR + "test_a_monitor_that_is_killed_or_stopped_ends_the_run"),
    ("host", "every event", "dependency.monitor", _MONITOR + "test_events_that_are_lost_end_the_run"),
    ("host", "matches that can be decided and recorded", "dependency.monitor", _HOST + "test_a_match_that_cannot_be_decided_ends_the_watch"),
    ("host", "programs that the kernel takes", "dependency.monitor", _HOST + "test_programs_that_the_kernel_refuses_are_no_monitor"),
    ("host", "an account that explains the patch", "host.unwritten", _MONITOR + "test_a_file_that_nobody_inside_was_seen_to_write_holds_the_change"),
    ("review", "review key", "dependency.review_key", _E2E + "test_review_key_open_to_others_refuses"),
    ("review", "review key that was there before", "dependency.review_key", _SIGNING + "test_a_missing_key_is_refused_unless_it_is_the_first"),
    ("review", "state database", "dependency.database", _GATES + "test_a_database_that_is_gone_is_refused"),
    ("review", "audit log", "dependency.audit", _GATES + "test_a_decision_that_cannot_be_recorded_does_not_happen"),
    ("review", "policy", "policy.error", _GATES + "test_a_policy_that_denies_or_holds_is_obeyed"),
    ("review", "decision rows as they were signed", "exit 6", _GATES + "test_a_changed_decision_row_is_found"),
    ("review", "decision rows in their places", "dependency.database", _GATES + "test_a_decision_row_moved_to_another_gate_or_person_is_found"),
    ("review", "somebody who decides in time", "review.expired", _PIPELINE + "pipeline_drive.py::test_time_that_ran_out_ends_the_run_and_never_approves"),
    ("questions", "state database", "dependency.database", _QUESTIONS + "test_an_answer_that_cannot_be_kept_is_none"),
    ("questions", "audit log", "dependency.audit", _QUESTIONS + "test_a_question_that_cannot_be_recorded_is_not_asked"),
    ("questions", "question rows as they were asked", "dependency.database", _QUESTIONS + "test_a_row_whose_question_was_changed_is_found"),
    ("questions", "answers as they were signed", "exit 6", _QUESTIONS + "test_a_row_that_says_granted_without_a_signed_answer_is_found"),
    ("questions", "log and database that agree on a grant", "scope.evidence", _PIPELINE + "pipeline_questions.py::test_a_row_turned_into_a_grant_grants_nothing"),
    ("questions", "somebody who answers in time", "review.expired", _PIPELINE + "pipeline_questions.py::test_time_that_ran_out_ends_the_run_expired"),
    ("questions", "a look-out for answers while the agent works", "dependency.questions", _PIPELINE + "pipeline_questions.py::test_answers_that_cannot_be_looked_for_end_the_attempt"),
    ("context", "questions that can be kept and found", "dependency.questions", "tests/unit/boundary/context/test_context_asking.py::test_broken_questions_are_a_refusal_that_is_in_the_log"),
    ("context", "a label that comes to rest", "dependency.labels", "tests/unit/core/test_crossing_labels.py::test_a_label_that_never_comes_to_rest_lets_nothing_out"),
    ("pause", "spend that can be read", "dependency.database", _PIPELINE + "pause.py::test_no_round_begins_when_spend_cannot_be_read"),
    ("pause", "rows as they were written", "dependency.database", _PIPELINE + "pause.py::test_a_damaged_row_is_a_dependency_down"),
    ("pause", "log and database that agree on a release", "task.agent_paused.evidence", _PIPELINE + "pause.py::test_a_row_turned_into_a_release_frees_nothing"),
    ("pause", "a watch over spend while the agent works", "dependency.spend_watch", _PIPELINE + "pause.py::test_a_bug_of_the_watch_ends_the_attempt_too"),
    ("merge", "log and database that agree on the approval", "merge.evidence", _CONTROL + "merge.py::test_a_backup_put_back_does_not_forget_a_rejection"),
    ("merge", "a log that was not rolled back", "dependency.audit", _CONTROL + "merge.py::test_a_log_that_was_rolled_back_merges_nothing"),
    ("merge", "git", "dependency.git", _FORGE + "clean_tree.py::test_a_git_that_fails_is_a_dependency_that_is_down"),
    ("merge", "a branch that can be written", "dependency.forge", _FORGE + "merge.py::test_a_proposal_that_cannot_be_written_is_refused_as_a_dependency"),
    ("merge", "room on the disk", "merge.write", _FORGE + "clean_tree.py::test_a_full_disk_at_any_file_brings_everything_back"),
    ("merge", "hook folder of a bare repository", "dependency.forge", "tests/unit/forges/test_pre_receive.py::test_a_hook_folder_that_cannot_be_written_is_a_dependency_down"),
    ("merge", "verify commands that can run", "dependency.sandbox", _PIPELINE + "pipeline_effects.py::test_a_command_that_cannot_run_is_never_a_pass"),
    ("run", "state database, unlocked", "dependency.database", _E2E + "test_locked_database_refuses"),
    ("run", "state database, whole", "dependency.database", _E2E + "test_damaged_database_refuses"),
    ("run", "its row", "dependency.database", _PIPELINE + "pipeline_record.py::test_a_damaged_row_is_refused_everywhere_and_never_skipped"),
    ("run", "engine file, whole", "dependency.engine", _PIPELINE + "pipeline_engine.py::test_a_damaged_or_unwritable_engine_file_is_refused"),
    ("run", "engine file that holds data only", "dependency.engine", _CONTROL + "state.py::test_a_pickle_in_the_engines_file_is_never_loaded"),
    ("run", "disk and files of the machine", "dependency.machine", _CONTROL + "state.py::test_a_full_disk_at_any_step_is_a_refusal_and_no_bug_of_ours"),
    ("run", "state folder of its user alone", "dependency.state", _CONTROL + "folders.py::test_a_state_folder_that_others_can_write_is_refused"),
    ("run", "engine file, unlocked", "dependency.engine", _PIPELINE + "pipeline_engine.py::test_a_locked_engine_file_is_refused_and_never_waited_for_without_end"),
    ("run", "one process at a time", "exit 2", _PIPELINE + "pipeline_drive.py::test_a_run_is_not_driven_while_another_process_holds_it"),
    ("run", "a process that lives", "exit 5", _KILL + "test_a_second_death_at_work_ends_the_run"),
    ("console", "state and log, to decide", "dependency.audit", "tests/unit/console/test_console_decide.py::test_a_broken_dependency_decides_nothing_and_says_so"),
    ("console", "a server that comes up", "dependency.console", "tests/unit/console/test_console_server.py::test_a_server_that_does_not_come_up_is_a_refusal"),
    ("console", "state and log, to read", "dependency.audit", _PIPELINE + "pipeline_reader.py::test_a_broken_log_is_an_error_and_never_an_empty_list"),
)  # fmt: skip

FAIL_MODES: tuple[FailMode, ...] = tuple(
    FailMode(guard=guard, depends_on=depends_on, reason=reason, tested_by=test)
    for guard, depends_on, reason, test in _ROWS
)
