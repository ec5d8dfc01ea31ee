import CLinux
import Glibc
import Platform

/// Something that is brought to a standstill and let go of again: a file system, a guest's file systems, a
/// guest's processors.
///
/// The guardian has one of each place and uses it on that place's keeper thread. The engine has one, too, and
/// uses it only when the guardian is gone.
protocol Hold: AnyObject, Sendable {
  /// - Parameter stop: set when it is not to be frozen any more.
  func freeze(stop: CancellationFlag) -> FreezeAnswer

  /// - Returns: 0, or an errno: EINVAL says that it wasn't frozen any more, any other that it may be frozen still.
  func thaw(isEngineAlive: Bool) -> Int32

  /// In the engine, before the guardian is asked to freeze.
  func expectFreeze()

  /// In the engine, when the guardian died before it answered: whether the freeze may have been begun.
  func mayBeFrozen() -> Bool
}

extension Hold {
  func expectFreeze() {}
  // The thaw itself tells.
  func mayBeFrozen() -> Bool { true }
}

/// What came of a freeze.
struct FreezeAnswer {
  /// 0, or an errno.
  let code: Int32
  /// Whether it has to be thawed: always when `code` is 0, and when a guest may freeze late.
  let isOwed: Bool
  /// Why it failed, where an errno says too little.
  let text: String

  init(code: Int32, isOwed: Bool, text: String = "") {
    self.code = code
    self.isOwed = isOwed
    self.text = text
  }
}

/// A mounted file system of this host. Allocates nothing.
final class MountHold: Hold {
  private let descriptor: Int32
  /// Keeps the descriptor open in the engine; the guardian inherited it for good.
  private let mount: MountHandle?

  init(inheriting descriptor: Int32) {
    self.descriptor = descriptor
    mount = nil
  }

  init(_ mount: MountHandle) {
    descriptor = mount.descriptor.number
    self.mount = mount
  }

  func freeze(stop: CancellationFlag) -> FreezeAnswer {
    let code = systemCallCode { clinux_freeze(descriptor) }
    return FreezeAnswer(code: code, isOwed: code == 0)
  }

  func thaw(isEngineAlive: Bool) -> Int32 { systemCallCode { clinux_thaw(descriptor) } }
}
