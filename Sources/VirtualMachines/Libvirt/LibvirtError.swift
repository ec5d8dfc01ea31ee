import CLibvirt
import Glibc
import Platform

/// Why a call of libvirt failed, in libvirt's words: one of its codes tells what to do next.
struct LibvirtError: Error {
  /// Of virErrorNumber.
  let code: Int32
  let message: String
  let call: String

  /// Of the call that failed last on this thread.
  init(last call: StaticString) {
    var text = [CChar](repeating: 0, count: 2048)
    code = unsafe clibvirt_last_error(&text, text.count)
    message = textUpToNUL(text)
    self.call = "\(call)"
  }

  init(timedOut call: String, _ message: String) {
    code = clibvirt_ERR_OPERATION_TIMEOUT
    self.message = message
    self.call = call
  }

  /// - Parameter object: whom it happened to, such as a domain.
  func about(_ object: String, advice: String? = nil) -> StrobeError {
    let text = "\(object): \(message.isEmpty ? "\(call) failed" : message)"
    switch code {
    case clibvirt_ERR_NO_DOMAIN: return StrobeError(.notFound, text, advice: advice)
    case clibvirt_ERR_OPERATION_TIMEOUT, clibvirt_ERR_RESOURCE_BUSY:
      return StrobeError(
        .busy, text, advice: advice ?? "something else works on the guest; try again later")
    case clibvirt_ERR_AUTH_FAILED, clibvirt_ERR_AUTH_UNAVAILABLE, clibvirt_ERR_ACCESS_DENIED,
      clibvirt_ERR_OPERATION_DENIED:
      return StrobeError(.refused, text, advice: advice ?? "run it as root")
    case clibvirt_ERR_NO_SUPPORT, clibvirt_ERR_OPERATION_INVALID,
      clibvirt_ERR_ARGUMENT_UNSUPPORTED, clibvirt_ERR_OPERATION_UNSUPPORTED,
      clibvirt_ERR_AGENT_UNRESPONSIVE:
      return StrobeError(.refused, text, advice: advice)
    default:
      return StrobeError(
        .system(errno: EIO, call: call, object: object), text, advice: advice)
    }
  }
}

/// What a function of C wrote into a buffer.
func textUpToNUL(_ buffer: [CChar]) -> String {
  String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// A call that returns -1 when it fails.
@discardableResult
func libvirt(_ call: StaticString, _ body: () -> Int32) throws(LibvirtError) -> Int {
  let result = body()
  guard result >= 0 else { throw LibvirtError(last: call) }
  return Int(result)
}

/// A call that returns a string that it allocated, or NULL when it fails.
func libvirtText(_ call: StaticString, _ body: () -> UnsafeMutablePointer<CChar>?)
  throws(LibvirtError) -> String
{
  guard let text = unsafe body() else { throw LibvirtError(last: call) }
  defer { unsafe free(text) }
  return unsafe String(cString: text)
}

/// Says of whom a failure is told.
func about<Value>(_ object: String, _ body: () throws(LibvirtError) -> Value) throws(StrobeError)
  -> Value
{
  do throws(LibvirtError) {
    return try body()
  } catch {
    throw error.about(object)
  }
}
