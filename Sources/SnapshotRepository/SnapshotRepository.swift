// SnapshotRepository
