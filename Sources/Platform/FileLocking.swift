import CLinux
import Glibc

extension FileDescriptor {
  /// Takes an exclusive flock(2), and asks again for a moment: a program that was just started holds copies of its parent's
  /// descriptors, and so its locks, until it runs.
  ///
  /// - Returns: false with the reason in `errno`; EWOULDBLOCK: somebody else has it.
  package borrowing func lockPatiently() -> Bool {
    for _ in 0..<40 {
      if clinux_try_lock(number, 1) == 0 { return true }
      guard errno == EWOULDBLOCK else { return false }
      usleep(5000)
    }
    errno = EWOULDBLOCK
    return false
  }
}
