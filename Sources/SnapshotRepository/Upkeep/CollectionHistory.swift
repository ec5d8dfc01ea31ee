package import ChangeDetection
import Platform

/// The points of one collection, oldest first, and what their disks are made of.
package struct CollectionHistory: Sendable {
  package struct Point: Sendable {
    package let id: String
    package let sequence: Int
    package let created: Timestamp
  }

  package let name: String
  package let points: [Point]
  package let disks: [DiskHistory]

  package init(name: String, _ facts: [PointFacts]) {
    let ordered = facts.sorted {
      ($0.sequence, $0.created, $0.id) < ($1.sequence, $1.created, $1.id)
    }
    self.name = name
    points = ordered.map { Point(id: $0.id, sequence: $0.sequence, created: $0.created) }
    var names: [String] = []
    for point in ordered {
      for disk in point.disks where !names.contains(disk.name) { names.append(disk.name) }
    }
    disks = names.map { DiskHistory(name: $0, ordered) }
  }
}

/// The chains of one disk through all points of its collection.
package struct DiskHistory: Sendable {
  /// One point's chain.
  package struct Link: Sendable {
    /// The point's place in ``CollectionHistory/points``.
    package let point: Int
    package let geometry: ChunkGeometry
    /// Places in ``layers``, oldest first.
    package let chain: [Int]
  }

  package let name: String
  /// The layers that `isWanted` accepts, and all points whose chains have no other.
  package func keeping(_ isWanted: (ObjectID) -> Bool) -> DiskHistory {
    DiskHistory(
      name: name, layers, links.filter { $0.chain.allSatisfy { isWanted(layers[$0]) } })
  }

  /// Every layer that some chain has, in the order in which they were made, as far as it is known.
  package let layers: [ObjectID]
  package let links: [Link]
  /// For each layer the ways in which chains go on after it, without those that begin with another of
  /// them: what a shorter way hides, a longer one hides as well, so the shortest tell what is seen.
  package let continuations: [[ArraySlice<Int>]]

  init(name: String, _ points: [PointFacts]) {
    var places: [ObjectID: Int] = [:]
    var layers: [ObjectID] = []
    var links: [Link] = []
    for (index, point) in points.enumerated() {
      guard let disk = point.disks.first(where: { $0.name == name }) else { continue }
      let chain = disk.layers.map { id in
        if let place = places[id] { return place }
        places[id] = layers.count
        layers.append(id)
        return layers.count - 1
      }
      links.append(
        Link(
          point: index,
          geometry: ChunkGeometry(diskSize: disk.size, chunkSize: point.chunkSize), chain: chain))
    }
    self.init(name: name, layers, links)
  }

  private init(name: String, _ layers: [ObjectID], _ links: [Link]) {
    self.name = name
    self.layers = layers
    self.links = links
    continuations = Self.continuations(links, count: layers.count)
  }

  private static func continuations(_ links: [Link], count: Int) -> [[ArraySlice<Int>]] {
    var ways = [[ArraySlice<Int>]](repeating: [], count: count)
    for link in links {
      for (index, layer) in link.chain.enumerated() {
        let way = link.chain[(index + 1)...]
        if ways[layer].contains(where: { way.starts(with: $0) }) { continue }
        ways[layer].removeAll { $0.starts(with: way) }
        ways[layer].append(way)
      }
    }
    return ways
  }
}
