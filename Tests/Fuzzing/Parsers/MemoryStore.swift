import Platform
import SnapshotRepository
import Synchronization

/// Objects in memory: what a parser reads them through. Writing is for what is encoded again.
final class MemoryStore: ObjectStore {
  let location = "memory"
  private let objects: Mutex<[String: [UInt8]]>

  init(_ objects: [String: [UInt8]] = [:]) { self.objects = Mutex(objects) }

  func replace(_ name: String, _ bytes: [UInt8]) { objects.withLock { $0[name] = bytes } }

  subscript(name: String) -> [UInt8]? { objects.withLock { $0[name] } }

  func get(_ name: String, limit: Int) throws(StrobeError) -> [UInt8] {
    guard let bytes = self[name] else { throw StrobeError(.notFound, "there is no \(name)") }
    guard bytes.count <= limit else {
      throw .damaged(name, expected: "at most \(limit) bytes", found: "\(bytes.count)")
    }
    return bytes
  }

  func put(_ name: String, _ bytes: [UInt8], replacing: Bool) throws(StrobeError) {
    objects.withLock { $0[name] = bytes }
  }

  func open(_ name: String) throws(StrobeError) -> any ObjectReader {
    MemoryReader(name, try get(name, limit: .max))
  }

  func create(_ name: String) throws(StrobeError) -> any ObjectWriter {
    MemoryWriter(self, name)
  }

  func names(in folder: String) throws(StrobeError) -> [String] {
    objects.withLock { objects in
      objects.keys.filter { $0.hasPrefix(folder + "/") }.map {
        String($0.dropFirst(folder.count + 1))
      }
    }
  }

  func namesIfFolder(_ folder: String) throws(StrobeError) -> [String] { try names(in: folder) }
  func remove(_ name: String) throws(StrobeError) { objects.withLock { $0[name] = nil } }
  func removeLeftovers(in folder: String) throws(StrobeError) {}
  func synchronize(_ name: String) throws(StrobeError) {}
  func storage(of name: String) throws(StrobeError) -> ObjectStorage {
    let size = try get(name, limit: .max).count
    return ObjectStorage(size: size, allocated: size)
  }
  func free(_ ranges: [Range<Int>], of name: String) throws(StrobeError) -> Bool { false }
  func rewrite(_ name: String, keeping ranges: [Range<Int>]) throws(StrobeError) {
    throw unused(name)
  }

  // No parser takes a lock.
  func hold(_ name: String) throws(StrobeError) -> any StoreLock { throw unused(name) }
  func removeUnlessHeld(
    _ name: String, check: () throws(StrobeError) -> Void
  ) throws(StrobeError) -> Bool { throw unused(name) }
  func replaceUnlessHeld(_ name: String, _ bytes: [UInt8]) throws(StrobeError) -> Bool {
    throw unused(name)
  }
  func lock(_ name: String, note: String) throws(StrobeError) -> (any StoreLock)? {
    throw unused(name)
  }
  func takeOver(lock name: String, note: String) throws(StrobeError) -> (any StoreLock)? {
    throw unused(name)
  }
  func rename(lock: any StoreLock, to name: String) throws(StrobeError) { throw unused(name) }
  func holder(ofLock name: String) throws(StrobeError) -> String? { throw unused(name) }

  private func unused(_ name: String) -> StrobeError {
    StrobeError(.refused, "\(name): there are no locks in memory")
  }
}

private final class MemoryReader: ObjectReader {
  private let name: String
  private let bytes: [UInt8]
  let size: Int

  init(_ name: String, _ bytes: [UInt8]) {
    self.name = name
    self.bytes = bytes
    size = bytes.count
  }

  func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(StrobeError) {
    require(offset >= 0, "nobody reads before the beginning")
    guard offset <= size, buffer.count <= size - offset else {
      throw .damaged(name, expected: "\(buffer.count) bytes at \(offset)", found: "\(size) bytes")
    }
    unsafe bytes.withUnsafeBytes {
      unsafe buffer.copyMemory(
        from: UnsafeRawBufferPointer(rebasing: $0[offset..<(offset + buffer.count)]))
    }
  }

  func prefetch(_ range: Range<Int>) {}
}

private final class MemoryWriter: ObjectWriter {
  private let store: MemoryStore
  private let name: String
  private let bytes = Mutex<[UInt8]>([])

  init(_ store: MemoryStore, _ name: String) {
    self.store = store
    self.name = name
  }

  func write(_ written: UnsafeRawBufferPointer, at offset: Int) throws(StrobeError) {
    bytes.withLock { bytes in
      require(offset == bytes.count, "a layer is written front to back")
      unsafe bytes.append(contentsOf: written)
    }
  }

  func finish() throws(StrobeError) {
    try store.put(name, bytes.withLock { $0 }, replacing: true)
  }
}
