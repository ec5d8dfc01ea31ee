import ChangeDetection
import Platform
import SnapshotRepository

/// Says of damaged records which points and bytes they affect.
struct DamageReport {
  let store: any ObjectStore
  let history: CollectionHistory
  let disks: [DiskHistory]

  func damage(
    of failures: [RecordCheck.Failure], chunkSize: Int
  ) throws(StrobeError) -> [Damage] {
    var damage: [Damage] = []
    for (place, disk) in disks.enumerated() {
      var affected = AffectedPoints(disk, store)
      // By position, so that a group is resolved once and neighbours are told as one range.
      let own = failures.filter { Int($0.record.disk) == place }.sorted {
        ($0.record.position, $0.record.offset) < ($1.record.position, $1.record.offset)
      }
      for failure in own {
        let points = try affected.points(
          needing: failure.segment, offset: failure.record.offset,
          position: failure.record.position)
        let start = failure.record.position * chunkSize
        damage.append(
          Damage(
            points: points.map { "\(history.name)@\(history.points[$0].id.prefix(12))" },
            disk: disk.name, range: start..<(start + Int(failure.record.contentLength)),
            error: failure.error))
      }
    }
    return damage
  }
}
