import CLinux
import Glibc
package import Platform

extension HookCommand {
  /// Checks that only root decides what is run: an absolute path to an executable regular file, which
  /// belongs to root and nobody else can write to, and so every directory above it.
  ///
  /// No part of the path may be a symbolic link. A directory with the sticky bit, such as `/tmp`, may be
  /// writable: what root owns there, nobody else can rename.
  ///
  /// - Throws: `usage`, `notFound` or `refused`, with the path that is at fault.
  package func check() throws(StrobeError) {
    guard program.hasPrefix("/") else {
      throw StrobeError(.usage, "hook \(program): the path is not absolute")
    }
    guard let facts = try FileFacts(path: program), let real = resolvedPath(program) else {
      throw StrobeError(.notFound, "hook \(program): there is no such file")
    }
    guard facts.isRegularFile else {
      throw StrobeError(.usage, "hook \(program) is not a regular file")
    }
    guard facts.mode & 0o111 != 0 else {
      throw StrobeError(
        .usage, "hook \(program) is not executable", advice: "chmod 755 \(program)")
    }
    // A link could be turned elsewhere between this check and the start.
    guard real == program else {
      throw StrobeError(
        .refused, "hook \(program) is reached through a symbolic link, or not by its shortest path",
        advice: "name it \(real)")
    }
    try Self.checkOwner(real, facts)
    var place = real
    while place != "/" {
      place = parentDirectory(place)
      guard let directory = try FileFacts(path: place) else {
        throw StrobeError(.notFound, "hook \(program): there is no \(place)")
      }
      try Self.checkOwner(place, directory)
    }
  }

  private static func checkOwner(_ path: String, _ facts: FileFacts) throws(StrobeError) {
    guard facts.owner == 0 else {
      throw StrobeError(
        .refused, "\(path) belongs to user \(facts.owner), and hooks run as root",
        advice: "chown root \(path)")
    }
    let isSticky = facts.isDirectory && facts.mode & UInt32(S_ISVTX) != 0
    guard facts.mode & 0o022 == 0 || isSticky else {
      throw StrobeError(
        .refused, "\(path) can be written to by others than root, and hooks run as root",
        advice: "chmod go-w \(path)")
    }
  }
}
