import CLinux
import Glibc
import Platform

/// The file that a restore writes before it gets its name: `.<name>.strobe-partial` beside it.
///
/// Invariants:
/// - Whoever writes to it holds it with an exclusive flock(2) that vanishes with the process, so two
///   restores never write to one.
/// - One that is gone on with was made by the same user, and has no other name: nobody else can read what is
///   written to it.
enum PartialFile {
  private static let suffix = ".strobe-partial"

  /// The name is known, so that the next restore to `target` finds it.
  static func path(of target: String) -> String {
    var name = lastComponent(target)
    // A name has at most 255 bytes.
    if name.utf8.count + suffix.utf8.count + 1 > 255 {
      let bytes = Array(name.utf8)
      let sum = unsafe bytes.withUnsafeBytes { unsafe clinux_xxh3_64($0.baseAddress, $0.count) }
      name = String(sum, radix: 16)
    }
    return "\(parentDirectory(target))/.\(name)\(suffix)"
  }

  /// Opens what an interrupted restore left, or makes a new one in its place.
  ///
  /// - Parameters:
  ///   - resumes: whether what is there is gone on with; otherwise it is replaced.
  ///   - wasThere: set to true when it is.
  /// - Throws: `busy` when another restore writes to it.
  static func open(
    for target: String, resumes: Bool, wasThere: inout Bool
  ) throws(StrobeError) -> FileDescriptor {
    let path = path(of: target)
    while true {
      if resumes, let file = try existing(path, target) {
        wasThere = true
        return file
      }
      do throws(StrobeError) {
        let file = try FileDescriptor(opening: path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW)
        do throws(StrobeError) {
          if try isAlone(file, target) { return file }
        } catch {
          // Another restore that found it between our open and our lock goes on with it.
          if error.reason != .busy { try? removeFile(path) }
          throw error
        }
      } catch {
        guard error.errno == EEXIST else { throw error }
        if !resumes { try removeLeftover(path, target) }
      }
    }
  }

  /// - Returns: nil when there is none.
  private static func existing(_ path: String, _ target: String) throws(StrobeError)
    -> FileDescriptor?
  {
    do throws(StrobeError) {
      while true {
        let file = try FileDescriptor(opening: path, O_RDWR | O_NOFOLLOW | O_NONBLOCK)
        let facts = try file.facts()
        guard facts.isRegularFile, facts.owner == geteuid(), facts.links <= 1 else {
          throw StrobeError(
            .refused, "\(path) is no file that a restore of this user left",
            advice: "remove it, or restore without --resume")
        }
        if try isAlone(file, target) { return file }
      }
    } catch {
      if error.errno == ENOENT { return nil }
      if error.errno == ELOOP {
        throw StrobeError(.refused, "\(path) is a symbolic link", advice: "remove it")
      }
      throw error
    }
  }

  private static func removeLeftover(_ path: String, _ target: String) throws(StrobeError) {
    do throws(StrobeError) {
      let file = try FileDescriptor(opening: path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
      if try isAlone(file, target) { try removeFile(path) }
    } catch {
      if error.errno == ENOENT { return }
      // The link itself goes, not what it leads to.
      guard error.errno == ELOOP else { throw error }
      try removeFile(path)
    }
  }

  /// Takes the lock.
  ///
  /// - Returns: false when the file lost its name meanwhile: it is complete, or was replaced.
  /// - Throws: `busy` when somebody else has it.
  private static func isAlone(
    _ file: borrowing FileDescriptor, _ target: String
  ) throws(StrobeError) -> Bool {
    guard file.lockPatiently() else {
      guard errno == EWOULDBLOCK else {
        throw .system(errno, call: "flock", object: file.path)
      }
      throw StrobeError(
        .busy, "another restore writes to target \(target)", advice: "wait for it")
    }
    let facts = try file.facts()
    guard let named = try FileFacts(path: file.path) else { return false }
    return named.isSameFile(as: facts)
  }
}
