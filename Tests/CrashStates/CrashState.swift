import TestSupport

// Choosing one of the states that a crash may leave: see FileSystemModel.swift for what is allowed.

extension FileSystemModel {
  /// The states that are always tried; all numbers after them are random.
  enum Fixed: Int, CaseIterable {
    /// As a killed program leaves it.
    case applied
    /// Nothing that wasn't asked to be durable is.
    case lost
    /// All names, no bytes, files as short as they may be: what ext4 and XFS leave of a file that nobody synced.
    case namesOnly
    /// All names and sizes, no bytes.
    case zeros
    /// All bytes, no names.
    case bytesOnly
  }

  /// One state; the same number and generator give the same.
  func state(_ variant: Int, _ random: inout SeededGenerator) -> DiskImage {
    switch Fixed(rawValue: variant) {
    case .applied: return image(current) { $0.current }
    case .lost: return image(durable) { $0.durable }
    case .namesOnly: return image(current) { $0.durable }
    case .zeros: return image(current) { $0.withoutBytes }
    case .bytesOnly: return image(durable) { $0.current }
    case nil: return randomState(&random)
    }
  }

  private func randomState(_ random: inout SeededGenerator) -> DiskImage {
    let chances = [0.05, 0.3, 0.5, 0.7, 0.95]
    var tree = durable
    if Int.random(in: 0..<3, using: &random) == 0 {
      // Metadata in order, as journals keep it.
      for effect in pending.prefix(Int.random(in: 0...pending.count, using: &random)) {
        Self.apply(effect, to: &tree)
      }
    } else {
      let chance = chances.randomElement(using: &random)!
      for effect in pending where Double.random(in: 0..<1, using: &random) < chance {
        Self.apply(effect, to: &tree)
      }
    }
    let chance = chances.randomElement(using: &random)!
    var contents: [Node: Content] = [:]
    for (node, file) in files.sorted(by: { $0.key < $1.key }) where !file.pending.isEmpty {
      contents[node] = file.random(chance, &random)
    }
    return image(tree, contents)
  }

  private func image(_ tree: Tree, _ content: (File) -> Content) -> DiskImage {
    var image = DiskImage()
    walk(tree, Self.root, "", &image) { content(files[$0]!) }
    return image
  }

  private func image(_ tree: Tree, _ contents: [Node: Content]) -> DiskImage {
    var image = DiskImage()
    walk(tree, Self.root, "", &image) { contents[$0] ?? files[$0]!.durable }
    return image
  }

  private func walk(
    _ tree: Tree, _ folder: Node, _ path: String, _ image: inout DiskImage,
    _ content: (Node) -> Content
  ) {
    for (name, node) in tree[folder]! {
      let inner = path.isEmpty ? name : path + "/" + name
      if files[node] == nil {
        image.folders.append(inner)
        walk(tree, node, inner, &image, content)
      } else {
        image.files.append((inner, content(node)))
      }
    }
  }
}

extension FileSystemModel.File {
  /// The size that it has by now, with what was durable and zeros where there was nothing.
  fileprivate var withoutBytes: Content {
    guard !pending.isEmpty else { return durable }
    var bytes = durable.bytes
    bytes.setSize(current.bytes.count)
    return Content(bytes)
  }

  fileprivate func random(_ chance: Double, _ random: inout SeededGenerator) -> Content {
    var bytes = durable.bytes
    for effect in pending {
      let draw = Double.random(in: 0..<1, using: &random)
      if draw < chance * 0.8 {
        effect.apply(to: &bytes)
      } else if draw < chance * 0.8 + 0.2 {
        effect.tear(&bytes, &random)
      }
    }
    switch Int.random(in: 0..<4, using: &random) {
    case 0: bytes.setSize(current.bytes.count)
    case 1:
      // The size lags behind the bytes; never below what is durable or was cut off on purpose.
      let least = min(durable.bytes.count, current.bytes.count)
      if bytes.count > least {
        let size = Int.random(in: least...bytes.count, using: &random)
        bytes.setSize(Bool.random(using: &random) ? max(least, size & ~511) : size)
      }
    default: break
    }
    return Content(bytes)
  }
}

extension Step.DataEffect {
  /// Carries out a part of the effect.
  fileprivate func tear(_ bytes: inout [UInt8], _ random: inout SeededGenerator) {
    switch self {
    case .write(let offset, let written):
      for piece in Self.pieces(offset..<(offset + written.count), of: 512, &random) {
        bytes.put(
          written[(piece.lowerBound - offset)..<(piece.upperBound - offset)], at: piece.lowerBound)
      }
    case .punch(let range), .zero(let range):
      for piece in Self.pieces(range, of: 4096, &random) { bytes.clear(piece) }
    case .truncate, .allocate: break
    }
  }

  /// Some of the sectors that a range touches: the first, the last, or any.
  private static func pieces(
    _ range: Range<Int>, of size: Int, _ random: inout SeededGenerator
  ) -> [Range<Int>] {
    guard !range.isEmpty else { return [] }
    var all: [Range<Int>] = []
    var start = range.lowerBound
    while start < range.upperBound {
      let end = min(range.upperBound, start / size * size + size)
      all.append(start..<end)
      start = end
    }
    let count = Int.random(in: 0...all.count, using: &random)
    switch Int.random(in: 0..<3, using: &random) {
    case 0: return Array(all.prefix(count))
    case 1: return Array(all.suffix(count))
    default: return all.filter { _ in Bool.random(using: &random) }
    }
  }
}
