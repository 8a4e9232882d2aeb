//! Which test is there for which bug.

use std::time::Duration;

use lakehouse_core::planted::Bug;

/// A bug, and the test that must catch it.
pub(super) struct Catch {
    pub(super) bug: Bug,
    /// Its path in this binary.
    pub(super) test: &'static str,
    /// A piece of what it then says.
    pub(super) says: &'static str,
    /// Environment that makes a long test short.
    pub(super) set: &'static [(&'static str, &'static str)],
    pub(super) budget: Duration,
}

/// Caught within two minutes on a machine with other work; alone, it is seconds.
const fn catch(bug: Bug, test: &'static str, says: &'static str) -> Catch {
    Catch {
        bug,
        test,
        says,
        set: &[],
        budget: Duration::from_secs(120),
    }
}

impl Catch {
    const fn with(self, set: &'static [(&'static str, &'static str)]) -> Self {
        Self { set, ..self }
    }
}

const APPEND_ONLY: &[(&str, &str)] = &[("LAKEHOUSE_FAULTS_VERB", "Append")];
const FEW_PROGRAMS: &[(&str, &str)] = &[("LAKEHOUSE_PROGRAMS", "40")];

pub(super) const CATCHES: &[Catch] = &[
    // One outcome, whatever the store answers.
    catch(
        Bug::LostReplyIsALoss,
        "faults::single::iceberg_v3_survives_every_single_fault",
        "the table cannot be read any more",
    )
    .with(APPEND_ONLY),
    catch(
        Bug::LostReplyIsALoss,
        "faults::single::delta_survives_every_single_fault",
        "the table cannot be read any more",
    )
    .with(APPEND_ONLY),
    catch(
        Bug::LostReplyIsALoss,
        "cloud::whatever_happens_to_a_commit_on_the_wire_it_lands_once_or_not_at_all",
        "the file is missing",
    ),
    catch(
        Bug::ExistsUnread,
        "faults::single::delta_survives_every_single_fault",
        "lost a race, and nobody else was there",
    )
    .with(APPEND_ONLY),
    catch(
        Bug::ExistsUnread,
        "faults::single::creating_a_table_survives_every_single_fault",
        "was said of a table that does not",
    ),
    catch(
        Bug::CleanedAfterUnknown,
        "faults::outage::what_may_have_landed_is_left_alone_whenever_the_store_comes_back",
        "files of a commit that may have landed are gone",
    ),
    catch(
        Bug::DiscardedAfterUnknown,
        "faults::outage::what_may_have_landed_is_left_alone_whenever_the_store_comes_back",
        "files of a commit that may have landed are gone",
    ),
    catch(
        Bug::LateWriteForgotten,
        "races::isolation::a_full_disk_after_a_put_without_an_answer_is_no_certain_failure",
        "a commit that can still land was given up",
    ),
    catch(
        Bug::CreateOverwrites,
        "races::differential::an_operation_that_lost_a_race_ends_as_if_it_had_come_later",
        " met ",
    ),
    catch(
        Bug::LocalNameReplaced,
        "verbs::concurrent::a_name_on_local_disk_is_taken_once",
        "a taken name was given away",
    ),
    // What is newest.
    catch(
        Bug::HintTrusted,
        "faults::single::iceberg_v3_survives_every_single_fault",
        "acknowledged, but not there",
    )
    .with(APPEND_ONLY),
    catch(
        Bug::StaleListTrusted,
        "faults::outage::a_listing_that_lacks_the_newest_version_does_not_hide_it",
        "was believed",
    ),
    catch(
        Bug::CacheTrusted,
        "races::isolation::a_commit_by_another_handle_is_seen_by_the_next_read",
        "a version of another writer is not seen",
    ),
    // Isolation.
    catch(
        Bug::WinnersMaskForgotten,
        "races::isolation::an_update_does_not_bring_back_rows_that_the_winner_deleted",
        "deleted rows are back",
    ),
    catch(
        Bug::MasksUnitedUnseen,
        "races::isolation::an_update_does_not_bring_back_rows_that_the_winner_deleted",
        "deleted rows are back",
    ),
    catch(
        Bug::MaskChangeUnseen,
        "races::isolation::an_update_does_not_bring_back_rows_that_the_winner_deleted",
        "deleted rows are back",
    ),
    catch(
        Bug::DeletesUnchecked,
        "races::isolation::a_delete_takes_the_new_image_of_a_row_that_the_winner_updated",
        "a deleted row is there in another form",
    ),
    catch(
        Bug::MergesReadNothing,
        "races::isolation::a_merge_does_not_insert_a_key_that_the_winner_inserted",
        "a key is there twice",
    ),
    catch(
        Bug::CompactionBringsBack,
        "races::isolation::a_compaction_does_not_bring_back_rows_that_were_deleted_meanwhile",
        "deleted rows are back",
    ),
    catch(
        Bug::CarriedMaskForgotten,
        "races::compacted::rows_that_are_deleted_while_their_file_is_rewritten_are_masked_in_the_new_one",
        "rows are not conserved",
    ),
    catch(
        Bug::MovedPositionsOff,
        "races::compacted::rows_that_are_deleted_while_their_file_is_rewritten_are_masked_in_the_new_one",
        "other rows are there",
    ),
    catch(
        Bug::GroupsLeftBehind,
        "interleave::groups::groups_of_one_compaction_end_as_if_in_turn_with_each_other_and_with_writers_on_iceberg_v3",
        "LAKEHOUSE_SEED=",
    ),
    catch(
        Bug::GroupsLeftBehind,
        "interleave::groups::groups_of_one_compaction_end_as_if_in_turn_with_each_other_and_with_writers_on_delta",
        "LAKEHOUSE_SEED=",
    ),
    catch(
        Bug::CarriedMaskForgotten,
        "interleave::groups::groups_of_one_compaction_end_as_if_in_turn_with_each_other_and_with_writers_on_iceberg_v2",
        "LAKEHOUSE_SEED=",
    ),
    catch(
        Bug::OverwriteReadsNothing,
        "races::isolation::of_an_overwrite_and_what_came_before_it_only_its_rows_are_left",
        "an overwrite left rows of its winner",
    ),
    catch(
        Bug::RenamesUnseen,
        "races::altered::rows_appended_over_a_rename_get_the_columns_that_have_their_names_by_then",
        "a value came to be in another column",
    ),
    catch(
        Bug::UpgradeUnseen,
        "races::compacted::a_compaction_over_an_upgrade_keeps_the_ids_that_rows_got_with_it",
        "rows lost their ids",
    ),
    catch(
        Bug::ForwardUnchecked,
        "verbs::refs::a_branch_that_lacks_versions_of_main_is_no_fast_forward",
        "rows of main were lost by a fast-forward",
    ),
    catch(
        Bug::RestoreUnchecked,
        "races::isolation::a_restore_does_not_undo_what_it_did_not_see",
        "acknowledged rows are gone",
    ),
    catch(
        Bug::ColumnsUnchecked,
        "races::columns::two_appends_that_add_different_columns_both_land",
        "planned on another schema",
    ),
    catch(
        Bug::NewRowsUnseen,
        "races::isolation::a_merge_does_not_insert_a_key_that_the_winner_inserted",
        "a key is there twice",
    ),
    catch(
        Bug::MovedRowsUnseen,
        "races::rows_that_a_compaction_moved_are_found_again",
        "right: 101",
    ),
    // Keys of idempotency.
    catch(
        Bug::KeyNotLookedForAgain,
        "races::isolation::of_two_commits_with_one_key_the_second_does_nothing",
        "one key has committed twice",
    ),
    catch(
        Bug::StepsInterleave,
        "verbs::streams::a_step_lands_only_after_the_step_that_it_names",
        "3 after 0: Ok(",
    ),
    catch(
        Bug::StepsInterleave,
        "interleave::zombies::two_runs_of_one_stream_add_each_line_once_in_every_order_with_two_switches",
        "the lines are [",
    ),
    catch(
        Bug::KeysForgotten,
        "verbs::long::rows_and_keys_of_long_ago_are_still_there",
        "was forgotten",
    ),
    catch(
        Bug::CheckpointWithoutTheLast,
        "verbs::long::rows_and_keys_of_long_ago_are_still_there",
        "was forgotten",
    ),
    // Metadata that is right.
    catch(
        Bug::OldMaskForgotten,
        "verbs::long::rows_that_go_one_by_one_stay_away",
        "deleted rows are back",
    ),
    catch(
        Bug::OldMaskForgotten,
        "model::every_format_agrees_with_the_model_at_every_version",
        "differs:",
    )
    .with(FEW_PROGRAMS),
    catch(
        Bug::NewMaskForgotten,
        "races::a_new_file_keeps_its_mask_when_others_come_first",
        "left: 82",
    ),
    catch(
        Bug::CheckpointOfAPart,
        "faults::checkpoint::a_checkpoint_is_whole_or_not_there_whichever_request_fails",
        "a checkpoint says something else than the log",
    ),
    catch(
        Bug::PointerBeforeCheckpoint,
        "faults::checkpoint::a_checkpoint_is_whole_or_not_there_whichever_request_fails",
        "names a checkpoint that is not there",
    ),
    catch(
        Bug::ReplacedFilesListed,
        "verbs::sifted::of_many_files_only_those_that_a_filter_leaves_are_read_in_full",
        "files are listed that a later commit replaced",
    ),
    catch(
        Bug::RowIdsReused,
        "races::isolation::rows_of_commits_that_raced_have_ids_of_their_own",
        "row ids were given twice",
    ),
    catch(
        Bug::RowIdsReused,
        "races::feed::rows_of_commits_to_delta_that_raced_have_ids_of_their_own",
        "row ids were given twice",
    ),
    catch(
        Bug::FileIdsForgotten,
        "verbs::lineage::ids_stay_for_life_when_rows_are_masked",
        "was not touched",
    ),
    catch(
        Bug::OldRowsUntold,
        "verbs::change_feed::the_feed_says_what_random_programs_did",
        "seed",
    ),
    catch(
        Bug::UpperBoundCut,
        "verbs::scans::texts_longer_than_their_bounds_are_found_merged_and_deleted",
        "rows behind a bound are not found",
    ),
    // Confinement and secrets.
    catch(
        Bug::DecodedTwice,
        "verbs::confined::a_path_is_decoded_once",
        "a path was not decoded once",
    ),
    catch(
        Bug::OutsideAccepted,
        "verbs::confined::paths_outside_the_table_are_denied",
        "a path that leads out of the table was accepted",
    ),
    catch(
        Bug::PrefixWithoutSlash,
        "verbs::confined::paths_outside_the_table_are_denied",
        "a path that leads out of the table was accepted: memory://lake/tenant-a-evil",
    ),
    catch(
        Bug::PasswordRepeated,
        "verbs::confined::a_password_in_a_location_is_refused_and_not_repeated",
        "an error repeats a secret",
    ),
    // What is not published.
    catch(
        Bug::PublishedUnread,
        "verbs::limits::a_commit_that_its_writer_could_not_read_back_is_refused_and_leaves_nothing",
        "a commit that its writer cannot read left",
    ),
    // What is left behind.
    catch(
        Bug::UploadLeft,
        "cloud::uploads::an_operation_that_fails_while_it_sends_a_file_leaves_no_parts_at_the_store",
        "an upload that nobody will complete was left",
    ),
    // What nobody needs any more.
    catch(
        Bug::VacuumLooksFirst,
        "vacuum::cases::a_file_that_a_commit_takes_up_while_the_objects_are_listed_stays",
        "a file that a commit took up was removed",
    ),
    catch(
        Bug::VacuumByLocalClock,
        "vacuum::cases::a_clock_that_is_wrong_removes_nothing_early_and_nothing_late",
        "skew ",
    ),
    catch(
        Bug::VacuumByLocalClock,
        "vacuum::simulated::vacuums_beside_writers_and_readers_remove_nothing_that_is_needed_on_iceberg_v3",
        "LAKEHOUSE_SEED=",
    ),
    catch(
        Bug::VacuumForgetsMasks,
        "vacuum::cases::masks_and_changed_rows_of_retained_versions_stay",
        "masks are gone already",
    ),
    catch(
        Bug::VacuumForgetsMasks,
        "vacuum::simulated::vacuums_beside_writers_and_readers_remove_nothing_that_is_needed_on_delta",
        "LAKEHOUSE_SEED=",
    ),
    catch(
        Bug::VacuumForgetsVersions,
        "vacuum::simulated::vacuums_beside_writers_and_readers_remove_nothing_that_is_needed_on_iceberg_v2",
        "LAKEHOUSE_SEED=",
    ),
    catch(
        Bug::VacuumForgetsVersions,
        "vacuum::simulated::vacuums_beside_writers_and_readers_remove_nothing_that_is_needed_on_delta",
        "LAKEHOUSE_SEED=",
    ),
];
