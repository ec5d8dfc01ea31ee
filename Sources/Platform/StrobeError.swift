/// What went wrong, in one line: what, where, why, and what to do about it.
///
/// Every room throws this one type, so that a caller can switch over ``Reason`` without knowing which
/// room failed.
public struct StrobeError: Error, Sendable, CustomStringConvertible {
  /// The kind of failure, for programs; ``message`` is for people.
  public enum Reason: Sendable, Equatable {
    /// The caller asked for something that makes no sense: a bad name, a bad size.
    case usage
    /// A repository, collection, restore point, disk or source that does not exist.
    case notFound
    /// Something that would have to be new exists already.
    case exists
    /// Another process holds what is needed.
    case busy
    /// It could be done, but would destroy something; an option may override it.
    case refused
    /// Stored bytes are not what was written: which object, what was expected, what was found.
    case damaged(object: String, expected: String, found: String)
    /// The kernel said no: `errno`, the system call, the object.
    case system(errno: Int32, call: String, object: String)
    /// Written by a newer Strobe.
    case newerVersion
    /// Cancelled by the caller or by a signal.
    case cancelled
  }

  public let reason: Reason
  /// One sentence without a full stop: what failed, where and why.
  public let message: String
  /// What the reader can do about it, when there is something.
  public let advice: String?

  public init(_ reason: Reason, _ message: String, advice: String? = nil) {
    self.reason = reason
    self.message = message
    self.advice = advice
  }

  public var description: String {
    advice.map { "\(message); \($0)" } ?? message
  }

  /// Bytes that are not what was written.
  package static func damaged(_ object: String, expected: String, found: String) -> StrobeError {
    StrobeError(
      .damaged(object: object, expected: expected, found: found),
      "\(object) is damaged: expected \(expected), found \(found)")
  }

  package static let cancelled = StrobeError(.cancelled, "cancelled")

  package var isDamage: Bool {
    if case .damaged = reason { return true }
    return false
  }

  /// The `errno` behind this error, or 0.
  package var errno: Int32 {
    if case .system(let errno, _, _) = reason { return errno }
    return 0
  }

  /// The same failure, said more precisely.
  package func explained(_ message: String, advice: String? = nil) -> StrobeError {
    StrobeError(reason, message, advice: advice ?? self.advice)
  }
}
