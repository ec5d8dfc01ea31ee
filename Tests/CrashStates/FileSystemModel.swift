import Platform

// What a file system may have on the medium after a power cut, given what was asked of it before.
//
// Durable, and in every state:
// - fsync(2) of a file: its bytes and its size at that moment. Not its name.
// - fsync(2) of a folder: the entries that it has at that moment, whatever they lead to. Not its own name.
//
// Pending, and in a state or not:
// - Bytes written, cut off or punched since the file's last fsync: each such effect on its own is kept, lost, or, where
//   it has several parts, torn. A write is torn at sectors of 512 bytes: any of them may be there or not, in any order. A
//   punch is torn at blocks of 4,096. Two effects on one place are kept in their order.
// - The size that they gave the file, apart from the bytes: what lies between and was lost reads as zeros (a file system
//   that allocates first), or the file ends before it (ext4 and XFS write the size after the data). Bytes
//   of other files never appear (ext4 with data=ordered, XFS and Btrfs don't show them).
// - Entries of folders made, replaced and removed since the folder's last fsync: each call on its own is kept or lost, so
//   that a later one may be there without an earlier one. POSIX allows that; ext4, XFS and Btrfs keep metadata in
//   order, so states with a prefix of the calls are among those that are tried, more often than chance would.
// - rename(2) within a folder is one change: both names or neither; one that replaces leaves the old or the new file,
//   never none. Between folders it is two, kept and lost on their own.
// - fsync of a file on ext4 and XFS writes all metadata before it as well. Nothing here relies on that.
//
// A program that is killed leaves everything applied: that is the first state of every prefix.

/// A file system's tree, what of it is durable, and what is pending.
struct FileSystemModel {
  typealias Node = Int
  static let root: Node = 0

  struct File {
    var durable: Content
    /// Since the last fsync, in order.
    var pending: [Step.DataEffect] = []
    var current: Content
  }

  /// An entry that comes, or that goes if it still is what went.
  struct NameChange {
    let folder: Node
    let name: String
    let removed: Node?
    let added: Node?
  }

  /// What one call changed: all of it is kept or lost.
  typealias NameEffect = [NameChange]
  typealias Tree = [Node: [String: Node]]

  private(set) var files: [Node: File] = [:]
  /// Entries by folder.
  private(set) var durable: Tree = [root: [:]]
  private(set) var current: Tree = [root: [:]]
  private(set) var pending: [NameEffect] = []
  private var objects: [UInt64: Node] = [:]
  private var lastNode = root

  /// Everything in `image` is durable.
  init(_ image: DiskImage) {
    for path in image.folders { makeFolder(path) }
    for file in image.files {
      let node = newFile(file.content)
      name(path: file.path, node)
    }
    synchronizeAll()
  }

  // ---------------------------------------------------------------- steps

  /// - Throws: ``Step/Unknown`` when the record doesn't fit what is known.
  mutating func apply(_ step: Step) throws {
    switch step.kind {
    case .note: break
    case .known(let object, let path):
      guard let node = lookUp(path), files[node] != nil else { throw lost(path) }
      objects[object] = node
    case .create(let object, let path):
      objects[object] = newFile(.empty)
      name(path: path, objects[object]!)
    case .unnamed(let object): objects[object] = newFile(.empty)
    case .data(let object, let effect): try change(object, effect)
    case .synchronize(let object):
      guard let node = objects[object] else { throw lost("object \(object)") }
      synchronize(node)
    case .synchronizeFolder(let path):
      guard let node = lookUp(path) else { throw lost(path) }
      synchronize(folder: node)
    case .synchronizeAll: synchronizeAll()
    case .rename(let from, let to): try rename(from, to)
    case .exchange(let left, let right): try exchange(left, right)
    case .link(let object, let path):
      guard let node = objects[object] else { throw lost("object \(object)") }
      name(path: path, node)
    case .unlink(let path), .removeFolder(let path):
      guard let node = lookUp(path) else { throw lost(path) }
      let place = try place(path)
      note([NameChange(folder: place.folder, name: place.name, removed: node, added: nil)])
    case .makeFolder(let path): makeFolder(path)
    }
  }

  private func lost(_ what: String) -> Step.Unknown {
    Step.Unknown(description: "the record speaks of \(what), which the model doesn't have")
  }

  private mutating func newFile(_ content: Content) -> Node {
    lastNode += 1
    files[lastNode] = File(durable: .empty, current: content)
    return lastNode
  }

  private mutating func makeFolder(_ path: String) {
    lastNode += 1
    current[lastNode] = [:]
    durable[lastNode] = [:]
    name(path: path, lastNode)
  }

  private mutating func name(path: String, _ node: Node) {
    guard let place = try? place(path) else { preconditionFailure("\(path) is in no folder") }
    note([NameChange(folder: place.folder, name: place.name, removed: nil, added: node)])
  }

  private mutating func note(_ effect: NameEffect) {
    Self.apply(effect, to: &current)
    pending.append(effect)
  }

  static func apply(_ effect: NameEffect, to tree: inout Tree) {
    for change in effect {
      if let added = change.added {
        tree[change.folder]![change.name] = added
      } else if tree[change.folder]![change.name] == change.removed {
        tree[change.folder]![change.name] = nil
      }
    }
  }

  private mutating func rename(_ from: String, _ to: String) throws {
    guard let node = lookUp(from) else { throw lost(from) }
    let (old, new) = (try place(from), try place(to))
    let removal = NameChange(folder: old.folder, name: old.name, removed: node, added: nil)
    let addition = NameChange(folder: new.folder, name: new.name, removed: nil, added: node)
    if old.folder == new.folder {
      note([removal, addition])
    } else {
      note([addition])
      note([removal])
    }
  }

  private mutating func exchange(_ left: String, _ right: String) throws {
    guard let first = lookUp(left), let second = lookUp(right) else { throw lost(left) }
    let (one, other) = (try place(left), try place(right))
    note([
      NameChange(folder: one.folder, name: one.name, removed: first, added: second),
      NameChange(folder: other.folder, name: other.name, removed: second, added: first),
    ])
  }

  private mutating func change(_ object: UInt64, _ effect: Step.DataEffect) throws {
    guard let node = objects[object], var file = files[node] else { throw lost("object \(object)") }
    var bytes = file.current.bytes
    effect.apply(to: &bytes)
    file.current = Content(bytes)
    file.pending.append(effect)
    files[node] = file
  }

  // ---------------------------------------------------------------- durability

  private mutating func synchronize(_ node: Node) {
    guard var file = files[node] else { return }
    file.durable = file.current
    file.pending = []
    files[node] = file
  }

  private mutating func synchronize(folder: Node) {
    var left: [NameEffect] = []
    for effect in pending {
      let (here, elsewhere) = (
        effect.filter { $0.folder == folder }, effect.filter { $0.folder != folder }
      )
      Self.apply(here, to: &durable)
      if !elsewhere.isEmpty { left.append(elsewhere) }
    }
    pending = left
  }

  private mutating func synchronizeAll() {
    for node in files.keys { synchronize(node) }
    durable = current
    pending = []
  }

  // ---------------------------------------------------------------- paths

  private func place(_ path: String) throws -> (folder: Node, name: String) {
    guard let slash = path.lastIndex(of: "/") else { return (Self.root, path) }
    guard let folder = lookUp(String(path[..<slash])), current[folder] != nil else {
      throw lost(path)
    }
    return (folder, String(path[path.index(after: slash)...]))
  }

  private func lookUp(_ path: String) -> Node? {
    var node = Self.root
    for part in path.split(separator: "/") {
      guard let next = current[node]?[String(part)] else { return nil }
      node = next
    }
    return node
  }
}

extension Step.DataEffect {
  /// Carries out the whole effect.
  func apply(to bytes: inout [UInt8]) {
    switch self {
    case .write(let offset, let written): bytes.put(written[...], at: offset)
    case .truncate(let size): bytes.setSize(size)
    case .punch(let range): bytes.clear(range)
    case .zero(let range):
      bytes.setSize(max(bytes.count, range.upperBound))
      bytes.clear(range)
    case .allocate(let end): bytes.setSize(max(bytes.count, end))
    }
  }
}

extension [UInt8] {
  /// Cuts off, or fills up with zeros.
  mutating func setSize(_ size: Int) {
    if size < count {
      removeLast(count - size)
    } else {
      append(contentsOf: repeatElement(0, count: size - count))
    }
  }

  mutating func put(_ written: ArraySlice<UInt8>, at offset: Int) {
    setSize(Swift.max(count, offset + written.count))
    replaceSubrange(offset..<(offset + written.count), with: written)
  }

  mutating func clear(_ range: Range<Int>) {
    let range = range.clamped(to: 0..<count)
    replaceSubrange(range, with: repeatElement(0, count: range.count))
  }
}
