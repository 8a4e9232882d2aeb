//! Bugs planted on purpose, so that it can be shown that the tests would catch them.
//!
//! Without the cargo feature `planted`, which no release has, [`is`] is a constant `false` and nothing of this is
//! left in the program. With it, the bug that the environment variable `LAKEHOUSE_PLANTED` names is switched on.
//! `tests/tests/planted` says which test must catch which bug, and runs it.

/// A mistake that a careful author could make, at the place where it would be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A create whose reply was lost is sent again, its "exists" is a lost race, and nobody looks for the own commit:
    /// it is published again.
    LostReplyIsALoss,
    /// "Exists" is believed without reading the object, although nothing may be there.
    ExistsUnread,
    /// Staged files are deleted when it is unknown whether the commit landed.
    CleanedAfterUnknown,
    /// Manifests are deleted when it is unknown whether the metadata file that needs them is there.
    DiscardedAfterUnknown,
    /// A refusal counts as certain, although an earlier put of the same name may still be carried out.
    LateWriteForgotten,
    /// Put-if-absent is an ordinary put.
    CreateOverwrites,
    /// On local disk a name is taken by a rename, which replaces.
    LocalNameReplaced,
    /// The version hint is the newest version.
    HintTrusted,
    /// The last version of a listing is the newest.
    StaleListTrusted,
    /// Masks that are fitted to winners lack the rows that those masked.
    WinnersMaskForgotten,
    /// Masks are united without asking whether the winner took a row that was matched.
    MasksUnitedUnseen,
    /// R2 is skipped: a winner's mask is no reason to look again.
    MaskChangeUnseen,
    /// Deletes are checked against nothing: what they delete may go twice.
    DeletesUnchecked,
    /// R3 is skipped for merges, as if only the rows counted that they write.
    MergesReadNothing,
    /// R2 is skipped for compactions, which change no row.
    CompactionBringsBack,
    /// An overwrite notes no read, as if it were blind.
    OverwriteReadsNothing,
    /// The idempotency key is looked for once, before the first attempt.
    KeyNotLookedForAgain,
    /// Nobody asks whether a step of a stream follows the last one that is recorded.
    StepsInterleave,
    /// A commit with an idempotency key forgets the keys before it.
    KeysForgotten,
    /// A mask is written over with the rows of this operation only.
    OldMaskForgotten,
    /// A checkpoint holds the files of the first batch only.
    CheckpointOfAPart,
    /// A checkpoint forgets what only the checkpoint before it knew.
    CheckpointWithoutTheLast,
    /// `_last_checkpoint` is written before the checkpoint that it names.
    PointerBeforeCheckpoint,
    /// Files of a checkpoint count whatever later log entries say of them.
    ReplacedFilesListed,
    /// Row ids start where the parent's did.
    RowIdsReused,
    /// A file whose mask changes gets new row ids.
    FileIdsForgotten,
    /// Changed rows are kept as they are, and not as they were.
    OldRowsUntold,
    /// A path of the metadata is percent-decoded twice.
    DecodedTwice,
    /// A path outside the table is taken for one inside.
    OutsideAccepted,
    /// A path is inside the table if it starts like the table's.
    PrefixWithoutSlash,
    /// An upper bound that is cut is not raised.
    UpperBoundCut,
    /// An error repeats the location with the password in it.
    PasswordRepeated,
    /// An upload in parts that failed is left at the store.
    UploadLeft,
    /// A restore is published over whatever came before it.
    RestoreUnchecked,
    /// R4 is skipped: a winner may have changed the columns.
    ColumnsUnchecked,
    /// Rows that winners added are not looked at when a merge is fitted to them.
    NewRowsUnseen,
    /// Rows that a compaction moved are not looked for when a change is fitted to it.
    MovedRowsUnseen,
    /// The newest version seen is the newest there is.
    CacheTrusted,
    /// Table metadata is read back only after it was published.
    PublishedUnread,
    /// A branch is moved to another whatever it has that the other lacks.
    ForwardUnchecked,
    /// New files are published over a commit that renamed columns, whose names their statistics have.
    RenamesUnseen,
    /// Rows that go are copied with their row group, and not masked where it comes to be.
    NewMaskForgotten,
    /// What versions need is looked up before the objects are listed, and not again.
    VacuumLooksFirst,
    /// The age of objects is measured by the clock of this machine.
    VacuumByLocalClock,
    /// Files of masks are needed by nobody.
    VacuumForgetsMasks,
    /// Versions before the newest need no files of their own.
    VacuumForgetsVersions,
    /// Rows that went while their file was compacted are not masked in the new files.
    CarriedMaskForgotten,
    /// Rows that a compaction moves are looked for next to where they are.
    MovedPositionsOff,
    /// A compaction is published over a new format version, whose rows have ids.
    UpgradeUnseen,
    /// Groups of a compaction that wait are taken for what they were, whoever committed since.
    GroupsLeftBehind,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 50] = [
        Self::LostReplyIsALoss,
        Self::ExistsUnread,
        Self::CleanedAfterUnknown,
        Self::DiscardedAfterUnknown,
        Self::LateWriteForgotten,
        Self::CreateOverwrites,
        Self::LocalNameReplaced,
        Self::HintTrusted,
        Self::StaleListTrusted,
        Self::WinnersMaskForgotten,
        Self::MasksUnitedUnseen,
        Self::MaskChangeUnseen,
        Self::DeletesUnchecked,
        Self::MergesReadNothing,
        Self::CompactionBringsBack,
        Self::OverwriteReadsNothing,
        Self::KeyNotLookedForAgain,
        Self::StepsInterleave,
        Self::KeysForgotten,
        Self::OldMaskForgotten,
        Self::CheckpointOfAPart,
        Self::CheckpointWithoutTheLast,
        Self::PointerBeforeCheckpoint,
        Self::ReplacedFilesListed,
        Self::RowIdsReused,
        Self::FileIdsForgotten,
        Self::OldRowsUntold,
        Self::DecodedTwice,
        Self::OutsideAccepted,
        Self::PrefixWithoutSlash,
        Self::UpperBoundCut,
        Self::PasswordRepeated,
        Self::UploadLeft,
        Self::RestoreUnchecked,
        Self::ColumnsUnchecked,
        Self::NewRowsUnseen,
        Self::MovedRowsUnseen,
        Self::CacheTrusted,
        Self::PublishedUnread,
        Self::ForwardUnchecked,
        Self::RenamesUnseen,
        Self::NewMaskForgotten,
        Self::VacuumLooksFirst,
        Self::VacuumByLocalClock,
        Self::VacuumForgetsMasks,
        Self::VacuumForgetsVersions,
        Self::CarriedMaskForgotten,
        Self::MovedPositionsOff,
        Self::UpgradeUnseen,
        Self::GroupsLeftBehind,
    ];
}

/// Whether this bug is switched on.
#[cfg(not(feature = "planted"))]
pub const fn is(_: Bug) -> bool {
    false
}

/// Whether this bug is switched on.
///
/// # Panics
/// When `LAKEHOUSE_PLANTED` names no bug: a test that looks for it would look for nothing.
#[cfg(feature = "planted")]
pub fn is(bug: Bug) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        let name = std::env::var("LAKEHOUSE_PLANTED").ok()?;
        let known = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
        Some(known.unwrap_or_else(|| panic!("LAKEHOUSE_PLANTED={name} is none of {:?}", Bug::ALL)))
    });
    *planted == Some(bug)
}
