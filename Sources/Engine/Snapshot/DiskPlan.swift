import BlockDevices
import ChangeDetection
import Platform
import SnapshotRepository

/// One disk of a snapshot before it is read: its source, and what its changes are counted against.
struct DiskPlan: Sendable {
  let name: String
  let source: DiskSource
  let geometry: ChunkGeometry
  /// Nil starts a new chain.
  let parent: ParentState?
  let newChainReason: String?
  let tablePath: String

  /// Opens the parent's state of a disk, or says why the disk starts a new chain.
  static func make(
    _ repository: Repository, _ collection: CollectionRecord, name: String, source: DiskSource,
    parent: RestorePoint?, mayDiffer: Bool
  ) -> DiskPlan {
    let tablePath = repository.fingerprintTablePath(collection.name, disk: name)
    func plan(_ state: ParentState?, _ reason: String?) -> DiskPlan {
      DiskPlan(
        name: name, source: source,
        geometry: ChunkGeometry(diskSize: source.size, chunkSize: collection.chunkSize),
        parent: state, newChainReason: reason, tablePath: tablePath)
    }
    guard let parent else { return plan(nil, "first restore point of the collection") }
    guard let old = parent.disks.first(where: { $0.name == name }) else {
      return plan(nil, "disk \(name) is not in the parent point")
    }
    guard old.identity == source.identity.text || mayDiffer else {
      return plan(
        nil, "disk \(name) was replaced: it was \(old.identity), it is \(source.identity.text)")
    }
    let geometry = ChunkGeometry(diskSize: old.size, chunkSize: collection.chunkSize)
    do throws(StrobeError) {
      let chain = try Chain(repository.store, layers: old.layerIDs, geometry: geometry)
      let newest = chain.layers[chain.layers.count - 1].header.id
      let (table, _) = FingerprintTable.open(tablePath, layer: newest.bytes, geometry: geometry)
      return plan(ParentState(chain, table: table), nil)
    } catch {
      return plan(nil, "the parent's record can't be read: \(error.message)")
    }
  }
}
