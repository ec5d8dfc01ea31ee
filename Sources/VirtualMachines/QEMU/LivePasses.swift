import Synchronization

/// The passes that this process runs at this moment: what they made is nobody's leftover.
enum LivePasses {
  private static let stems = Mutex<Set<String>>([])

  /// - Returns: false when one of the collection runs already.
  static func begin(_ names: PassNames) -> Bool {
    stems.withLock { $0.insert(names.stem).inserted }
  }

  static func end(_ names: PassNames) { stems.withLock { _ = $0.remove(names.stem) } }

  /// Whether who gave that name still works.
  static func isRunning(_ names: PassNames) -> Bool {
    names.owner == .own ? stems.withLock { $0.contains(names.stem) } : names.owner.isAlive
  }
}
