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
