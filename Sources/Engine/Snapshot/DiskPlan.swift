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
  /// Whether the new chain is something that the reader didn't ask for and should know.
  let isSurprise: Bool
  let tablePath: String

  /// Opens the parent's state of a disk, or says why the disk starts a new chain.
  static func make(
    _ repository: Repository, _ collection: CollectionRecord, name: String, source: DiskSource,
    parent: RestorePoint?, _ options: SnapshotOptions
  ) throws(StrobeError) -> DiskPlan {
    let tablePath = repository.fingerprintTablePath(collection.name, disk: name)
    func plan(_ state: ParentState?, _ reason: String?, warns: Bool = false) -> DiskPlan {
      DiskPlan(
        name: name, source: source,
        geometry: ChunkGeometry(diskSize: source.size, chunkSize: collection.chunkSize),
        parent: state, newChainReason: reason, isSurprise: warns, tablePath: tablePath)
    }
    guard let parent else { return plan(nil, "first restore point of the collection") }
    if options.isFull { return plan(nil, "a full point was asked for") }
    // A chunk that isn't stored again must be one that the new point's own key checks.
    guard parent.secret == collection.secret else {
      return plan(
        nil, "the collection's fingerprints are made otherwise than the parent point's", warns: true
      )
    }
    guard let old = parent.disks.first(where: { $0.name == name }) else {
      return plan(nil, "disk \(name) is not in the parent point")
    }
    if old.identity != source.identity.text, !options.sameDisks.contains(name) {
      try refuseSwapped(name, source, parent)
      let reason =
        "disk \(name) was replaced: \(source.path) is another device than at the last point"
        + " (\(source.identity.text) instead of \(old.identity)); if it is a copy of the old one: "
        + "--same-disk \(name)"
      return plan(nil, reason, warns: true)
    }
    // What verify found damaged must not be built on.
    let verified = (try? VerificationRecord.read(repository.store, collection.name)) ?? .init()
    for layer in old.layerIDs where verified.isDamaged(layer: layer) {
      // Unless it was put back since.
      let reader = try? LayerReader(repository.store, layer)
      if (try? reader?.checkAllGroups(CancellationFlag())) != nil { continue }
      return plan(nil, "\(layer.layerName) of the parent is damaged", warns: true)
    }
    let geometry = ChunkGeometry(diskSize: old.size, chunkSize: collection.chunkSize)
    do throws(StrobeError) {
      let chain = try Chain(repository.store, layers: old.layerIDs, geometry: geometry)
      let newest = chain.layers[chain.layers.count - 1].header.id
      let (table, _) = FingerprintTable.open(tablePath, layer: newest.bytes, geometry: geometry)
      return plan(ParentState(chain, table: table), nil)
    } catch {
      // Out of descriptors or memory says nothing of the parent.
      guard error.isUnreadable || error.reason == .notFound || error.reason == .newerVersion
      else { throw error }
      return plan(nil, "the parent's record can't be read: \(error.message)", warns: true)
    }
  }

  /// A device that was another disk of the machine at the last point: the names are mixed up.
  private static func refuseSwapped(
    _ name: String, _ source: DiskSource, _ parent: RestorePoint
  ) throws(StrobeError) {
    guard
      let twin = parent.disks.first(where: {
        $0.name != name && $0.identity == source.identity.text
      })
    else { return }
    throw StrobeError(
      .refused, "disk \(name): \(source.path) was disk \(twin.name) at the last point",
      advice: "say where each disk is now with --disk NAME=PATH, or go on with --same-disk \(name)")
  }
}
