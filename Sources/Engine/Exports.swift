// A program that imports `Engine` sees the errors, progress and points that its methods speak of.
@_exported public import ChangeDetection
@_exported public import Platform
@_exported public import SnapshotRepository
