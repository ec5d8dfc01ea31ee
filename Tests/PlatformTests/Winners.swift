import Synchronization

/// Who came through, collected from many threads.
final class Winners: Sendable {
  private let indices = Mutex<[Int]>([])

  func add(_ index: Int) { indices.withLock { $0.append(index) } }

  var all: [Int] { indices.withLock { $0 } }
}
