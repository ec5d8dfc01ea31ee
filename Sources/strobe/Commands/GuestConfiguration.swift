import Engine

/// What a guest can be defined again with, out of a restore point.
enum GuestConfiguration {
  /// - Throws: `notFound` when the point has none.
  static func of(_ point: RestorePoint) throws(StrobeError) -> String {
    guard let text = point.machine?.configuration else {
      throw StrobeError(
        .notFound, "\(point.collection)@\(point.id.prefix(12)) has no definition of a guest",
        advice: "it is kept in points of libvirt domains (strobe snapshot --libvirt)")
    }
    return text
  }
}
