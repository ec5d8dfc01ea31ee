import Glibc

/// The single way to the kernel: runs `body` again while it is interrupted, and turns -1 into an error
/// that carries `errno`, the call and its object.
@discardableResult
package func systemCall<Value: FixedWidthInteger & SignedInteger>(
  _ call: StaticString, _ object: @autoclosure () -> String, _ body: () -> Value
) throws(StrobeError) -> Value {
  while true {
    let result = body()
    if result != -1 { return result }
    let code = errno
    if code == EINTR { continue }
    throw .system(code, call: "\(call)", object: object())
  }
}

extension StrobeError {
  /// Whether the object itself can't be read: it is damaged, or what it lies on says so. Anything else, out
  /// of memory or of descriptors, says nothing of it.
  package var isUnreadable: Bool { isDamage || errno == EIO }

  /// A failed system call. ENOSPC and its like get the advice that belongs to them.
  package static func system(_ code: Int32, call: String, object: String) -> StrobeError {
    let why = unsafe String(cString: strerror(code))
    let advice: String? =
      switch code {
      case ENOSPC, EDQUOT: "free space there, then run it again"
      case EROFS: "the file system is mounted read-only"
      case EACCES, EPERM: "run it as root or as the owner"
      case EMFILE, ENFILE: "raise the limit on open files (ulimit -n)"
      default: nil
      }
    return StrobeError(
      .system(errno: code, call: call, object: object), "\(object): \(call): \(why)", advice: advice
    )
  }
}
