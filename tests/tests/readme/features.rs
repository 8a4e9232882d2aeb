//! The README's table of what works: each row names the tests that would fail if it did not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The first words of each row, as the README has them, and its tests: functions of Rust and Python.
const FEATURES: &[(&str, &[&str])] = &[
    (
        "create, append, overwrite",
        &[
            "every_format_agrees_with_the_model_at_every_version",
            "overwrite_replaces_all_rows_or_those_that_match",
            "test_every_verb_of_the_command_line_does_what_it_says",
        ],
    ),
    (
        "update, delete, merge by masks",
        &[
            "few_rows_are_masked_not_rewritten",
            "test_every_reader_reads_every_version",
        ],
    ),
    (
        "change feeds (`--cdc`",
        &[
            "a_change_feed_is_one_pass_and_can_be_played_twice",
            "the_envelope_of_debezium_is_understood",
            "the_newest_row_of_a_key_wins_in_any_order_and_stored_rows_that_are_newer_stay",
            "tombstones_keep_deleted_rows_from_coming_back",
            "null_matches_null_where_asked_for_and_nothing_is_pruned_away",
        ],
    ),
    (
        "the same by rewriting files",
        &[
            "each_file_is_masked_or_rewritten_by_what_it_costs",
            "a_property_asks_for_copy_on_write",
            "test_strategy_says_what_becomes_of_files",
        ],
    ),
    (
        "of rewritten files, row groups",
        &[
            "copying_row_groups_and_decoding_them_give_the_same_rows_lineage_and_true_statistics",
            "test_every_reader_reads_row_groups_that_were_copied",
        ],
    ),
    (
        "rows as they come",
        &[
            "lines_are_committed_once_however_often_the_stream_starts_again",
            "two_runs_of_one_stream_add_each_line_once_in_every_order_with_two_switches",
            "files_that_are_replaced_or_renamed_while_they_are_committed_are_added_once",
            "commits_of_a_stream_ask_for_the_same_and_send_as_much_after_three_hundred_as_after_one_hundred",
            "files_are_committed_once_and_moved_away",
            "lines_from_stdin_are_committed_as_they_come",
            "a_watched_folder_is_left_with_exit_code_0_and_a_line_of_what_was_done",
        ],
    ),
    (
        "rows put in order by compact",
        &[
            "each_order_keeps_the_rows_makes_filters_read_fewer_files_and_a_second_run_does_nothing",
            "new_rows_are_merged_with_what_they_overlap_and_the_other_files_stay",
            "sorting_keeps_to_the_memory_limit",
            "what_is_put_in_order_is_split_into_groups_within_the_bound_and_comes_to_an_end",
            "runs_with_a_budget_put_a_table_in_order_one_after_the_other",
            "the_sort_order_of_a_table_is_kept_unless_rows_shall_stay_as_they_lie",
            "a_clustered_delta_table_is_put_in_order_by_its_columns_and_files_say_who_did_it",
            "test_every_reader_reads_rows_that_were_put_in_order",
        ],
    ),
    (
        "columns that come with rows",
        &[
            "columns_come_with_rows_when_told",
            "updated_rows_keep_the_members_that_the_source_lacks_as_the_naive_model_does",
            "test_every_reader_reads_columns_that_came_with_rows",
        ],
    ),
    (
        "types widened so",
        &["types_are_widened_where_the_format_reads_narrower_ones"],
    ),
    (
        "source larger than `--memory-limit`",
        &[
            "a_source_beyond_the_memory_limit_is_merged_in_parts",
            "rows_that_an_update_would_not_change_stay_where_they_are",
        ],
    ),
    (
        "SQL: queries, INSERT",
        &[
            "insert_puts_values_into_columns_by_their_place",
            "update_sets_the_rows_that_a_query_with_its_condition_finds",
            "delete_takes_the_rows_that_a_query_with_its_condition_finds",
            "merge_does_what_the_verb_does",
            "alter_table_changes_columns_and_properties",
        ],
    ),
    (
        "`lake alter`: columns added",
        &[
            "columns_are_added_renamed_moved_and_dropped_in_one_commit_and_old_versions_keep_theirs",
            "columns_that_come_go_and_change_agree_with_the_model_at_every_version",
            "test_every_reader_sees_renamed_dropped_moved_and_new_columns_and_those_of_before",
            "test_every_reader_reads_what_random_programs_of_evolution_left",
            "test_spark_reads_what_random_programs_of_evolution_left",
        ],
    ),
    (
        "`lake alter`: partitioning changed",
        &[
            "partitionings_that_follow_one_another_agree_with_the_model_at_every_version",
            "test_every_reader_reads_files_of_several_partition_specs",
            "test_every_reader_reads_what_random_programs_of_evolution_left",
            "test_spark_reads_what_random_programs_of_evolution_left",
        ],
    ),
    (
        "`lake alter`: properties; sort order",
        &["sort_order_identifier_and_format_version_are_kept_by_iceberg"],
    ),
    (
        "compact, restore, history",
        &[
            "small_and_masked_files_become_one_per_partition_and_a_second_run_does_nothing",
            "restore_makes_an_old_version_current_again",
            "a_version_whose_files_are_gone_is_not_restored_and_the_error_names_them",
            "the_ways_to_name_a_version_mean_the_same_in_both_formats",
        ],
    ),
    (
        "`lake expire`",
        &[
            "random_tables_expire_at_random_and_every_kept_version_reads_the_same",
            "versions_expire_by_the_stores_clock_whatever_this_machine_shows",
            "the_last_versions_stay_and_read_as_before_and_no_data_file_goes",
            "metadata_files_that_the_log_does_not_name_go_when_they_are_old",
            "test_every_reader_reads_a_table_whose_old_versions_went",
        ],
    ),
    (
        "checkpoints, by commits",
        &["checkpoints_of_both_kinds_read_as_the_log_and_need_no_log_before_them"],
    ),
    (
        "`lake rewrite-manifests`",
        &["fewer_manifests_say_the_same_of_every_file_and_a_second_run_does_nothing"],
    ),
    (
        "`lake vacuum`",
        &[
            "retained_versions_stay_readable_and_a_second_run_does_nothing",
            "files_of_no_version_go_once_they_are_old_enough_and_those_of_others_stay",
            "vacuums_beside_writers_and_readers_remove_nothing_that_is_needed_on_delta",
            "files_that_a_table_was_made_of_are_told_of_by_a_vacuum_and_go_when_it_is_asked_to",
            "test_a_vacuum_of_lake_and_one_of_deltalake_remove_the_same_files",
        ],
    ),
    (
        "`lake maintain`",
        &[
            "a_neglected_table_is_put_in_order_and_a_second_run_does_nothing",
            "the_version_that_was_current_until_now_stays_readable_however_old_it_is",
            "two_at_once_on_one_table_are_harmless",
            "a_watch_says_a_line_for_each_round_and_ends_well_when_it_is_asked_to",
            "test_a_policy_is_a_file_or_a_dict",
        ],
    ),
    (
        "`lake compact`: group by group",
        &[
            "whatever_the_files_are_a_second_run_has_nothing_to_do",
            "on_real_tables_too_a_second_run_does_nothing_and_rows_keep_their_order_within_a_file",
            "whenever_it_is_killed_the_table_is_good_and_the_next_run_goes_on",
            "budgets_of_bytes_and_time_leave_the_rest_for_the_next_run",
            "large_row_groups_are_copied_and_only_small_or_masked_ones_decoded",
            "row_groups_of_less_than_half_of_what_one_may_have_are_joined_and_others_copied",
            "groups_side_by_side_leave_the_table_that_they_leave_one_by_one",
        ],
    ),
    (
        "`lake compact` beside writers",
        &[
            "rows_that_are_deleted_while_their_file_is_rewritten_are_masked_in_the_new_one",
            "what_is_carried_stays_carried_when_others_come_first_again",
            "a_compaction_without_end_fails_no_merging_writer_on_delta",
        ],
    ),
    (
        "tags and branches",
        &[
            "rows_are_written_to_a_branch_audited_and_published",
            "every_statement_writes_to_the_branch_that_its_table_names",
            "test_pyiceberg_reads_tags_and_branches",
        ],
    ),
    (
        "`lake diff`: columns, files and rows",
        &[
            "rows_of_different_columns_are_compared_by_those_that_both_versions_have",
            "versions_that_other_engines_wrote_differ_as_their_rows_do",
        ],
    ),
    (
        "`lake diff`: partitioning",
        &[
            "any_two_versions_differ_in_what_each_of_them_said_when_it_was_committed",
            "a_definition_whose_metadata_are_gone_is_unknown_and_never_the_same",
        ],
    ),
    (
        "`lake check`: files, masks",
        &[
            "tables_of_other_engines_are_clean_at_every_version",
            "what_the_metadata_says_of_a_file_and_is_not_so_is_found",
            "a_checkpoint_that_is_damaged_or_not_what_the_log_gives_is_found",
            "a_manifest_that_is_gone_cut_or_damaged_is_named",
            "a_sound_table_is_clean_and_a_damaged_one_is_exit_code_one",
        ],
    ),
    (
        "`lake show --health`: file sizes",
        &[
            "health_is_told_as_text_as_json_and_as_a_page",
            "test_health_has_the_figures_of_the_table",
        ],
    ),
    (
        "hidden partitioning",
        &[
            "no_file_is_read_that_holds_no_matching_row_whatever_the_transform_and_the_comparison",
            "every_transform_comes_back_from_its_generated_column",
            "test_every_reader_reads_every_kind_of_partitioning",
            "test_hidden_partitions_of_lake_and_of_spark_lose_no_rows_to_either",
        ],
    ),
    (
        "row lineage kept",
        &[
            "rows_keep_their_ids_through_random_programs",
            "rows_that_are_there_get_ids_in_the_commit_that_switches_row_tracking_on_and_keep_them",
            "test_spark_reads_the_row_ids_that_lake_keeps",
        ],
    ),
    (
        "equality deletes of others",
        &["equality_deletes_hide_rows_of_older_files_by_field_id"],
    ),
    (
        "tables copied to another place",
        &[
            "a_copied_table_is_read_from_its_new_place_and_not_written",
            "test_delta_table_that_was_moved_is_written",
        ],
    ),
    (
        "column mapping",
        &[
            "mapped_columns_are_read_by_their_physical_names",
            "test_lake_writes_delta_tables_of_others_that_map_column_names",
        ],
    ),
    (
        "change data feed",
        &[
            "the_feed_says_what_random_programs_did",
            "test_spark_follows_a_table_that_lake_changes",
            "test_deltalake_follows_a_table_that_lake_changes",
        ],
    ),
    (
        "tables that others cluster",
        &[
            "files_of_a_clustered_table_have_statistics_of_its_columns_and_keep_what_is_noted_about_them",
            "test_spark_clusters_a_table_that_lake_writes_and_lake_writes_on",
        ],
    ),
    (
        "`lake alter`: defaults of columns",
        &[
            "a_default_that_is_set_is_for_new_rows_and_that_of_a_new_column_for_all",
            "test_defaults_are_given_to_rows_that_do_not_say",
        ],
    ),
    (
        "CHECK constraints, invariants",
        &[
            "no_verb_lets_a_row_in_that_violates_a_constraint_and_the_row_is_named",
            "a_generated_column_is_computed_wherever_it_is_not_given_and_checked_where_it_is",
            "test_lake_and_spark_let_the_same_rows_in",
            "test_generated_columns_have_the_values_that_spark_computes",
        ],
    ),
    (
        "identity columns",
        &["features_in_use_refuse_writing_also_under_old_protocol_numbers"],
    ),
    (
        "Parquet files that are there become a table",
        &[
            "a_plain_folder_becomes_a_table_and_its_files_stay_where_they_are",
            "verbs_do_to_adopted_files_what_they_do_to_their_own",
            "test_every_reader_reads_folders_that_others_wrote",
        ],
    ),
    (
        "where",
        &[
            "tables_on_local_disk_agree_with_the_model_too",
            "every_verb_does_over_http_what_it_does_in_memory",
            "test_a_table_on_s3_is_written_and_read_with_storage_options",
        ],
    ),
];

/// The first cell of each row of the table.
fn rows(readme: &str) -> Vec<&str> {
    let table = readme.split("## What works today").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| line.split('|').nth(1).unwrap().trim()).collect()
}

/// The names of all functions below these folders.
fn functions(folders: &[&str]) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeSet::new();
    let mut left: Vec<_> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "py") {
            for line in fs::read_to_string(&path).unwrap().lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let at = words.iter().position(|word| ["fn", "def"].contains(word));
                if let Some(name) = at.and_then(|at| words.get(at + 1)) {
                    found.insert(name.split('(').next().unwrap().to_owned());
                }
            }
        }
    }
    found
}

#[test]
fn every_row_of_the_readmes_table_names_tests_that_are_there() {
    let rows = rows(include_str!("../../../README.md"));
    let known = functions(&["tests", "lakehouse-core/src", "lakehouse-py/tests"]);
    for row in &rows {
        let named = FEATURES.iter().filter(|(name, _)| row.starts_with(name)).count();
        assert_eq!(
            named, 1,
            "the row `{row}` of the README has no tests here, or those of two"
        );
    }
    for (name, tests) in FEATURES {
        assert!(
            rows.iter().any(|row| row.starts_with(name)),
            "the README has no row `{name}`"
        );
        for test in *tests {
            assert!(known.contains(*test), "{name}: there is no test {test}");
        }
    }
}
