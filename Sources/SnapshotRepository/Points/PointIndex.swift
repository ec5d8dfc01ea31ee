import Glibc
package import Platform

/// The restore points of a collection, oldest first.
///
/// A point's document never changes once it is there, so what was read of it is kept in
/// `cache/<collection>/points.index`: a list of 10,000 points is one directory and one file. Which points
/// exist is always asked of the store; only new ones are opened.
package struct PointIndex: Sendable {
  package let points: [PointSummary]
  /// Documents that are there but can't be read: why.
  package let unreadable: [StrobeError]
  /// The ids of these.
  package let unreadableIDs: [String]

  private static let magic: [UInt8] = Array("STRBPIDX".utf8)

  package static func load(_ repository: Repository, _ collection: String) throws(StrobeError)
    -> PointIndex
  {
    let names = try repository.store.names(in: "collections/\(collection)")
    let ids = names.filter { $0.hasSuffix(".json") }.map { $0.dropLast(5) }.filter {
      PassID($0) != nil
    }
    let cached = cachedRows(repository, collection)
    var points: [PointSummary] = []
    points.reserveCapacity(ids.count)
    var unreadable: [StrobeError] = []
    var unreadableIDs: [String] = []
    var fresh = 0
    for id in ids {
      if let known = cached[String(id)] {
        points.append(known)
        continue
      }
      do throws(StrobeError) {
        points.append(PointSummary(try RestorePoint.read(repository.store, collection, String(id))))
        fresh += 1
      } catch {
        // Deleted since the directory was read.
        if error.reason == .notFound { continue }
        // Out of descriptors or memory says nothing of the point.
        guard error.isDamage || error.reason == .newerVersion || error.errno == EIO else {
          throw error
        }
        unreadable.append(error)
        unreadableIDs.append(String(id))
      }
    }
    let protected = Set(names.compactMap(PointProtection.point))
    if !protected.isEmpty {
      for index in points.indices {
        points[index].isProtected = protected.contains(points[index].id)
      }
    }
    points.sort { ($0.sequence, $0.created, $0.id) < ($1.sequence, $1.created, $1.id) }
    // Now and then, so that a snapshot an hour doesn't write the whole list every hour.
    if fresh >= 32 || cached.count > points.count + 32 { keep(points, repository, collection) }
    return PointIndex(points: points, unreadable: unreadable, unreadableIDs: unreadableIDs)
  }

  private static func path(_ repository: Repository, _ collection: String) -> String {
    repository.cacheFolder(collection) + "/points.index"
  }

  private static func cachedRows(_ repository: Repository, _ collection: String) -> [String:
    PointSummary]
  {
    guard let bytes = try? readFile(path(repository, collection), limit: 1 << 30),
      bytes.count >= 24,
      Array(bytes[..<8]) == magic, (bytes.count - 24) % PointSummary.rowSize == 0,
      checksum64(Array(bytes.dropLast(8))) == bytes.littleEndian(at: bytes.count - 8),
      bytes.littleEndian(at: 8, as: UInt64.self) == 1
    else { return [:] }
    var rows: [String: PointSummary] = [:]
    rows.reserveCapacity(bytes.count / PointSummary.rowSize)
    for offset in stride(from: 16, to: bytes.count - 8, by: PointSummary.rowSize) {
      guard let row = PointSummary(row: bytes, at: offset, collection: collection) else {
        return [:]
      }
      rows[row.id] = row
    }
    return rows
  }

  /// Writes the cache; a repository that can't be written to goes without.
  private static func keep(_ points: [PointSummary], _ repository: Repository, _ collection: String)
  {
    var bytes = magic
    bytes.append(littleEndian: UInt64(1))
    for point in points { point.append(to: &bytes) }
    bytes.append(littleEndian: checksum64(bytes))
    let local = DirectoryStore(repository.localFolder)
    try? local.put("cache/\(collection)/points.index", bytes, replacing: true)
  }
}

extension Repository {
  /// The names of all collections, in order.
  package func collections() throws(StrobeError) -> [String] {
    do throws(StrobeError) { return try store.namesIfFolder("collections").sorted() } catch {
      throw error.explained(
        "the repository at \(store.location) is not whole: \(error.message)",
        advice: "is everything of it mounted?")
    }
  }
}
