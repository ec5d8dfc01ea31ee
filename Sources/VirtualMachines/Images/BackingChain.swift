import Glibc
import Platform

/// What an image is made of besides itself: images may name others that they lie over, and files that hold their data.
///
/// An image comes from somewhere. Before QEMU opens it, which may be as root, it is looked at without being opened for
/// reading content: chains that don't end, and names that lead out of this machine's files, are refused.
enum BackingChain {
  private static let milliseconds = 30_000

  /// - Throws: `refused` for what is not to be followed, `usage` when it isn't of the format.
  static func check(_ path: String, _ format: ImageFormat) throws(StrobeError) {
    let program = try ProgramRun.find("qemu-img", package: "qemu-utils")
    let text: [UInt8]
    do throws(StrobeError) {
      text = try ProgramRun.output(
        program,
        ["info", "--force-share", "--backing-chain", "--output=json", "-f", format.rawValue, path],
        milliseconds: milliseconds)
    } catch {
      throw StrobeError(
        error.errno == ETIMEDOUT ? .refused : .usage,
        "image \(path) can't be opened: \(error.message)",
        advice:
          "is it of the format that was said? qemu-img info --backing-chain shows what it lies over"
      )
    }
    for image in JSONValue(decoding: text)?.elements ?? [] {
      if image["encrypted"]?.flag == true {
        throw StrobeError(
          .refused, "image \(path) is encrypted: without its key nothing in it can be read",
          advice:
            "take it through its guest, with --qmp SOCKET or --libvirt DOMAIN, or serve it yourself with "
            + "qemu-nbd --object secret,… and name its nbd+unix:// URI")
      }
      let data = image["format-specific"]?["data"]
      if let file = data?["data-file"]?.text {
        throw refused(path, "keeps its data in \(file)")
      }
      guard let below = image["full-backing-filename"]?.text ?? image["backing-filename"]?.text
      else {
        continue
      }
      guard below.hasPrefix("/") else { throw refused(path, "lies over \(below)") }
      guard let facts = try FileFacts(path: below), facts.isRegularFile || facts.isBlockDevice
      else { throw refused(path, "lies over \(below), which is no file") }
      guard image["backing-filename-format"]?.text != nil else {
        throw refused(path, "lies over \(below) and doesn't say of which format that is")
      }
    }
  }

  private static func refused(_ path: String, _ what: String) -> StrobeError {
    StrobeError(
      .refused, "image \(path) \(what.prefix(300)): that is not followed",
      advice: "serve it yourself with qemu-nbd and name its nbd+unix:// URI, if you trust it")
  }
}
