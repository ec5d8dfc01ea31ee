import ChangeDetection

/// Numbers the segments that a layer really names, in the order in which it meets them.
package struct SegmentNumbers {
  package private(set) var ids: [ObjectID] = []
  private var numbers: [ObjectID: UInt32] = [:]

  package init() {}

  package mutating func number(of id: ObjectID) -> UInt32 {
    if let number = numbers[id] { return number }
    let number = UInt32(ids.count)
    numbers[id] = number
    ids.append(id)
    return number
  }
}

extension GroupMap {
  /// Takes over the chunks with content of a group that `chain` resolved, their segments numbered anew.
  func add(storedOf resolved: GroupMap, of chain: Chain, _ numbers: inout SegmentNumbers) {
    for word in resolved.stored.indices {
      forEachBit(of: resolved.stored[word]) { bit in
        let index = word * 64 + bit
        let location = resolved.location(index)
        let number = numbers.number(of: chain.segments[Int(location.segment)])
        set(index, resolved.fingerprint(index), location.renumbered(number))
      }
    }
  }
}
